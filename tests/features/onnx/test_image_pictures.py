import numpy as np
import pytest

from featurepipe.features.backbones import find_backbone
from featurepipe.features.engines.descriptors import HsvHistogram
from featurepipe.features.engines.probes import probe_images
from featurepipe.features.extraction.views import VIEWS
from featurepipe.features.headless import HeadlessNetwork
from featurepipe.features.onnx.nodes import FLOAT, UINT8, Nodes
from featurepipe.features.onnx.pictures import write_histogram, write_view
from featurepipe.features.weights import resolve_weights
from onnx_running import RUNNERS

SIZE = (37, 37)


def draw_images():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (4, *SIZE, 3), dtype=np.uint8)
    # Greys, black, white and pure colours have hues and saturations at the edges of bins.
    flat = np.array(
        [[0, 0, 0], [255, 255, 255], [9, 9, 9], [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 0, 1]],
        np.uint8,
    )
    edges = flat[rng.integers(0, len(flat), (1, *SIZE))]
    return np.concatenate([noise, edges, probe_images(SIZE)])


@pytest.mark.parametrize("run_nodes", RUNNERS)
@pytest.mark.parametrize("view", VIEWS)
def test_views_show_the_same_pictures(view, run_nodes):
    images, nodes = draw_images(), Nodes()
    given = nodes.add_input("pixels", UINT8, ["n", *SIZE, 3])
    pictures = write_view(nodes, given, view, SIZE)

    outputs = {f"picture{k}": (value, UINT8) for k, value in enumerate(pictures)}
    shown = run_nodes(nodes, outputs, pixels=images)

    assert len(pictures) == VIEWS[view].n_pictures
    np.testing.assert_array_equal(np.concatenate([*shown.values()]), VIEWS[view].apply(images))


@pytest.mark.parametrize("run_nodes", RUNNERS)
def test_the_histogram_is_that_of_the_descriptor(run_nodes):
    images, nodes = draw_images(), Nodes()
    spec = find_backbone("hsv_histogram")
    network = HeadlessNetwork(spec, resolve_weights("none", spec, 0), SIZE[0])
    given = nodes.add_input("pixels", UINT8, ["n", *SIZE, 3])
    histogram = write_histogram(nodes, given, SIZE[0])

    computed = run_nodes(nodes, {"features": (histogram, FLOAT)}, pixels=images)["features"]

    expected = HsvHistogram(network).start(images).result()
    np.testing.assert_allclose(computed, expected, rtol=1e-6, atol=1e-9)
    # Every pixel is in the same bin.
    np.testing.assert_array_equal(computed > 0, expected > 0)
