"""Parts of image files: segments, scans, chunks, blocks, directories and headers.

Pillow reads each part in Python, so that a small file of very many parts would take minutes.
Such files are refused before Pillow opens them. Cameras and common encoders stay far below
every limit.
"""

import re
import struct
from collections.abc import Iterator

from featurepipe.errors import ImageError

MAX_SEGMENTS = 1_000
"""Most segments of a JPEG, chunks of a PNG other than pixels, and entries of a TIFF directory.

A colour profile has at most 255 segments; other files have a few dozen of any kind. The
slowest 1,000 segments are quantisation tables of 65 kB each: 4 s for a file of 65 MB.
"""

MAX_EXIF_SEGMENTS = 64
"""Most Exif segments of a JPEG, 4 MB in all: Pillow copies all earlier ones for each."""

MAX_FILLER = 1_000_000
"""Most bytes of a JPEG between its segments, before the pixels: 0.4 s."""

MAX_BLOCKS = 100_000
"""Most chunks of a PNG, blocks of a GIF before its pixels, and values of a tag of a TIFF.

So many take 0.6 s at most. Files of `featurepipe.sources.MAX_IMAGE_BYTES` in the chunks
of 8 kB that libpng writes have 62,500.
"""

_EXIF = b"Exif\0\0"

_SOS, _EOI, _APP1 = 0xDA, 0xD9, 0xE1
_WITH_LENGTH = frozenset({*range(0xC0, 0xD0), *range(0xDA, 0xF0), 0xFE} - {0xC8})

# Neither filler nor what belongs to the pixels: an escaped 0xFF or a restart.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")

_FRAMES = frozenset({b"IDAT", b"fdAT", b"fcTL"})

_MAX_PPM_HEADER = 4096
_PPM_GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"
_PPM_HEADER = re.compile(
    rb"(?:P4%(gap)s\d+%(gap)s\d+|P[56]%(gap)s\d+%(gap)s\d+%(gap)s255)\s" % {b"gap": _PPM_GAP}
)

_TIFF_BYTES, _TIFF_POINTERS = frozenset({1, 2, 6, 7}), frozenset({34665, 34853, 40965})


def require_few_segments(data: bytes) -> None:
    """Stop if a JPEG has too many segments, or too much between them, before its pixels.

    Raises
    ------
    ImageError
    """
    n_filler = n_exif = position = 0
    for code, start, content, end in _segments(data):
        n_filler += start - position
        position = end
        if code == _SOS:
            break
        if code == _APP1 and data.startswith(_EXIF, content):
            n_exif += 1
    else:
        n_filler += max(0, len(data) - position)
    _require(n_filler, MAX_FILLER, "bytes between segments")
    _require(n_exif, MAX_EXIF_SEGMENTS, "Exif segments")


def count_scans(data: bytes, n_components: int) -> int:
    """Scans that a decoder takes from a JPEG: 1 if the first has all of its components.

    Parameters
    ----------
    data : bytes
        A JPEG file.
    n_components : int
        Components of the picture; 0 for a progressive JPEG, whose scans do not say which is
        the last.
    """
    n_scans = 0
    for code, _, content, _ in _segments(data):
        if code == _EOI:
            break
        if code == _SOS:
            n_scans += 1
            if data[content : content + 1] == bytes([n_components]):
                break
    return n_scans


def _segments(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """The segments of a JPEG file, as libjpeg and Pillow find them.

    Yields
    ------
    tuple of int
        Its code, and where it starts, its content starts, and it ends.
    """
    search, position = _MARKER.search, 0
    for _ in range(MAX_SEGMENTS):
        found = search(data, position)
        if found is None:
            return
        start, content = found.span()
        code, position = data[content - 1], content
        if code in _WITH_LENGTH:
            position += max(2, int.from_bytes(data[content : content + 2]))
            content += 2
        yield code, start, content, position
    raise ImageError(f"too slow to read: more than {MAX_SEGMENTS} segments")


def require_few_chunks(data: bytes) -> None:
    """Stop if a PNG has too many chunks.

    Raises
    ------
    ImageError
    """
    position, n_chunks, n_other = 8, 0, 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        position += 12 + length
        n_chunks += 1
        n_other += kind not in _FRAMES
        _require(n_chunks, MAX_BLOCKS, "chunks")
        _require(n_other, MAX_SEGMENTS, "chunks other than pixels")


def require_few_blocks(data: bytes) -> None:
    """Stop if a GIF has too many blocks before its first frame.

    Raises
    ------
    ImageError
    """
    flags = int.from_bytes(data[10:11])
    position = 13 + (3 * (2 << (flags & 7)) if flags & 128 else 0)
    n_blocks = 0
    while position < len(data) and data[position : position + 1] not in (b",", b";"):
        is_extension = data[position : position + 1] == b"!"
        position += 2 if is_extension else 1
        n_blocks += 1
        while is_extension and (length := int.from_bytes(data[position : position + 1])):
            position += 1 + length
            n_blocks += 1
            _require(n_blocks, MAX_BLOCKS, "blocks")
        position += is_extension
        _require(n_blocks, MAX_BLOCKS, "blocks")


def require_plain_ppm(data: bytes) -> None:
    """Stop if a PPM, PGM or PBM is not binary with 8 bits a channel, or its header is long.

    Pillow decodes the others in Python, and reads comments one byte at a time.

    Raises
    ------
    ImageError
    """
    if not _PPM_HEADER.match(data[:_MAX_PPM_HEADER]):
        raise ImageError("PPM as text, of other than 8 bits, or of a long header: save it as PNG")


def require_small_directories(data: bytes) -> None:
    """Stop if a TIFF's first directory has too many entries, or a tag in it too many values.

    Directories that it points to, such as that of Exif, are limited likewise.

    Parameters
    ----------
    data : bytes
        A TIFF file, or Exif data, which have the same form.

    Raises
    ------
    ImageError
    """
    order = "<" if data[:2] == b"II" else ">"
    is_big = 43 in data[2:4]
    (first,) = _unpack(order + ("Q" if is_big else "I"), data, 8 if is_big else 4)
    for tag, value in list(_directory(data, order, is_big, first)):
        if tag in _TIFF_POINTERS:
            for _ in _directory(data, order, is_big, value):
                pass


def _directory(data: bytes, order: str, is_big: bool, start: int) -> Iterator[tuple[int, int]]:
    """Tags of a directory, with their values or where these are."""
    count_form, entry_form = (
        (order + "Q", order + "HHQQ") if is_big else (order + "H", order + "HHII")
    )
    (n_entries,) = _unpack(count_form, data, start)
    _require(n_entries, MAX_SEGMENTS, "entries of a directory")
    for row in range(n_entries):
        position = start + struct.calcsize(count_form) + row * struct.calcsize(entry_form)
        tag, kind, n_values, value = _unpack(entry_form, data, position)
        # Pillow skips values that the file cannot hold.
        if kind not in _TIFF_BYTES and n_values <= len(data):
            _require(n_values, MAX_BLOCKS, f"values of tag {tag}")
        yield tag, value


def _unpack(form: str, data: bytes, offset: int) -> tuple[int, ...]:
    """Numbers of a file; zeros where it ends before them, which Pillow refuses."""
    size = struct.calcsize(form)
    return struct.unpack(form, data[offset : offset + size].ljust(size, b"\0"))


def _require(number: int, limit: int, what: str) -> None:
    if number > limit:
        raise ImageError(f"too slow to read: {number} {what}, at most {limit}")
