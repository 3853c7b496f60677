"""Damaged, forged and enormous images: pixels, or a reason in one line, and bounded memory."""

import importlib.util
import io
import random
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from featurepipe.errors import ImageError
from featurepipe.features.extraction.decoding import decode_framed, decode_image
from featurepipe.features.extraction.image_headers import MAX_BYTES, MAX_PIXELS
from featurepipe.features.framing import Framing

FUZZ = Path(__file__).parents[3] / "benchmarks" / "fuzz.py"
_spec = importlib.util.spec_from_file_location("fuzz", FUZZ)
fuzz = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fuzz)

# Pytest replaces the filters that the import sets.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]

DRAWN = fuzz.drawn_files()
SIZE = (7, 5)


def outcome(data):
    """The pixels, or the reason, whose form is checked."""
    try:
        pixels = decode_image(data, SIZE)
    except ImageError as refusal:
        reason = str(refusal)
        assert 0 < len(reason) < 120
        assert reason.isprintable()
        return reason
    assert pixels.shape == (*SIZE, 3)
    assert pixels.dtype == np.uint8
    return pixels.tobytes()


def outcome_of_pillow(data):
    with mock.patch.object(simplejpeg, "decode_jpeg", side_effect=ValueError):
        return outcome(data)


@pytest.mark.parametrize("name", DRAWN)
def test_undamaged_files_are_decoded(name):
    assert isinstance(outcome(DRAWN[name]), bytes)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(DRAWN)), st.sampled_from(sorted(DRAWN)), st.integers(0, 2**32))
def test_damaged_files_give_pixels_or_a_reason(name, donor, seed):
    data = fuzz.damage(random.Random(seed), DRAWN[name], DRAWN[donor])
    assert outcome(data) == outcome(data)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([name for name in sorted(DRAWN) if "j" in name]), st.integers(0, 2**32))
def test_simplejpeg_never_decides_otherwise_than_pillow(name, seed):
    rng = random.Random(seed)
    # Light damage: what simplejpeg refuses is Pillow's anyway.
    data = rng.choice(fuzz.DAMAGES)(rng, DRAWN[name], DRAWN["jpeg"])
    assert outcome(data) == outcome_of_pillow(data)


@pytest.mark.parametrize("name", DRAWN)
def test_two_kinds_in_one_file(name):
    data = DRAWN[name]
    assert outcome(data + b"PK\3\4" + bytes(99)) == outcome(data)
    assert (
        outcome(b"<html>" + data)
        == "not an image (no JPEG, PNG, WebP, BMP, GIF, TIFF, PPM, AVIF or HEIC)"
    )


def test_no_bytes_at_all():
    assert outcome(b"") == "empty file"


def enormous(width, height):
    """Small files of each format that declare a size; some have 16 bits for it only."""
    narrow = (min(width, 65535), min(height, 65535))
    jpeg = bytearray(DRAWN["jpeg"])
    struct.pack_into(">HH", jpeg, jpeg.find(b"\xff\xc0") + 5, *narrow)
    gif = b"GIF89a" + struct.pack("<HHBBB", *narrow, 0, 0, 0)
    frame = b"," + struct.pack("<HHHHB", 0, 0, *narrow, 0) + b"\2\1\0\0;"
    webp = b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8L" + struct.pack("<IBI", 5, 0x2F, 0xFFFFFFF)
    tags = ((256, width), (257, height), (258, 1), (259, 1), (262, 1), (273, 8), (277, 1), (279, 9))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    bmp_header = (40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return {
        "JPEG": bytes(jpeg),
        "PNG": fuzz.png(struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0), zlib.compress(b"0")),
        "GIF": gif + frame,
        "WEBP": webp + bytes(20),
        "TIFF": struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", 8) + entries + bytes(4),
        "BMP": struct.pack("<2sIHHI", b"BM", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", *bmp_header),
    }


@pytest.mark.parametrize("file_format", enormous(1, 1))
def test_declared_sizes_are_believed_and_refused_at_once(file_format):
    data = enormous(65000, 65000)[file_format]
    started = time.perf_counter()
    assert outcome(data).startswith("too large")
    assert outcome_of_pillow(data) == outcome(data)
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "BMP"])
def test_a_picture_of_one_row_or_column_is_limited(file_format):
    for size in ((100_000_000, 1), (1, 100_000_000)):
        reason = f"too large: {size[0]} x {size[1]} pixels, at most 1000000 a side"
        assert outcome(enormous(*size)[file_format]) == reason


def with_tile(width, height):
    """A TIFF of 8 x 8 pixels in one compressed tile of another size."""
    content = zlib.compress(bytes(1000))
    tags = (
        *((256, 8), (257, 8), (258, 8), (259, 8), (262, 1), (277, 1)),
        *((322, width), (323, height), (324, 200), (325, len(content))),
    )
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4)
    return directory.ljust(200, b"\0") + content


def test_a_tile_larger_than_its_picture_counts():
    assert outcome(with_tile(40000, 40000)).startswith("too large: 40000 x 40000 pixels")
    assert isinstance(outcome(with_tile(16, 16)), bytes)


@pytest.mark.parametrize(
    ("name", "limit"),
    [("jpeg 444", 102_400_000), ("jpeg cmyk", 85_333_333), ("webp animated", 64_000_000)],
)
def test_kinds_that_need_more_memory_have_a_lower_limit(name, limit):
    side = 1 + int(limit**0.5)
    data = bytearray(DRAWN[name])
    ((position, form),) = fuzz.size_fields(DRAWN[name])
    # WebP stores one less.
    declared = side - name.startswith("webp")
    struct.pack_into(form, data, position, declared, declared)
    assert f"too large: {side} x {side} pixels, at most {limit}" in outcome(bytes(data))


PEAKS = """
import os, sys
from pathlib import Path
from featurepipe.features.extraction.decoding import decode_image
def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])
for name in sys.argv[1:]:
    # A child for each, since the heap keeps what a picture before left.
    if os.fork():
        os.wait()
        continue
    data = Path(name).read_bytes()
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    decode_image(data, (8, 8))
    print(status("VmHWM") - before, flush=True)
    os._exit(0)
"""

SIDE = 2400

HUNGRY = {
    # name: (mode, format, options, the most pixels that are allowed)
    "turned": ("RGB", "JPEG", {"exif": True}, MAX_PIXELS),
    "progressive": ("RGB", "JPEG", {"progressive": True, "subsampling": 0}, 102_400_000),
    "cmyk": ("CMYK", "JPEG", {"progressive": True}, 85_333_333),
    "turned alpha": ("RGBA", "PNG", {"exif": True}, MAX_PIXELS),
    "palette": ("P", "PNG", {"transparency": 0}, MAX_PIXELS),
    "grey alpha": ("LA", "PNG", {}, MAX_PIXELS),
    "16 bit": ("I;16", "PNG", {}, MAX_PIXELS),
    "webp": ("RGBA", "WEBP", {"method": 0, "exif": True}, 64_000_000),
    "strip": ("RGBA", "TIFF", {"compression": "tiff_lzw", "strip_size": 1 << 30}, MAX_PIXELS),
    "gif": ("P", "GIF", {"transparency": 0}, MAX_PIXELS),
    "ppm": ("RGB", "PPM", {}, MAX_PIXELS),
    "avif": ("RGB", "AVIF", {"speed": 10, "subsampling": "4:4:4"}, 51_200_000),
    "avif alpha": ("RGBA", "AVIF", {"speed": 10, "subsampling": "4:4:4"}, 32_000_000),
}


def write_hungry(folder, name):
    mode, file_format, options, _ = HUNGRY[name]
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {
        key: exif if value is True and key == "exif" else value for key, value in options.items()
    }
    path = folder / name
    Image.new(mode, (SIDE, SIDE)).save(path, file_format, **options)
    return path


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells the peak")
def test_no_image_takes_more_memory_than_is_said(tmp_path):
    files = [str(write_hungry(tmp_path, name)) for name in HUNGRY]
    command = [sys.executable, "-c", PEAKS, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peaks = dict(zip(HUNGRY, map(int, done.stdout.split()), strict=True))
    # 24 MB for libraries and bands of conversion, which do not grow with the picture.
    extrapolated = {
        name: (peaks[name] - 24e6) / SIDE**2 * limit for name, (*_, limit) in HUNGRY.items()
    }
    assert {name: peak for name, peak in extrapolated.items() if peak > MAX_BYTES} == {}
    assert min(peaks.values()) > 4 * SIDE**2


@pytest.mark.parametrize("name", DRAWN)
def test_fast_is_pillows_draft_of_twice_the_size(name):
    for size in ((3, 4), (6, 9), (13, 20), (30, 50)):
        data = DRAWN[name]
        expected = decode_image(data, size)
        opened = Image.open(io.BytesIO(data))
        if opened.format in ("JPEG", "MPO"):
            lying = opened.getexif().get(0x0112) == 6
            box = (2 * size[0], 2 * size[1]) if lying else (2 * size[1], 2 * size[0])
            opened.draft(None, box)
            picture = opened.convert("RGB")
            picture = picture.transpose(Image.Transpose.ROTATE_270) if lying else picture
            expected = np.asarray(picture.resize(size[::-1], Image.Resampling.BILINEAR))
        fast = decode_framed(data, [Framing(1, 1), Framing(*size), Framing(30, 50)], fast=True)
        np.testing.assert_array_equal(fast[Framing(*size)], expected)


def test_the_campaign_runs(tmp_path):
    command = [sys.executable, str(FUZZ), "--first", "20", "--n", "20", "--keep", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "20 inputs of seed 0" in done.stdout
    assert "       0 findings" in done.stdout
    assert list(tmp_path.iterdir()) == []
