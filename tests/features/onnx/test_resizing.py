import numpy as np
import PIL
import pytest
from PIL import Image

from featurepipe.errors import UsageError
from featurepipe.features.framing import Framing
from featurepipe.features.onnx.nodes import UINT8, Nodes
from featurepipe.features.onnx.resizing import Picture, require_repeatable, write_resizing
from onnx_running import run_nodes, run_nodes_by_openvino

# Before, columns were always resized first.
ROWS_MAY_BE_FIRST = int(PIL.__version__.split(".")[0]) >= 13
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
SIZES = [(75, 100), (100, 75), (300, 40), (40, 300), (20, 33), (48, 60), (60, 48), (161, 97)]


def draw(height, width):
    rng = np.random.default_rng(height * 1000 + width)
    return rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)


def resize(pixels, framing, run_nodes=run_nodes):
    nodes = Nodes()
    given = nodes.add_input("pixels", UINT8, ["n", "h", "w", 3])
    resized = write_resizing(nodes, Picture(nodes, given), framing)
    return run_nodes(nodes, {"resized": (resized, UINT8)}, pixels=pixels)["resized"]


def resize_by_pillow(pixels, framing):
    size = framing.resized(pixels.shape[:2])
    left, top = framing.corner(pixels.shape[:2])
    method = FILTERS[framing.interpolation]
    whole = Image.fromarray(pixels).resize((size[1], size[0]), method)
    return np.array(whole.crop((left, top, left + framing.width, top + framing.height)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "framing",
    [
        Framing(48, 48),
        Framing(31, 31),
        Framing(32, 32, "bicubic"),
        Framing(32, 32, "bicubic", 37),
        Framing(30, 30, "bilinear", 30),
    ],
    ids=lambda framing: f"{framing.method}-{framing.height}",
)
def test_resized_pixels_are_those_of_pillow(size, framing):
    pixels = draw(*size)
    expected = np.stack([resize_by_pillow(image, framing) for image in pixels])

    resized = resize(pixels, framing)

    differences = np.abs(resized.astype(int) - expected)
    assert resized.dtype == np.uint8
    assert differences.max() <= (0 if ROWS_MAY_BE_FIRST else 1)


@pytest.mark.parametrize("size", [*SIZES, (1500, 1100)])
@pytest.mark.parametrize("framing", [Framing(48, 48), Framing(30, 30, "bilinear", 30)])
def test_openvino_has_the_same_pixels_in_single_precision(size, framing):
    pixels = draw(*size)

    resized = resize(pixels, framing, run_nodes_by_openvino)

    np.testing.assert_array_equal(resized, resize(pixels, framing))


def test_images_of_the_right_size_stay_as_they_are():
    pixels = draw(48, 48)

    np.testing.assert_array_equal(resize(pixels, Framing(48, 48)), pixels)


def test_another_interpolation_is_refused():
    with pytest.raises(UsageError, match="'lanczos' cannot be part of an ONNX file"):
        require_repeatable(Framing(8, 8, "lanczos"))
