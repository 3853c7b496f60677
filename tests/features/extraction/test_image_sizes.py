"""Sizes of images, read from their headers."""

import io

import pytest
from PIL import Image

from featurepipe.errors import ImageError
from featurepipe.features.extraction.decoding import open_rgb
from featurepipe.features.extraction.image_sizes import image_size


def encoded(kind, size=(40, 30), **options):
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, kind, **options)
    return file.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded("JPEG", exif=exif)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_the_size_is_that_of_the_decoded_image(kind):
    assert image_size(encoded(kind)) == open_rgb(encoded(kind)).size == (40, 30)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_that_of_the_upright_image(orientation):
    data = turned(orientation)
    assert image_size(data) == open_rgb(data).size
    assert image_size(data) == ((30, 40) if orientation >= 5 else (40, 30))


def test_nothing_is_decoded():
    # The pixels are missing.
    data = encoded("JPEG", (400, 300))
    cut = data[: data.index(b"\xff\xda") + 20]
    with pytest.raises(ImageError):
        open_rgb(cut)
    assert image_size(cut) == (400, 300)


@pytest.mark.parametrize("data", [b"", b"broken", encoded("PNG")[:20], b"P6 2000000 2 255\n"])
def test_what_is_no_image_is_refused(data):
    with pytest.raises(ImageError):
        image_size(data)
