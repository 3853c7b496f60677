"""Maps before the pooling, of small networks in files that NumPy computes too."""

import numpy as np
import pytest

from featurepipe.errors import NotLinearError
from featurepipe.features.engines import open_engine
from featurepipe.features.engines.feature_maps import FeatureMaps
from featurepipe.features.extraction.file_recipe import FileOptions
from featurepipe.features.extraction.recipe import make_recipe
from model_graphs import N_CHANNELS, PATCH, Graph, embed_patches

SIDE = 12
NHWC = [0, 2, 3, 1]


def noise(n_images=3, side=SIDE):
    return np.random.default_rng(1).integers(0, 256, (n_images, side, side, 3), dtype=np.uint8)


def network_of(path, graph, *outputs, **options):
    graph.save(path, *outputs)
    of_file = FileOptions("none", prefix_tokens=options.pop("prefix_tokens", None))
    options = {"size_px": SIDE} | options
    return make_recipe(str(path), of_file=of_file, **options).network


@pytest.fixture
def path(tmp_path):
    return tmp_path / "small.onnx"


def assert_cells(network, precision="float32"):
    """The cells are those that NumPy computes, and their mean is what the engine gives."""
    pictures = noise()
    cells = FeatureMaps(network, precision).locate(pictures).cells
    expected = np.moveaxis(embed_patches(pictures.astype(float)), 1, -1)
    assert cells.shape == (3, SIDE // PATCH, SIDE // PATCH, N_CHANNELS)
    np.testing.assert_allclose(cells, expected, rtol=1e-4, atol=1e-4 * expected.max())
    features = open_engine(network, engine="openvino", precision=precision).embed(pictures)
    np.testing.assert_allclose(cells.mean(axis=(1, 2)), features, rtol=1e-5)


@pytest.mark.parametrize("batch", ["n", 1, 2])
def test_a_map_that_featurepipe_pools(path, batch):
    graph = Graph([batch, 3, SIDE, SIDE])
    assert_cells(network_of(path, graph, graph.maps))


def test_a_map_whose_channels_are_last(path):
    graph = Graph(["n", SIDE, SIDE, 3], "NHWC")
    assert_cells(network_of(path, graph, graph.channels_last()))


def test_a_vector_that_the_network_itself_pooled(path):
    graph = Graph(["n", 3, SIDE, SIDE])
    assert_cells(network_of(path, graph, graph.vector()))


def test_the_mean_of_the_tokens_of_patches(path):
    graph = Graph(["n", 3, SIDE, SIDE])
    assert_cells(network_of(path, graph, graph.tokens(), pooling="mean", prefix_tokens=2))


def test_evidence_is_the_class_activation_map_over_the_number_of_cells(path):
    graph = Graph(["n", 3, SIDE, SIDE])
    network = network_of(path, graph, graph.maps)
    pictures, weights = noise(), np.array([1.0, -2, 0.5, 0, 3])
    evidence = FeatureMaps(network).locate(pictures).evidence(weights)
    maps = embed_patches(pictures.astype(float))
    expected = np.einsum("noyx,o->nyx", maps, weights) / 9
    np.testing.assert_allclose(evidence, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("options", "output", "said"),
    [
        ({"pooling": "max"}, "map", r"small \(pooling max\)"),
        ({"pooling": "cls", "prefix_tokens": 2}, "tokens", r"small \(pooling cls\)"),
        ({"pooling": "cls+mean", "prefix_tokens": 2}, "tokens", r"small \(pooling cls\+mean\)"),
        # What is computed of the average is no average.
        ({}, "scaled", "small"),
        ({}, "flat", "small"),
    ],
)
def test_other_features_have_no_map(path, options, output, said):
    graph = Graph(["n", 3, SIDE, SIDE])
    outputs = {
        "map": lambda: graph.maps,
        "tokens": graph.tokens,
        "scaled": lambda: graph.add("Mul", graph.vector(), graph.constant(np.float32(2))),
        "flat": lambda: graph.add("Flatten", graph.maps),
    }
    network = network_of(path, graph, outputs[output](), **options)
    with pytest.raises(NotLinearError, match=rf"of {said} are no average over places of the"):
        FeatureMaps(network)


def test_tokens_that_are_no_square_have_no_map(path):
    graph = Graph(["n", 3, SIDE, SIDE])
    mean = graph.add("ReduceMean", graph.tokens(), graph.constant(np.array([1])), keepdims=0)
    with pytest.raises(NotLinearError, match="no average over places"):
        FeatureMaps(network_of(path, graph, mean))


@pytest.mark.keras
@pytest.mark.parametrize("pooling", ["avg", "conv_pw_11_relu"])
def test_a_network_of_keras(pooling):
    network = make_recipe("mobilenet", "random", size_px=96, pooling=pooling).network
    pictures = noise(2, 96)
    cells = FeatureMaps(network).locate(pictures).cells
    assert cells.shape == ((2, 3, 3, 1024) if pooling == "avg" else (2, 6, 6, 512))
    features = open_engine(network, engine="openvino").embed(pictures)
    scale = np.abs(features).max()
    np.testing.assert_allclose(cells.mean(axis=(1, 2)), features, atol=1e-5 * scale)
    assert cells.std(axis=(1, 2)).max() > 0


@pytest.mark.keras
def test_a_network_of_keras_that_is_pooled_by_the_maximum():
    network = make_recipe("mobilenet", "random", size_px=96, pooling="max").network
    with pytest.raises(NotLinearError, match=r"mobilenet \(pooling max\) are no average"):
        FeatureMaps(network)
