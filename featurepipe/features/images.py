"""Images: bytes become uint8 RGB of one size, or a reason why they do not.

Upright 8-bit RGB images come out bit for bit as from `keras.utils.load_img`
with `interpolation="bilinear"`. Everything else follows one rule each:

=========================  ==================================================
EXIF orientation           applied: the picture stands as a viewer shows it
transparency of any kind   laid over white
grey, 1-bit                the same value in all three channels
palette                    its colours
CMYK                       converted as Pillow does, without colour profiles
16-bit grey                scaled: 65535 becomes 255
32-bit integers or floats  refused: what is white in them is not known
animations, pages          the first
=========================  ==================================================
"""

import re
import warnings
from collections.abc import Callable
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from featurepipe.errors import ImageError

MAX_PIXELS = 128_000_000
"""Larger images are refused before they are decoded: they would fill the memory."""

# Once for the process: `warnings.catch_warnings` is not safe among threads, and
# Pillow's remarks on odd metadata concern nobody who gets features in the end.
warnings.filterwarnings("ignore", module=r"PIL\.")

# Not `Image.open`: its check for decompression bombs comes with a warning, and
# depends on a limit that any other code of the process may change.
_OPENERS: tuple[tuple[re.Pattern[bytes], Callable[[BytesIO], ImageFile.ImageFile]], ...] = (
    (re.compile(rb"\xff\xd8\xff"), JpegImagePlugin.jpeg_factory),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImagePlugin.PngImageFile),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), WebPImagePlugin.WebPImageFile),
    (re.compile(rb"BM"), BmpImagePlugin.BmpImageFile),
    (re.compile(rb"GIF8[79]a"), GifImagePlugin.GifImageFile),
    (re.compile(rb"II[*+]\x00|MM\x00[*+]"), TiffImagePlugin.TiffImageFile),
)

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_MAX_REASON_LENGTH = 80


def decode_image(data: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Decode an image and resize it; the aspect ratio is not kept.

    Resizing is Pillow's bilinear, which averages when it shrinks. Safe to call
    from several threads.

    Parameters
    ----------
    data : bytes
        A JPEG (or MPO), PNG, WebP, BMP, GIF or TIFF file.
    size : (int, int)
        Height and width of the result.

    Returns
    -------
    ndarray of shape (height, width, 3), uint8
        RGB in [0, 255].

    Raises
    ------
    ImageError
        If the bytes are no such image, are damaged or cut off, declare more
        than `MAX_PIXELS` pixels, or hold 32-bit pixels.
    """
    height, width = size
    return np.array(open_rgb(data).resize((width, height), Image.Resampling.BILINEAR))


def open_rgb(data: bytes) -> Image.Image:
    """Decode an image at its own size, upright and RGB, by the same rules.

    Parameters
    ----------
    data : bytes
        As for `decode_image`.

    Raises
    ------
    ImageError
        As `decode_image`.
    """
    try:
        image = _open(data)
        _require_sane_size(image)
        image.load()
        return _convert_to_rgb(_turn_upright(image))
    except ImageError:
        raise
    except Exception as error:
        # Hostile bytes make Pillow's decoders raise nearly anything.
        raise ImageError(_reason(error)) from error


def _open(data: bytes) -> ImageFile.ImageFile:
    if not data:
        raise ImageError("empty file")
    for signature, opener in _OPENERS:
        if signature.match(data):
            return opener(BytesIO(data))
    raise ImageError("not an image (no JPEG, PNG, WebP, BMP, GIF or TIFF)")


def _require_sane_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(
            f"too large: {image.width} x {image.height} pixels, at most {MAX_PIXELS} in all"
        )


def _turn_upright(image: Image.Image) -> Image.Image:
    try:
        # Asked after loading: Pillow has turned a TIFF by then, and says so.
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        # Damaged metadata do not make the pixels worse.
        return image
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def _convert_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F"):
        raise ImageError(f"32-bit pixels (mode {image.mode}): expected 8 or 16 bits a channel")
    if image.mode.startswith("I;16"):
        return _scale_16_bit(image).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _scale_16_bit(image: Image.Image) -> Image.Image:
    # 65535 is 257 x 255, so this rounds to the nearest of 256 steps.
    grey = (np.asarray(image).astype(np.uint32) + 128) // 257
    return Image.fromarray(grey.astype(np.uint8))


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, Image.DecompressionBombError):
        return f"too large: {text}"[:_MAX_REASON_LENGTH]
    if "truncated" in text.lower():
        return "truncated"
    return f"damaged image ({text[:_MAX_REASON_LENGTH]})"
