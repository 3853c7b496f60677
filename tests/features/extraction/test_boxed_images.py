"""AVIF, HEIC and PPM: pixels, or a reason before a decoder sees what would take too much."""

import io
import struct
import time

import numpy as np
import pytest
from PIL import AvifImagePlugin, Image

from featurepipe import image_types
from featurepipe.errors import ImageError
from featurepipe.features.extraction.avif_parts import MAX_PARTS, coded_pixels
from featurepipe.features.extraction.decoding import decode_image
from featurepipe.features.extraction.image_headers import decoding_bytes, open_image

RED = (200, 30, 30)
needs_avif = pytest.mark.skipif(not image_types.reads_avif(), reason="this Pillow has no AVIF")


def encode(file_format, mode="RGB", size=(40, 24), **options):
    file = io.BytesIO()
    colour = {"RGB": RED, "RGBA": (*RED, 254), "L": 77, "1": 1}[mode]
    Image.new(mode, size, colour).save(file, file_format, **options)
    return file.getvalue()


def outcome(data):
    """The colour of the middle, or the reason why there is none."""
    try:
        return decode_image(data, (5, 5))[2, 2].tolist()
    except ImageError as refusal:
        return str(refusal)


def declaring(data, width, height):
    """An AVIF or HEIC file that declares another size than that of its pictures."""
    changed = bytearray(data)
    struct.pack_into(">II", changed, data.index(b"ispe") + 8, width, height)
    return bytes(changed)


def animation():
    frames = {"save_all": True, "append_images": [Image.new("RGB", (40, 24), "blue")]}
    return encode("AVIF", speed=10, **frames)


@needs_avif
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_avif_is_read(mode):
    data = encode("AVIF", mode, quality=95, speed=10)
    np.testing.assert_allclose(outcome(data), RED, atol=6)
    assert coded_pixels(data) == 40 * 24 * (2 if mode == "RGBA" else 1)


@needs_avif
def test_an_avif_stands_as_a_viewer_shows_it():
    exif, picture, file = Image.Exif(), Image.new("RGB", (64, 32), "white"), io.BytesIO()
    exif[0x0112] = 6
    picture.paste("black", (0, 0, 32, 32))
    picture.save(file, "AVIF", exif=exif, quality=95, speed=10)
    upright = decode_image(file.getvalue(), (64, 32))
    assert upright[:28].max() < 30
    assert upright[36:].min() > 225


@needs_avif
def test_an_avif_counts_by_what_is_coded_in_it(monkeypatch):
    data = encode("AVIF", size=(3000, 2000), speed=10)
    forged = declaring(data, 100, 100)
    assert coded_pixels(forged) == 6_000_000
    assert AvifImagePlugin.AvifImageFile(io.BytesIO(forged)).size == (100, 100)
    opened = open_image(forged)
    assert decoding_bytes(opened, forged) == 8 * 100 * 100 + 12 * 6_000_000
    monkeypatch.setattr("featurepipe.features.extraction.image_headers.MAX_BYTES", 72_000_000)
    assert outcome(forged) == (
        "too large: 100 x 100 pixels, at most 9988 in all for this kind of AVIF"
    )
    assert outcome(declaring(data, 20_000, 10_000)).startswith("too large: 20000 x 10000 pixels")


@needs_avif
def test_an_animated_avif_or_one_that_is_cut_off_gives_a_reason():
    assert outcome(animation()) == "AVIF animation: expected a single image"
    data = encode("AVIF", speed=10)
    reasons = {outcome(data[:length]) for length in range(12, len(data) - 30, 7)}
    assert all(isinstance(reason, str) for reason in reasons)


@needs_avif
def test_an_avif_of_very_many_parts_is_refused_at_once():
    noise, file = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), io.BytesIO()
    Image.fromarray(noise).save(file, "AVIF", speed=10)
    data, started = file.getvalue(), time.perf_counter()
    boxes = struct.pack(">I4s", 8, b"free") * (MAX_PARTS + 1)
    assert outcome(data + boxes) == f"too slow to read: more than {MAX_PARTS} parts"
    # Of a temporal unit: a delimiter, the sequence header and then frames of no content.
    place = data.index(b"mdat") + 4
    units = data[place : place + 2] + b"\x32\0" * ((len(data) - place - 2) // 2)
    changed = (data[:place] + units).ljust(len(data), b"\0")
    assert outcome(changed) == "too slow to decode: more than 16 frames"
    assert time.perf_counter() - started < 2


def test_without_an_avif_decoder_the_reason_says_what_to_do(monkeypatch):
    data = b"\0\0\0\x18ftypavif\0\0\0\0avifmif1" + bytes(40)
    monkeypatch.setattr("featurepipe.features.extraction.image_headers.reads_avif", lambda: False)
    assert outcome(data) == "AVIF: install a Pillow that reads it (pip install --upgrade pillow)"


def test_without_the_extra_heic_the_reason_says_what_to_do(monkeypatch):
    data = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)
    monkeypatch.setattr("featurepipe.features.extraction.image_headers.reads_heic", lambda: False)
    assert outcome(data) == "HEIC: install what reads it (pip install 'featurepipe[heic]')"
    assert outcome(b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + bytes(40)).startswith("not an image")


def test_heic_is_read_with_its_extra():
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (400, 240), RED)).save(file, quality=95)
    np.testing.assert_allclose(outcome(file.getvalue()), RED, atol=8)
    assert "Security limit exceeded" in outcome(declaring(file.getvalue(), 10, 10))
    assert outcome(declaring(file.getvalue(), 9000, 9000)).startswith(
        "too large: 9000 x 9000 pixels, at most 64000000 in all for this kind of HEIF"
    )


@pytest.mark.parametrize(
    ("mode", "colour"), [("RGB", list(RED)), ("L", [77] * 3), ("1", [255] * 3)]
)
def test_binary_ppm_is_read(mode, colour):
    assert outcome(encode("PPM", mode)) == colour


@pytest.mark.parametrize(
    "data",
    [
        b"P3 1 1 255 9 9 9 ",
        b"P6 1 1 65535 " + bytes(6),
        b"P5 1 1 254 " + bytes(6),
        b"P6 #" + b"x" * 10**7 + b"\n1 1 255 " + bytes(3),
    ],
)
def test_ppm_that_pillow_reads_in_python_is_refused(data):
    started = time.perf_counter()
    reason = "PPM as text, of other than 8 bits, or of a long header: save it as PNG"
    assert outcome(data) == reason
    assert time.perf_counter() - started < 1


def test_a_short_or_an_enormous_ppm_gives_a_reason():
    assert outcome(b"P6 # drawn\n# twice\n 4 4 255 " + bytes(48)) == [0, 0, 0]
    assert outcome(b"P6 4 4 255 " + bytes(9)) == "truncated"
    assert outcome(b"P6 90000 90000 255 " + bytes(9)).startswith("too large: 90000 x 90000")
