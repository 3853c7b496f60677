"""Decoding: the bytes of an image become uint8 RGB of one size, or a reason why they cannot.

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
animations, pages          the first frame or page
=========================  ==================================================

Ordinary JPEGs are decoded by simplejpeg, which returns the same values as Pillow
with one copy fewer. Pillow decides about what simplejpeg refuses or warns of: pixels
and reasons are always those of Pillow.
"""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import pyarrow as pa
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageFile, JpegImagePlugin

from featurepipe.errors import ImageError
from featurepipe.features.extraction.image_headers import (
    LYING,
    MAX_BYTES,
    decoding_bytes,
    open_image,
    orientation_of,
    require_decodable,
)
from featurepipe.features.extraction.memory_budget import MemoryBudget, count_cpus
from featurepipe.features.framing import INTERPOLATIONS, Framing

# Once for the process: `warnings.catch_warnings` is not thread-safe, and Pillow's
# warnings about odd metadata do not matter for features.
warnings.filterwarnings("ignore", module=r"PIL\.")

# Blocks this large are mapped separately, so that the memory of a large image returns
# to the system; smaller blocks would stay in the heap.
Image.core.set_block_size(64 << 20)

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_FILTERS = {name: Image.Resampling[name.upper()] for name in INTERPOLATIONS}

_MAX_REASON_LENGTH = 80

MEMORY = MemoryBudget(MAX_BYTES + 256_000_000 * count_cpus())
"""What all threads of the process together take to decode: 1.5 GB on two cores.

One image of any size fits, and as many of 25 megapixels as there are cores. Larger images
wait for each other.
"""

# Images are converted in bands of rows, so that only one band is held in two modes. A row
# always fits, since `MAX_SIDE` is less.
_BAND_PIXELS = 1 << 20

# Of an image that is so many times as long as it is wide, only the part that is kept is resized:
# the whole could need any memory.
_MAX_LENGTH = 8


def decode_image(data: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Decode an image and resize it; the aspect ratio is not kept.

    Resizing is Pillow's bilinear, which averages when it shrinks. Safe to call
    from several threads, which together take at most about `MEMORY` beyond the files,
    and each at most about `MAX_BYTES`.

    Parameters
    ----------
    data : bytes
        A JPEG (or MPO), PNG, WebP, BMP, GIF, TIFF, PPM, AVIF or HEIC file.
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
        than `MAX_PIXELS` pixels or `MAX_SIDE` a side, would need more than
        `MAX_BYTES`, have more than `MAX_SCANS` scans, or hold 32-bit pixels.
    """
    framing = Framing(*size)
    return decode_framed(data, [framing])[framing]


def decode_framed(
    data: bytes, framings: Iterable[Framing], *, fast: bool = False
) -> dict[Framing, NDArray[np.uint8]]:
    """Decode an image once and resize it in each of several ways.

    Parameters
    ----------
    data : bytes
        As for `decode_image`.
    framings : iterable of Framing
    fast : bool, default False
        Decode JPEGs at 1/2, 1/4 or 1/8 of their size where that leaves at least
        twice the height and width to which it is resized: bit for bit Pillow's `draft` of
        twice the size, then its bilinear resize. Measured on photographs, such
        pixels are 1 of 255 away on average. Other formats are not affected.

    Returns
    -------
    dict of Framing to ndarray of shape (height, width, 3), uint8
        RGB in [0, 255]; the result of one framing does not depend on the others.

    Raises
    ------
    ImageError
        As `decode_image`.
    """
    asked = list(dict.fromkeys(framings))
    by_reduction: dict[int, list[Framing]] = {}
    for framing in asked:
        by_reduction.setdefault(_reduction(data, framing) if fast else 1, []).append(framing)
    decoded: dict[Framing, NDArray[np.uint8]] = {}
    for reduction, group in by_reduction.items():
        decoded |= _decode_group(data, group, reduction)
    return {framing: decoded[framing] for framing in asked}


def require_few_pixels(data: bytes, max_pixels: int) -> None:
    """Stop at an image of more pixels than a caller decodes; only its header is read.

    Parameters
    ----------
    data : bytes
        As for `decode_image`.
    max_pixels : int
        See `featurepipe.features.extraction.image_headers.require_decodable`.

    Raises
    ------
    ImageError
        If it is larger, would take memory or time for that many, or is no image.
    """
    with refusing():
        require_decodable(open_image(data), data, max_pixels)


def open_rgb(data: bytes) -> Image.Image:
    """Decode an image at its original size, upright and RGB, by the same rules.

    Parameters
    ----------
    data : bytes
        As for `decode_image`.

    Raises
    ------
    ImageError
        As `decode_image`.
    """
    with ExitStack() as held:
        return _open_reduced(data, 1, held)


def _decode_group(
    data: bytes, framings: list[Framing], reduction: int
) -> dict[Framing, NDArray[np.uint8]]:
    # A separate function, so that one picture is freed before the next is decoded.
    with ExitStack() as held:
        picture = _open_reduced(data, reduction, held)
        pixels = {framing: np.array(_resize(picture, framing)) for framing in framings}
        del picture
    return pixels


def _resize(picture: Image.Image, framing: Framing) -> Image.Image:
    size, method = (picture.height, picture.width), _FILTERS[framing.interpolation]
    height, width = framing.resized(size)
    if max(height, width) > _MAX_LENGTH * min(height, width):
        box = framing.box(size)
        return picture.resize((framing.width, framing.height), method, box)
    # The whole first: by its size Pillow chooses whether rows or columns are resized first, and
    # what lies between is rounded.
    left, top = framing.corner(size)
    whole = picture.resize((width, height), method)
    return whole.crop((left, top, left + framing.width, top + framing.height))


def _open_reduced(data: bytes, reduction: int, held: ExitStack) -> Image.Image:
    with refusing():
        picture = _load(_open_checked(data, reduction, held), data)
        # Rebound, so that the original picture is freed before it is converted.
        picture = _turn_upright(picture)
        return _convert_to_rgb(picture)


def _open_checked(data: bytes, reduction: int, held: ExitStack) -> ImageFile.ImageFile:
    """The image, not yet decoded; its share of `MEMORY` is held until `held` is closed."""
    image = open_image(data)
    require_decodable(image, data)
    held.enter_context(MEMORY.take(decoding_bytes(image, data)))
    if reduction > 1:
        image.draft(None, (image.width // reduction, image.height // reduction))
    return image


def _reduction(data: bytes, framing: Framing) -> int:
    with refusing():
        image = open_image(data)
        if not isinstance(image, JpegImagePlugin.JpegImageFile):
            return 1
        lies = orientation_of(image) in LYING
        upright = (image.width, image.height) if lies else (image.height, image.width)
        height, width = framing.resized(upright)[:: -1 if lies else 1]
        factor = min(image.height // (2 * height), image.width // (2 * width))
        return max(reduction for reduction in (1, 2, 4, 8) if reduction <= max(factor, 1))


@contextmanager
def refusing() -> Iterator[None]:
    """Raise whatever a decoder raises as an ImageError."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        # Hostile bytes make Pillow's decoders raise nearly anything.
        raise ImageError(_reason(error)) from error


def _load(image: ImageFile.ImageFile, data: bytes) -> Image.Image:
    fast = _load_ordinary_jpeg(image, data)
    if fast is not None:
        return fast
    image.load()
    return image


def _load_ordinary_jpeg(image: ImageFile.ImageFile, data: bytes) -> Image.Image | None:
    """Decode with simplejpeg; None where its values might differ from Pillow's."""
    width, height = image.size
    if image.tile != [("jpeg", (0, 0, width, height), 0, ("RGB", ""))] or image.decoderconfig:
        return None
    try:
        # The header may differ from Pillow's reading of it, which was checked.
        if simplejpeg.decode_jpeg_header(data)[:3] != (height, width, "YCbCr"):
            return None
        pixels = simplejpeg.decode_jpeg(data, "RGBX")
        # Pillow's own layout of RGB, so that nothing is copied.
        shared = pa.Array.from_buffers(pa.uint8(), pixels.size, [None, pa.py_buffer(pixels)])
        fast = Image.fromarrow(shared, "RGB", image.size)
    except Exception:
        return None
    fast.info = image.info
    return fast


def _turn_upright(image: Image.Image) -> Image.Image:
    # Asked after loading: by then Pillow has turned a TIFF and reset its orientation.
    orientation = orientation_of(image)
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def _convert_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode in ("I", "F"):
        raise ImageError(f"32-bit pixels (mode {image.mode}): expected 8 or 16 bits a channel")
    if image.width * image.height <= _BAND_PIXELS:
        return _convert_band(image)
    converted = Image.new("RGB", image.size)
    n_rows = _BAND_PIXELS // image.width
    for top in range(0, image.height, n_rows):
        band = image.crop((0, top, image.width, min(top + n_rows, image.height)))
        converted.paste(_convert_band(band), (0, top))
    return converted


def _convert_band(band: Image.Image) -> Image.Image:
    if band.mode.startswith("I;16"):
        return _scale_16_bit(band).convert("RGB")
    if band.has_transparency_data:
        rgba = band.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return band.convert("RGB")


def _scale_16_bit(image: Image.Image) -> Image.Image:
    # 65535 is 257 x 255, so this rounds to the nearest of 256 steps.
    grey = (np.asarray(image).astype(np.uint32) + 128) // 257
    return Image.fromarray(grey.astype(np.uint8))


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    if isinstance(error, Image.DecompressionBombError):
        return f"too large: {text}"[:_MAX_REASON_LENGTH]
    if "truncated" in text.lower():
        return "truncated"
    return f"damaged image ({text[:_MAX_REASON_LENGTH]})"
