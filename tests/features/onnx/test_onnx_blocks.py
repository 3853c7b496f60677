"""Features as ONNX nodes, against those of the engines."""

import numpy as np
import pytest

from featurepipe.errors import UsageError
from featurepipe.features.extraction.embedding import embed_images
from featurepipe.features.extraction.recipe import FileOptions, make_recipe
from featurepipe.features.extraction.views import VIEWS
from featurepipe.features.onnx.blocks import require_writable, write_features
from featurepipe.features.onnx.networks import convert_keras
from featurepipe.features.onnx.nodes import FLOAT, UINT8, Nodes
from featurepipe.sources.given_images import GivenImages
from model_graphs import Graph
from onnx_running import run_model, run_nodes

PX = 32


def images(n=3, size=(40, 25)):
    return np.random.default_rng(0).integers(0, 256, (n, *size, 3), dtype=np.uint8)


def compute(recipes, pixels):
    nodes = Nodes()
    given = nodes.add_input("pixels", UINT8, ["n_images", "height", "width", 3])
    features = write_features(nodes, recipes, given)
    return nodes, run_nodes(nodes, {"features": (features, FLOAT)}, pixels=pixels)["features"]


def assert_as_embedded(recipes, pixels):
    expected, _ = embed_images(GivenImages(list(pixels)), ["0", "1", "2"], recipes)
    nodes, computed = compute(recipes, pixels)
    assert computed.shape == expected.shape
    errors = np.linalg.norm(computed - expected, axis=1)
    assert (errors <= 1e-4 * np.linalg.norm(expected, axis=1)).all()
    return nodes


@pytest.mark.keras
def test_views_of_a_network_and_a_histogram_lie_side_by_side():
    pytest.importorskip("tf2onnx")
    network = {"weights": "random", "size_px": PX, "engine": "keras"}
    recipes = [make_recipe("mobilenet_v2", view=view, **network) for view in VIEWS]
    recipes.insert(2, make_recipe("hsv_histogram", "none"))

    nodes = assert_as_embedded(recipes, images())

    # The weights of the network are in the graph once.
    assert nodes.model("", {}).ByteSize() < 12e6


@pytest.mark.keras
def test_constants_that_a_network_holds_are_in_the_graph():
    pytest.importorskip("tf2onnx")
    recipe = make_recipe("efficientnet_b0", "random", size_px=PX, engine="keras")
    assert_as_embedded([recipe], images())


@pytest.mark.keras
def test_constants_of_a_preprocessing_are_in_the_graph():
    pytest.importorskip("tf2onnx")
    keras = pytest.importorskip("keras")
    given = keras.Input((*images().shape[1:],))
    # Reverses the channels, and subtracts means.
    network = keras.Model(given, keras.applications.resnet50.preprocess_input(given))
    pixels = images().astype(np.float32)

    (computed,) = run_model(
        convert_keras(network, "means").SerializeToString(), pictures=pixels
    ).values()

    np.testing.assert_allclose(computed, network.predict(pixels, verbose=0), atol=1e-4)
    means = pixels[..., ::-1].mean() - computed.mean()
    assert means == pytest.approx(np.mean([103.939, 116.779, 123.68]), abs=1e-3)


@pytest.mark.keras
def test_a_network_with_an_unknown_operator_is_refused_by_its_name():
    pytest.importorskip("tf2onnx")
    keras = pytest.importorskip("keras")
    # As in ConvNeXt.
    network = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Activation("gelu")])

    with pytest.raises(UsageError, match=r"^convex cannot be converted to ONNX.*Erfc"):
        convert_keras(network, "convex")


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    ("output", "pooling"),
    [("vector", "avg"), ("maps", "avg"), ("maps", "max"), ("tokens", "cls+mean")],
)
def test_an_onnx_file_is_taken_as_it_is(tmp_path, layout, output, pooling):
    side = 12
    shape = ("n", 3, side, side) if layout == "NCHW" else ("n", side, side, 3)
    graph = Graph(shape, layout)
    if output == "maps":
        value = graph.maps if layout == "NCHW" else graph.channels_last()
    else:
        value = getattr(graph, output)()
    path = graph.save(tmp_path / "net.onnx", value)
    said = {"mean": "0.5,0.4,0.3", "std": "0.25,0.5,1", "channels": "bgr"}
    recipe = make_recipe(
        str(path), size_px=side, pooling=pooling, of_file=FileOptions(said, None, 2)
    )

    assert_as_embedded([recipe], images())


def test_what_a_file_cannot_repeat_is_refused(tmp_path):
    fast = make_recipe("hsv_histogram", "none", fast_decode=True)

    with pytest.raises(UsageError, match="decoded at a reduced size"):
        require_writable([fast])
