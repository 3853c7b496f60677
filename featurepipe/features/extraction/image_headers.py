"""Image headers: format, size, scans and orientation that a file declares.

Files that would take too much memory or time are refused before they are decoded.
"""

import re
from collections.abc import Callable
from io import BytesIO

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from featurepipe.errors import ImageError
from featurepipe.features.extraction.avif_parts import coded_pixels
from featurepipe.features.extraction.image_parts import (
    count_scans,
    require_few_blocks,
    require_few_chunks,
    require_few_segments,
    require_plain_ppm,
    require_small_directories,
)
from featurepipe.image_types import INSTALL_HEIC, READ, reads_avif, reads_heic

MAX_PIXELS = 128_000_000
"""Larger images are refused before they are decoded: they would fill the memory."""

MAX_SIDE = 1_000_000
"""Wider or higher images are refused: decoders take memory for each row and column."""

MAX_BYTES = 8 * MAX_PIXELS
"""Most memory that the pixels of one image take while it is decoded: 1.024 GB.

A picture and its conversion take 4 bytes per pixel each. Formats whose decoders
need more have a lower limit of pixels.
"""

MAX_SCANS = 100
"""JPEGs of more scans are refused: each scan takes the time of a whole picture.

Encoders write about 10 scans, and 20 at most.
"""

MAX_PIXEL_SCANS = 16 * MAX_PIXELS
"""Most pixels times scans of a JPEG: 20 scans of 102 megapixels, or 100 of 20.

The slowest small file that is allowed (102 megapixels, 20 scans, 1 MB) takes 4.7 s
and 1.03 GB; content in each scan takes longer, at 80 ns a byte.
"""

_NO_IMAGE = f"not an image (no {READ})"


def _open_boxed(file: BytesIO) -> ImageFile.ImageFile:
    """Open an AVIF or HEIC file: both are boxes, and name their brands in the first."""
    first = bytes(file.getbuffer()[:_MAX_BRANDS])
    n_first = min(len(first), int.from_bytes(first[:4]))
    brands = {first[start : start + 4] for start in (8, *range(16, n_first, 4))}
    if brands & {b"avif", b"avis"}:
        if not reads_avif():
            raise ImageError("AVIF: install a Pillow that reads it (pip install --upgrade pillow)")
        return AvifImagePlugin.AvifImageFile(file)
    if not brands & _HEIC_BRANDS:
        raise ImageError(_NO_IMAGE)
    if not reads_heic():
        raise ImageError(f"HEIC: install what reads it ({INSTALL_HEIC})")
    from pillow_heif import HeifImageFile

    return HeifImageFile(file)


# Images are decoded side by side already, and the memory of a decoder grows with its threads.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

_MAX_BRANDS = 1024
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1", b"hevc", b"hevx"}

# Not `Image.open`: its check for decompression bombs comes with a warning, and
# depends on a limit that any other code of the process may change.
_Check = Callable[[bytes], None]
_Opener = Callable[[BytesIO], ImageFile.ImageFile]
_OPENERS: tuple[tuple[re.Pattern[bytes], _Check | None, _Opener], ...] = (
    (re.compile(rb"\xff\xd8\xff"), require_few_segments, JpegImagePlugin.jpeg_factory),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), require_few_chunks, PngImagePlugin.PngImageFile),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), None, WebPImagePlugin.WebPImageFile),
    (re.compile(rb"BM"), None, BmpImagePlugin.BmpImageFile),
    (re.compile(rb"GIF8[79]a"), require_few_blocks, GifImagePlugin.GifImageFile),
    (
        re.compile(rb"II[*+]\x00|MM\x00[*+]"),
        require_small_directories,
        TiffImagePlugin.TiffImageFile,
    ),
    (re.compile(rb"P[1-6][\s#]"), require_plain_ppm, PpmImagePlugin.PpmImageFile),
    (re.compile(rb".{4}ftyp", re.DOTALL), None, _open_boxed),
)

LYING = (5, 6, 7, 8)
"""Orientations that swap height and width."""


def open_image(data: bytes) -> ImageFile.ImageFile:
    """Read the header of an image file; its pixels are not decoded.

    Raises
    ------
    ImageError
        If the bytes are no file of the formats that are `READ`, have more parts than
        `image_parts` allows, or nothing installed decodes them.
    """
    if not data:
        raise ImageError("empty file")
    for signature, check, opener in _OPENERS:
        if signature.match(data):
            if check is not None:
                check(data)
            return opener(BytesIO(data))
    raise ImageError(_NO_IMAGE)


def require_decodable(
    image: ImageFile.ImageFile, data: bytes, max_pixels: int = MAX_PIXELS
) -> None:
    """Stop unless an image can be decoded within a bound of memory and a reasonable time.

    Parameters
    ----------
    image : ImageFile
    data : bytes
        The whole file.
    max_pixels : int
        With fewer pixels than `MAX_PIXELS`, `MAX_BYTES` and `MAX_PIXEL_SCANS` are as much lower.

    Raises
    ------
    ImageError
        If it declares more than `max_pixels` pixels or `MAX_SIDE` a side, would need more than
        `MAX_BYTES`, or has more than `MAX_SCANS` scans or `MAX_PIXEL_SCANS` pixels times scans.
    """
    _require_sane_size(image, data, max_pixels)
    _require_few_scans(image, data, max_pixels)


def _require_sane_size(image: ImageFile.ImageFile, data: bytes, max_pixels: int) -> None:
    max_bytes = MAX_BYTES * max_pixels // MAX_PIXELS
    limit = min(max_pixels, int(max_bytes / _bytes_a_pixel(image, data)))
    for width, height in (image.size, _tile_size(image)):
        if max(width, height) > MAX_SIDE:
            raise ImageError(f"too large: {width} x {height} pixels, at most {MAX_SIDE} a side")
        if width * height > limit:
            kind = "" if limit == max_pixels else f" for this kind of {image.format}"
            raise ImageError(f"too large: {width} x {height} pixels, at most {limit} in all{kind}")


def decoding_bytes(image: ImageFile.ImageFile, data: bytes) -> int:
    """Most memory that decoding an image takes, at its full size."""
    pixels = max(width * height for width, height in (image.size, _tile_size(image)))
    return int(pixels * max(8, _bytes_a_pixel(image, data)))


def _bytes_a_pixel(image: ImageFile.ImageFile, data: bytes) -> float:
    """Memory that decoding takes; measured, and asserted, by `test_hostile_images`."""
    if isinstance(image, WebPImagePlugin.WebPImageFile):
        # Two canvases of the decoder, the frame handed over, and Pillow's picture.
        return 16
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        # Files of several scans: 16-bit coefficients of all blocks at once.
        across, down = zip(*(factors for _, *factors, _ in image.layer), strict=True)
        area = sum(x * y for x, y in zip(across, down, strict=True))
        return 4 + 2 * area / max(1, max(across) * max(down))
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # All may be one strip, which is decoded at its own depth first.
        bits = max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
        return 4 + bits * image.tag_v2.get(TiffImagePlugin.SAMPLESPERPIXEL, 1) / 8
    if isinstance(image, AvifImagePlugin.AvifImageFile):
        # The decoder's frames and a copy, at up to 12 bits without subsampling.
        return 8 + 12 * coded_pixels(data) / max(1, image.width * image.height)
    if image.format == "HEIF":
        # libheif refuses data of another size than the file declares.
        return 16 if image.info["bit_depth"] == 8 else 24
    return 8


def _tile_size(image: ImageFile.ImageFile) -> tuple[int, int]:
    """Width and height of the tiles of a TIFF, which may be larger than the picture."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return (0, 0)
    tags = image.tag_v2
    return (tags.get(TiffImagePlugin.TILEWIDTH, 0), tags.get(TiffImagePlugin.TILELENGTH, 0))


def _require_few_scans(image: ImageFile.ImageFile, data: bytes, max_pixels: int) -> None:
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return
    n_scans = count_scans(data, 0 if image.info.get("progressive") else image.layers)
    max_pixel_scans = MAX_PIXEL_SCANS * max_pixels // MAX_PIXELS
    limit = min(MAX_SCANS, max_pixel_scans // (image.width * image.height))
    if n_scans > limit:
        size = "" if limit == MAX_SCANS else f" for {image.width} x {image.height} pixels"
        raise ImageError(f"too slow to decode: {n_scans} scans, at most {limit}{size}")


def orientation_of(image: Image.Image) -> object:
    """The EXIF orientation of an image, 1 to 8 if it is sound; None if there is none."""
    try:
        require_small_directories(image.info.get("exif", b"").removeprefix(b"Exif\0\0"))
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        # Damaged or enormous metadata do not affect the pixels.
        return None
