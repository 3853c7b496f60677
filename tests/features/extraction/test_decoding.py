import io
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from featurepipe.errors import ImageError
from featurepipe.features.extraction.decoding import decode_image, open_rgb, require_few_pixels
from featurepipe.features.extraction.image_headers import MAX_PIXELS

# Pytest replaces the filters that the import sets; a process of its own tests those.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def encode(image, file_format, **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def picture(width=40, height=30, mode="RGB"):
    """A generated picture with every frequency and no symmetry."""
    noise = np.random.default_rng(0).integers(0, 60, (height, width, 3))
    y, x, channel = np.ogrid[:height, :width, :3]
    pixels = 5 * x + 3 * y * (channel == 1) + 60 * (channel == 2) + noise
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).convert(mode)


def one_colour(mode, colour, file_format="PNG", **options):
    """The one RGB value that a picture of one colour is decoded to."""
    decoded = decode_image(encode(Image.new(mode, (5, 4), colour), file_format, **options), (2, 3))
    assert decoded.shape == (2, 3, 3)
    assert (decoded == decoded[0, 0]).all()
    return tuple(decoded[0, 0].tolist())


FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")


@pytest.mark.parametrize("file_format", [*FORMATS, "MPO"])
def test_decodes_every_format_as_pillow_does(file_format):
    data = encode(picture(), file_format)
    expected = Image.open(io.BytesIO(data)).convert("RGB").resize((16, 24), Image.BILINEAR)
    decoded = decode_image(data, (24, 16))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, np.asarray(expected))


@pytest.mark.keras
@pytest.mark.parametrize("size", [(299, 299), (17, 40), (30, 40)])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_equals_keras_load_img_bit_for_bit(file_format, size):
    keras = pytest.importorskip("keras")
    data = encode(picture(), file_format)
    reference = keras.utils.load_img(io.BytesIO(data), target_size=size, interpolation="bilinear")
    np.testing.assert_array_equal(decode_image(data, size), np.asarray(reference))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_stands_as_exif_says(orientation, file_format):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encode(picture(), file_format, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert upright.size == ((30, 40) if orientation > 4 else (40, 30))
    decoded = decode_image(data, upright.size[::-1])
    np.testing.assert_array_equal(decoded, np.asarray(upright))


def test_open_rgb_keeps_the_size():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image = open_rgb(encode(picture(mode="RGBA"), "PNG", exif=exif))
    assert (image.mode, image.size) == ("RGB", (30, 40))
    with pytest.raises(ImageError, match="empty file"):
        open_rgb(b"")


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_unknown_orientation_is_upright(orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encode(picture(), "PNG", exif=exif)
    np.testing.assert_array_equal(decode_image(data, (30, 40)), np.asarray(picture()))


def test_damaged_exif_is_upright():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = encode(picture(), "JPEG", exif=exif)
    damaged = data.replace(b"Exif\x00\x00MM\x00*", b"Exif\x00\x00MM\xff\xff").replace(
        b"Exif\x00\x00II*\x00", b"Exif\x00\x00II\xff\xff"
    )
    assert damaged != data
    plain = decode_image(encode(picture(), "JPEG"), (30, 40))
    np.testing.assert_array_equal(decode_image(damaged, (30, 40)), plain)


def test_transparency_is_laid_over_white():
    assert one_colour("RGBA", (200, 100, 0, 0)) == (255, 255, 255)
    assert one_colour("RGBA", (200, 100, 0, 255)) == (200, 100, 0)
    assert one_colour("RGBA", (200, 100, 0, 51)) == (244, 224, 204)
    assert one_colour("LA", (0, 51)) == (204, 204, 204)
    assert one_colour("RGBA", (200, 100, 0, 0), "WEBP", lossless=True) == (255, 255, 255)


def test_one_transparent_colour_is_white():
    assert one_colour("RGB", (9, 8, 7), transparency=(9, 8, 7)) == (255, 255, 255)
    assert one_colour("RGB", (9, 8, 6), transparency=(9, 8, 7)) == (9, 8, 6)
    assert one_colour("L", 9, transparency=9) == (255, 255, 255)


@pytest.mark.parametrize("file_format", ["PNG", "GIF"])
def test_palettes(file_format):
    image = Image.new("P", (5, 4), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    opaque = decode_image(encode(image, file_format), (4, 5))
    clear = decode_image(encode(image, file_format, transparency=1), (4, 5))
    assert (opaque == [10, 200, 30]).all()
    assert (clear == 255).all()


def test_half_transparent_palette():
    image = Image.new("P", (5, 4), 1)
    image.putpalette([0, 0, 0, 200, 100, 0])
    decoded = decode_image(encode(image, "PNG", transparency=bytes([255, 51])), (4, 5))
    assert (decoded == [244, 224, 204]).all()


def test_grey_is_repeated():
    assert one_colour("L", 77) == (77, 77, 77)
    assert one_colour("L", 77, "TIFF") == (77, 77, 77)
    assert one_colour("1", 1) == (255, 255, 255)
    assert one_colour("1", 0) == (0, 0, 0)


def test_cmyk():
    assert one_colour("CMYK", (255, 0, 0, 0), "TIFF") == (0, 255, 255)
    decoded = decode_image(encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"), (2, 2))
    assert np.abs(decoded.astype(int) - [255, 0, 0]).max() <= 2


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
@pytest.mark.parametrize(("value", "expected"), [(0, 0), (65535, 255), (32768, 128), (300, 1)])
def test_16_bit_grey_is_scaled(file_format, value, expected):
    data = encode(Image.fromarray(np.full((4, 5), value, np.uint16)), file_format)
    assert (decode_image(data, (4, 5)) == expected).all()


@pytest.mark.parametrize(("dtype", "mode"), [(np.float32, "F"), (np.int32, "I")])
def test_32_bit_pixels_are_refused(dtype, mode):
    data = encode(Image.fromarray(np.ones((4, 5), dtype)), "TIFF")
    with pytest.raises(ImageError) as refusal:
        decode_image(data, (4, 5))
    reason = f"32-bit pixels (mode {mode}): expected 8 or 16 bits a channel"
    assert str(refusal.value) == reason


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "TIFF", "PNG"])
def test_only_the_first_frame_counts(file_format):
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encode(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    assert (decode_image(data, (6, 6)) == [255, 0, 0]).all()


def declared_png(width, height):
    """A small file that claims to be a large picture."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0"))


def chunk(kind, content):
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (
            b"<html>404</html>",
            "not an image (no JPEG, PNG, WebP, BMP, GIF, TIFF, PPM, AVIF or HEIC)",
        ),
        (
            b"RIFF\x00\x00\x00\x00WAVEfmt ",
            "not an image (no JPEG, PNG, WebP, BMP, GIF, TIFF, PPM, AVIF or HEIC)",
        ),
        (
            encode(picture(), "TGA"),
            "not an image (no JPEG, PNG, WebP, BMP, GIF, TIFF, PPM, AVIF or HEIC)",
        ),
        (encode(picture(), "JPEG")[:-300], "truncated"),
        (encode(picture(), "PNG")[:-300], "truncated"),
        (encode(picture(), "BMP")[:-300], "truncated"),
        (
            declared_png(30000, 30000),
            f"too large: 30000 x 30000 pixels, at most {MAX_PIXELS} in all",
        ),
        (
            encode(Image.new("1", (16000, 8001)), "PNG"),
            f"too large: 16000 x 8001 pixels, at most {MAX_PIXELS} in all",
        ),
    ],
)
def test_reasons(data, reason):
    with pytest.raises(ImageError) as refusal:
        decode_image(data, (8, 8))
    assert str(refusal.value) == reason


@pytest.mark.parametrize("file_format", FORMATS)
def test_cut_off_files_are_refused_or_whole(file_format):
    data = encode(picture(), file_format)
    for length in range(1, len(data) // 2, 7):
        with pytest.raises(ImageError) as refusal:
            decode_image(data[:length], (8, 8))
        assert 0 < len(str(refusal.value)) < 110
        assert "\n" not in str(refusal.value)


def test_the_largest_size_that_is_allowed_is_decoded():
    # Beyond the size where Pillow by itself would warn.
    data = encode(Image.new("1", (16000, 8000), 1), "PNG")
    assert (decode_image(data, (2, 2)) == 255).all()


ORIGINALS = [encode(picture(12, 9, mode), form) for form in FORMATS for mode in ("RGB", "L")] + [
    encode(picture(12, 9, "RGBA"), "PNG"),
    encode(picture(12, 9, "RGBA"), "WEBP"),
    encode(picture(12, 9, "CMYK"), "JPEG"),
    encode(picture(12, 9), "TIFF", compression="tiff_lzw"),
    encode(picture(12, 9), "TIFF", compression="jpeg"),
]


@st.composite
def hostile_bytes(draw):
    data = bytearray(draw(st.sampled_from(ORIGINALS)))
    for _ in range(draw(st.integers(1, 8))):
        # Headers, where the harm is done, are at the front in most formats.
        end = draw(st.sampled_from([64, len(data)]))
        data[draw(st.integers(4, min(end, len(data)) - 1))] = draw(st.integers(0, 255))
    cut = draw(st.integers(0, 3))
    return bytes(data if cut else data[: draw(st.integers(0, len(data)))])


@settings(max_examples=400, deadline=None)
@given(hostile_bytes())
def test_hostile_bytes_give_pixels_or_a_reason(data):
    try:
        decoded = decode_image(data, (7, 5))
    except ImageError as refusal:
        assert str(refusal)
    else:
        assert decoded.shape == (7, 5, 3)
        assert decoded.dtype == np.uint8


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([data[:8] for data in ORIGINALS]))
def test_noise_behind_a_signature_is_refused(noise, signature):
    with pytest.raises(ImageError):
        decode_image(signature + noise, (7, 5))


def test_threads_do_not_disturb_each_other():
    files = ORIGINALS * 20
    alone = [decode_image(data, (8, 8)) for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: decode_image(data, (8, 8)), files))
    np.testing.assert_array_equal(alone, together)


def test_pillow_says_nothing_on_stderr():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 1
    exif[ExifTags.Base.ImageDescription] = "described " * 9
    tiff = encode(picture(), "TIFF", compression="tiff_lzw")
    files = [encode(picture(), "JPEG", exif=exif.tobytes()[:-40]), tiff[:200], tiff[:-9]]
    script = (
        "import sys\n"
        "from featurepipe.features.extraction.decoding import decode_image, ImageError\n"
        f"for data in {files!r}:\n"
        "    try: decode_image(data, (8, 8))\n"
        "    except ImageError: pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""


@pytest.mark.parametrize(("kind", "factor"), [("PNG", 1), ("JPEG", 1), ("WEBP", 2)])
def test_a_lower_limit_of_pixels_counts_memory_too(kind, factor):
    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, kind)
    require_few_pixels(file.getvalue(), 1200 * factor)
    with pytest.raises(ImageError, match="too large: 40 x 30 pixels, at most 1199 in all"):
        require_few_pixels(file.getvalue(), 1200 * factor - 1)
    with pytest.raises(ImageError, match="not an image"):
        require_few_pixels(b"no image", 1200)


def test_a_lower_limit_of_pixels_allows_fewer_scans():
    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    scan = data[data.index(b"\xff\xda") : data.rindex(b"\xff\xd9")]
    # The scans of a progressive file, three times: more than 16 for so many pixels.
    many = data[:-2] + 2 * scan + data[-2:]
    require_few_pixels(data, 1200)
    require_few_pixels(many, 12_000)
    with pytest.raises(ImageError, match=r"too slow to decode: .* scans, at most 16 for 40 x 30"):
        require_few_pixels(many, 1200)
