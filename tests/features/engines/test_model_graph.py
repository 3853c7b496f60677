"""Graphs of networks in files: every value is compared with the same in NumPy."""

import numpy as np
import openvino as ov
import pytest

from featurepipe.errors import ModelFileError
from featurepipe.features.engines.model_graph import export
from featurepipe.features.model_files.normalisation import NOTHING, Normalisation
from model_graphs import Graph, embed_patches, tokens_of

SIDE = 16
IMAGENET = Normalisation(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
DEFAULTS = {
    "size_px": SIDE,
    "pooling": "avg",
    "normalisation": NOTHING,
    "output": None,
    "prefix_tokens": None,
}


def noise(n_images=7, side=SIDE):
    return np.random.default_rng(1).integers(0, 256, (n_images, side, side, 3), dtype=np.uint8)


def normalised(pixels, how):
    pixels = pixels[..., ::-1] if how.channels == "bgr" else pixels
    return (pixels * np.float64(how.scale) - how.mean) / how.std


def features_of(path, pixels, **options):
    """Features of the exported graph, padded to its batch if that is fixed; and the batch."""
    exported = path.with_suffix(".exported.xml")
    export(path, exported, **(DEFAULTS | options))
    model = ov.Core().read_model(exported)
    assert model.input(0).element_type == ov.Type.u8
    batch = model.input(0).partial_shape[0]
    compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    if batch.is_dynamic:
        return compiled(pixels)[0], None
    n = batch.get_length()
    padded = np.resize(pixels, (-(-len(pixels) // n) * n, *pixels.shape[1:]))
    parts = [compiled(padded[k : k + n])[0] for k in range(0, len(padded), n)]
    return np.concatenate(parts)[: len(pixels)], n


def assert_close(found, expected):
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "small.onnx"


INPUTS = [
    (["n", 3, SIDE, SIDE], "NCHW", None),
    (["n", 3, "h", "w"], "NCHW", None),
    (["n", "c", "h", "w"], "NCHW", None),
    ([1, 3, SIDE, SIDE], "NCHW", None),
    ([4, 3, SIDE, SIDE], "NCHW", None),
    (["n", SIDE, SIDE, 3], "NHWC", None),
    (["n", "h", "w", 3], "NHWC", None),
    (["n", "h", "w", "c"], "NHWC", None),
    ([1, SIDE, SIDE, 3], "NHWC", None),
]


@pytest.mark.parametrize("shape, layout, batch", INPUTS)
@pytest.mark.parametrize("pooling, reduce", [("avg", np.mean), ("max", np.max)])
def test_maps_of_any_input(path, shape, layout, batch, pooling, reduce):
    graph = Graph(shape, layout)
    graph.save(path, graph.maps)
    maps = embed_patches(normalised(noise(), IMAGENET))
    found, fixed = features_of(path, noise(), pooling=pooling, normalisation=IMAGENET.text)
    assert_close(found, reduce(maps, axis=(2, 3)))
    assert fixed == batch


def test_maps_with_channels_last(path):
    graph = Graph(["n", SIDE, SIDE, 3], "NHWC")
    graph.save(path, graph.channels_last())
    assert_close(features_of(path, noise())[0], embed_patches(noise()).mean(axis=(2, 3)))
    assert_close(features_of(path, noise(), pooling="max")[0], embed_patches(noise()).max((2, 3)))


@pytest.mark.parametrize("layout, shape", [("NCHW", [1, 3, 20, 20]), ("NHWC", [1, 20, 20, 3])])
def test_maps_as_wide_as_they_have_channels_are_in_the_order_of_the_input(path, layout, shape):
    # Of 20 px there are 5 x 5 patches of 5 channels.
    graph = Graph(shape, layout)
    graph.save(path, graph.maps if layout == "NCHW" else graph.channels_last())
    found, _ = features_of(path, noise(side=20), size_px=20)
    assert_close(found, embed_patches(noise(side=20)).mean(axis=(2, 3)))


@pytest.mark.parametrize(
    "how",
    [
        Normalisation(),
        Normalisation(1 / 127.5, (1.0,) * 3),
        Normalisation(1.0, (103.939, 116.779, 123.68), channels="bgr"),
        Normalisation(channels="bgr"),
        Normalisation(1 / 255, (0.1, 0.2, 0.3), (0.3, 0.5, 0.7), "bgr"),
    ],
)
def test_normalisations(path, how):
    graph = Graph(["n", 3, SIDE, SIDE])
    graph.save(path, graph.vector())
    found, _ = features_of(path, noise(), normalisation=how.text)
    assert_close(found, embed_patches(normalised(noise(), how)).mean(axis=(2, 3)))


@pytest.mark.parametrize("pooling", ["cls", "mean", "cls+mean"])
def test_tokens_with_a_class_token_and_a_register(path, pooling):
    graph = Graph(["n", 3, SIDE, SIDE])
    graph.save(path, graph.tokens())
    tokens = tokens_of(embed_patches(normalised(noise(), IMAGENET)))
    cls, mean = tokens[:, 0], tokens[:, 2:].mean(axis=1)
    expected = {"cls": cls, "mean": mean, "cls+mean": np.concatenate([cls, mean], axis=1)}
    found, _ = features_of(
        path, noise(), pooling=pooling, prefix_tokens=2, normalisation=IMAGENET.text
    )
    assert_close(found, expected[pooling])


def test_a_class_token_needs_no_number_of_others(path):
    graph = Graph(["n", 3, SIDE, SIDE])
    graph.save(path, graph.tokens())
    found, _ = features_of(path, noise(), pooling="cls")
    assert_close(found, tokens_of(embed_patches(noise()))[:, 0])


@pytest.mark.parametrize("n_images", [1, 4])
def test_a_network_that_reshapes_to_its_own_batch_keeps_it(path, n_images):
    graph = Graph([n_images, 3, SIDE, SIDE])
    # The whole batch in one row, then cut again: of another batch, images would be mixed.
    row = graph.add("Reshape", graph.maps, graph.constant(np.array([1, -1])))
    graph.save(path, graph.add("Reshape", row, graph.constant(np.array([n_images, -1]))))
    found, fixed = features_of(path, noise())
    assert fixed == n_images
    assert_close(found, embed_patches(noise()).reshape(7, -1))


def test_a_network_that_subtracts_the_mean_of_its_batch_gets_one_image_at_a_time(path):
    graph = Graph(["n", 3, SIDE, SIDE])
    vector = graph.vector()
    mean = graph.add("ReduceMean", vector, graph.constant(np.array([0])))
    graph.save(
        path, graph.add("Sub", vector, graph.add("Mul", mean, graph.constant(np.float32(0.5))))
    )
    found, fixed = features_of(path, noise())
    assert fixed == 1
    assert_close(found, embed_patches(noise()).mean(axis=(2, 3)) / 2)


def test_a_fixed_batch_whose_images_change_each_other_is_refused(path):
    graph = Graph([4, 3, SIDE, SIDE])
    vector = graph.vector()
    mean = graph.add("ReduceMean", vector, graph.constant(np.array([0])))
    doubled = graph.add("Concat", graph.add("Sub", vector, mean), vector, axis=1)
    graph.save(path, graph.add("Reshape", doubled, graph.constant(np.array([4, 10]))))
    with pytest.raises(ModelFileError, match="images of one batch change each other's features"):
        features_of(path, noise())


@pytest.mark.parametrize("rows", [[-1, 40], [1, -1]])
def test_other_than_one_row_an_image_is_refused(path, rows):
    graph = Graph([2, 3, SIDE, SIDE])
    graph.save(path, graph.add("Reshape", graph.maps, graph.constant(np.array(rows))))
    with pytest.raises(ModelFileError, match="computes no vector for each image"):
        features_of(path, noise())


def test_features_that_are_not_finite_are_refused(path):
    graph = Graph(["n", 3, SIDE, SIDE])
    graph.save(path, graph.add("Div", graph.vector(), graph.constant(np.float32(0))))
    with pytest.raises(ModelFileError, match=r"not finite numbers\. Correct the preprocessing"):
        features_of(path, noise())


def test_float16_and_uint8_inputs(path):
    graph = Graph(["n", 3, SIDE, SIDE], dtype="f16")
    graph.save(path, graph.vector())
    expected = embed_patches(normalised(noise(), IMAGENET)).mean(axis=(2, 3))
    found, _ = features_of(path, noise(), normalisation=IMAGENET.text)
    np.testing.assert_allclose(found, expected, rtol=2e-2, atol=2e-3)
    graph = Graph(["n", SIDE, SIDE, 3], "NHWC", dtype="u8")
    graph.save(path, graph.vector())
    assert_close(features_of(path, noise())[0], embed_patches(noise()).mean(axis=(2, 3)))
    bgr = Normalisation(channels="bgr")
    found, _ = features_of(path, noise(), normalisation=bgr.text)
    assert_close(found, embed_patches(normalised(noise(), bgr)).mean(axis=(2, 3)))


def test_one_of_several_outputs_or_an_inner_layer(path):
    graph = Graph(["n", 3, SIDE, SIDE])
    tokens, vector = graph.tokens(), graph.vector()
    graph.save(path, tokens, vector)
    maps = embed_patches(noise())
    assert_close(features_of(path, noise(), output=vector)[0], maps.mean(axis=(2, 3)))
    assert_close(features_of(path, noise(), output="maps", pooling="max")[0], maps.max((2, 3)))
    found, _ = features_of(path, noise(), output=tokens, pooling="cls")
    assert_close(found, tokens_of(maps)[:, 0])
    with pytest.raises(ModelFileError) as error:
        features_of(path, noise())
    assert f"has 2 outputs: {tokens}, {vector}. Choose one with --output NAME." in str(error.value)
    with pytest.raises(ModelFileError, match=r"has no output or layer 'pooler'\. Its outputs are"):
        features_of(path, noise(), output="pooler")


@pytest.mark.parametrize(
    "kind, options, message",
    [
        ("maps", {"pooling": "cls"}, "is a feature map: --pooling cls does not apply. Use "
         "--pooling avg or max."),
        ("vector", {"pooling": "max"}, "is a vector: --pooling max does not apply. Use --pooling "
         "avg."),
        ("tokens", {}, "is tokens: --pooling avg does not apply. Use --pooling cls or mean or "
         "cls+mean."),
        ("tokens", {"pooling": "mean"}, "Add --prefix-tokens N."),
        ("tokens", {"pooling": "cls", "prefix_tokens": 0}, "has no class token. Use --pooling "
         "mean."),
        ("tokens", {"pooling": "mean", "prefix_tokens": 1}, "has 18 tokens; without 1 before the "
         "patches, that is 17, which is no square"),
        ("tokens", {"pooling": "mean", "prefix_tokens": 18}, "that is 0, which is no square"),
        ("flat", {}, "is no vector, tokens or map of features. Choose another with --output."),
        ("five", {}, "is no vector, tokens or map of features"),
    ],
)  # fmt: skip
def test_outputs_that_cannot_be_pooled_so(path, kind, options, message):
    graph = Graph(["n", 3, SIDE, SIDE])
    output = {
        "maps": lambda: graph.maps,
        "vector": graph.vector,
        "tokens": graph.tokens,
        "flat": lambda: graph.add("Reshape", graph.maps, graph.constant(np.array([-1]))),
        "five": lambda: graph.add("Unsqueeze", graph.maps, graph.constant(np.array([0]))),
    }[kind]()
    graph.save(path, output)
    with pytest.raises(ModelFileError) as error:
        features_of(path, noise(), **options)
    assert message in str(error.value)
    assert f"The output {output!r} of small.onnx (" in str(error.value)


def test_sizes_that_a_network_does_not_take(path):
    graph = Graph(["n", 3, SIDE, SIDE])
    graph.save(path, graph.vector())
    with pytest.raises(ModelFileError) as error:
        features_of(path, noise(), size_px=20)
    assert "takes images of the shape ? x 3 x 16 x 16, which cannot be 20 x 20 px" in str(
        error.value
    )
    graph = Graph(["n", 3, "h", "w"])
    flat = graph.add("Flatten", graph.maps)
    graph.save(path, graph.add("MatMul", flat, graph.constant(np.ones((80, 2), np.float32))))
    assert features_of(path, noise())[0].shape == (7, 2)
    with pytest.raises(ModelFileError, match="cannot compute images of 20 x 20 px"):
        features_of(path, noise(), size_px=20)


def test_an_axis_of_channels_that_could_be_either_is_not_guessed(path):
    graph = Graph(["n", "a", "b", "c"])
    mean = graph.add("ReduceMean", "pixels", graph.constant(np.array([1, 2])), keepdims=0)
    graph.save(path, mean)
    with pytest.raises(ModelFileError, match="does not say which axis has the channels"):
        features_of(path, noise())
