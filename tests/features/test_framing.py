import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from featurepipe.errors import UnknownNameError
from featurepipe.features.extraction.decoding import decode_framed
from featurepipe.features.framing import INTERPOLATIONS, Framing

SIZES = [(101, 67), (67, 101), (64, 64), (53, 200), (333, 42), (31, 29)]


def encoded(height, width, file_format="PNG"):
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, file_format)
    return file.getvalue()


def by_pillow(image, framing):
    """As torchvision's Resize and CenterCrop, which timm uses, do it."""
    method = Image.Resampling[framing.interpolation.upper()]
    if framing.shorter_px is None:
        return np.asarray(image.resize((framing.width, framing.height), method))
    shorter = min(image.size)
    resized = image.resize(
        [int(framing.shorter_px * side / shorter) for side in image.size], method
    )
    left = round((resized.width - framing.width) / 2)
    top = round((resized.height - framing.height) / 2)
    return np.asarray(resized.crop((left, top, left + framing.width, top + framing.height)))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("height, width", SIZES)
@pytest.mark.parametrize("shorter_px", [None, 24, 27, 37])
def test_equals_resize_and_centre_crop_of_the_whole(height, width, shorter_px, interpolation):
    framing = Framing(24, 24, interpolation, shorter_px)
    data = encoded(height, width)
    expected = by_pillow(Image.open(io.BytesIO(data)), framing)
    found = decode_framed(data, [framing])[framing]
    assert (found.shape, found.dtype) == ((24, 24, 3), np.uint8)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("height, width", [(320, 209), (209, 320)])
def test_equals_it_whichever_side_pillow_resizes_first(height, width):
    framing = Framing(224, 224, "bicubic", 224)
    data = encoded(height, width)
    expected = by_pillow(Image.open(io.BytesIO(data)), framing)
    np.testing.assert_array_equal(decode_framed(data, [framing])[framing], expected)


def test_of_a_strip_only_the_part_that_is_kept_is_resized():
    framing = Framing(24, 24, "bilinear", 24)
    data = encoded(24, 240)
    expected = by_pillow(Image.open(io.BytesIO(data)), framing)
    away = np.abs(decode_framed(data, [framing])[framing].astype(int) - expected)
    # The same weights are computed from other numbers, so a value may be rounded otherwise.
    assert away.max() <= 1
    assert (away > 0).mean() < 0.02


def test_a_square_keeps_all_of_a_crop_that_is_as_large():
    framing = Framing(24, 24, "bilinear", 24)
    assert framing.box((100, 100)) == (0, 0, 100, 100)
    assert framing.box((100, 300)) == (100, 0, 200, 100)
    assert framing.box((300, 100)) == (0, 100, 100, 200)


def test_a_share_of_the_centre_remains():
    assert Framing(224, 224, "bicubic", 256).box((512, 512)) == (32, 32, 480, 480)
    assert Framing(224, 224).box((7, 9)) == (0, 0, 9, 7)


def test_halves_are_rounded_to_even_as_torchvision_does():
    # 341 - 224 = 117, whose half is 58.5; of 343 - 224 it is 59.5.
    framing = Framing(224, 224, "bilinear", 256)
    assert framing.resized((480, 640)) == (256, 341)
    assert framing.box((480, 640))[0] == pytest.approx(58 * 640 / 341)
    assert framing.resized((256, 343)) == (256, 343)
    assert framing.box((256, 343))[0] == 60


def test_each_framing_has_the_result_that_it_has_alone():
    data = encoded(61, 90)
    framings = [Framing(24, 24), Framing(24, 24, "bicubic", 30), Framing(16, 16, "lanczos", 16)]
    together = decode_framed(data, framings)
    for framing in framings:
        alone = decode_framed(data, [framing])[framing]
        np.testing.assert_array_equal(together[framing], alone)


def test_fast_decoding_reduces_by_the_side_that_is_resized():
    # Resized to 32 x 64 and cropped: half of 160 x 320 leaves twice that, a quarter does not.
    data = encoded(160, 320, "JPEG")
    framing = Framing(24, 24, "bilinear", 32)
    reduced = Image.open(io.BytesIO(data))
    reduced.draft(None, (160, 80))
    assert reduced.size == (160, 80)
    found = decode_framed(data, [framing], fast=True)[framing]
    np.testing.assert_array_equal(found, by_pillow(reduced, framing))
    full = decode_framed(data, [framing])[framing]
    assert (found != full).any()


LONG = """
import io, resource, sys
from PIL import Image
from featurepipe.features.extraction.decoding import decode_framed
from featurepipe.features.framing import Framing
file = io.BytesIO()
Image.new("RGB", (2, 60_000), (9, 8, 7)).save(file, "PNG")
framing = Framing(224, 224, "bicubic", 256)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pixels = decode_framed(file.getvalue(), [framing])[framing]
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert (pixels == (9, 8, 7)).all(), pixels
print(after - before)
"""


def test_a_long_narrow_image_needs_no_memory_for_what_is_cropped():
    # Resized as a whole, it would be 256 x 7,680,000 pixels: 5.9 GB.
    done = subprocess.run([sys.executable, "-c", LONG], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * unit < 100_000_000


@pytest.mark.parametrize(
    "framing",
    [Framing(224, 224), Framing(8, 8, "nearest"), Framing(224, 224, "bicubic", 256)],
)
def test_a_method_gives_the_framing_again(framing):
    assert Framing.by_method(framing.method, framing.size) == framing


@pytest.mark.parametrize(
    "method",
    [
        "",
        "bilinear",
        "pillow-cubic",
        "pillow-bilinear-crop-",
        "pillow-bilinear-crop-0",
        "pillow-bilinear-crop-223",
        "pillow-bilinear-crop-0256",
        "pillow-bilinear-crop-99999999999",
        "pillow-bilinear-crop-256 ",
    ],
)
def test_an_unknown_or_impossible_method_is_refused(method):
    with pytest.raises(UnknownNameError, match="Unknown resizing"):
        Framing.by_method(method, (224, 224))
