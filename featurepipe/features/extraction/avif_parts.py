"""Coded sizes in AVIF files: what a decoder takes, whatever size the file declares.

The declared size stands beside AV1 data that have sizes of their own: decoders take memory for
these, and scale afterwards. Names are those of ISO/IEC 14496-12 and of the AV1 specification.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from featurepipe.errors import ImageError

MAX_PARTS = 10_000
"""Most boxes, items, extents and units of an AVIF file; a grid of 1,000 tiles has some 6,000."""

MAX_FRAMES = 16
"""Most frames of one AV1 image, of which one is shown; progressive images have about four."""

_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME = 1, 3, 6


def coded_pixels(data: bytes) -> int:
    """Pixels of all AV1 images of a file together: the picture or its tiles, alpha and others.

    Parameters
    ----------
    data : bytes
        An AVIF file.

    Raises
    ------
    ImageError
        If it is an animation, has too many parts, or is damaged.
    """
    try:
        return _AvifFile(data).coded_pixels()
    except (struct.error, IndexError) as error:
        raise ImageError("truncated") from error


@dataclass
class _AvifFile:
    data: bytes
    n_parts: int = 0

    def coded_pixels(self) -> int:
        pixels = 0
        for kind, start, end in self._boxes(0, len(self.data)):
            # With the brand `avif`, decoders ignore an animation beside the image.
            if kind == b"moov" and self.data[8:12] != b"avif":
                raise ImageError("AVIF animation: expected a single image")
            if kind == b"meta":
                pixels += sum(map(self._pixels_of_image, self._images(start + 4, end)))
        return pixels

    def _boxes(self, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
        """Kind of each box, and where its content starts and ends."""
        while start + 8 <= end:
            self._count()
            size, kind = struct.unpack_from(">I4s", self.data, start)
            content = start + 8
            if size == 1:
                (size,) = struct.unpack_from(">Q", self.data, content)
                content += 8
            stop = min(end, start + size) if size else end
            if stop < content:
                raise ImageError("damaged image (a box that ends before it starts)")
            yield kind, content, stop
            start = stop

    def _count(self) -> None:
        self.n_parts += 1
        if self.n_parts > MAX_PARTS:
            raise ImageError(f"too slow to read: more than {MAX_PARTS} parts")

    def _images(self, start: int, end: int) -> Iterator[bytes]:
        """The AV1 data of the items of a `meta` box."""
        boxes = {kind: (begin, stop) for kind, begin, stop in self._boxes(start, end)}
        if b"iinf" not in boxes or b"iloc" not in boxes:
            return
        images = set(self._av1_items(*boxes[b"iinf"]))
        inner, _ = boxes.get(b"idat", (0, 0))
        for item, method, extents in self._locations(boxes[b"iloc"][0]):
            if item not in images:
                continue
            if method > 1:
                raise ImageError("damaged image (AV1 data made of other items)")
            base = inner if method == 1 else 0
            yield b"".join(
                self.data[base + offset : base + offset + length if length else None]
                for offset, length in extents
            )

    def _av1_items(self, start: int, end: int) -> Iterator[int]:
        """Ids of the items of an `iinf` box that are AV1 images."""
        n_count = 2 if self.data[start] == 0 else 4
        for kind, begin, _ in self._boxes(start + 4 + n_count, end):
            if kind == b"infe":
                form = ">HH4s" if self.data[begin] < 3 else ">IH4s"
                item, _, item_type = struct.unpack_from(form, self.data, begin + 4)
                if item_type == b"av01":
                    yield item

    def _locations(self, start: int) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
        """Id, construction method, and offset and length of each extent of the items of `iloc`."""
        version, position = self.data[start], start + 4

        def take(n_bytes: int) -> int:
            nonlocal position
            position += n_bytes
            if position > len(self.data):
                raise IndexError
            return int.from_bytes(self.data[position - n_bytes : position])

        sizes = take(2)
        n_offset, n_length, n_base, n_index = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
        for _ in range(take(2 if version < 2 else 4)):
            self._count()
            item = take(2 if version < 2 else 4)
            method = take(2) & 15 if version else 0
            take(2)
            base = take(n_base)
            extents = []
            for _ in range(take(2)):
                self._count()
                take(n_index if version else 0)
                extents.append((base + take(n_offset), take(n_length)))
            yield item, method, extents

    def _pixels_of_image(self, av1: bytes) -> int:
        """Pixels of the largest frame that AV1 data may have."""
        position, n_frames, pixels = 0, 0, 0
        while position < len(av1):
            self._count()
            header = av1[position]
            kind, has_extension, has_size = header >> 3 & 15, header & 4, header & 2
            position += 2 if has_extension else 1
            size = len(av1) - position
            if has_size:
                size, position = _leb128(av1, position)
            n_frames += kind in (_FRAME_HEADER, _FRAME)
            if n_frames > MAX_FRAMES:
                raise ImageError(f"too slow to decode: more than {MAX_FRAMES} frames")
            if kind == _SEQUENCE_HEADER:
                pixels = max(pixels, _sequence_pixels(av1[position : position + size]))
            position += size
        return pixels


def _leb128(data: bytes, position: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    value = 0
    for count in range(8):
        byte = data[position + count]
        value |= (byte & 127) << 7 * count
        if byte < 128:
            return value, position + count + 1
    raise ImageError("damaged image (a number that is too long)")


class _Bits:
    """Reads bits from the front."""

    def __init__(self, data: bytes) -> None:
        self._value, self._n_left = int.from_bytes(data), 8 * len(data)

    def take(self, n_bits: int) -> int:
        self._n_left -= n_bits
        if self._n_left < 0:
            raise IndexError
        return self._value >> self._n_left & (1 << n_bits) - 1


def _sequence_pixels(header: bytes) -> int:
    """Pixels of the largest frame that a sequence header allows."""
    # All operating points have less.
    bits = _Bits(header[:1024])
    bits.take(4)
    is_reduced = bits.take(1)
    if is_reduced:
        bits.take(5)
    else:
        _skip_operating_points(bits)
    n_width, n_height = bits.take(4) + 1, bits.take(4) + 1
    width, height = bits.take(n_width) + 1, bits.take(n_height) + 1
    # Without a reduced header, a frame may have any size that the bits can say.
    return width * height if is_reduced else (1 << n_width) * (1 << n_height)


def _skip_operating_points(bits: _Bits) -> None:
    n_delay = None
    if bits.take(1):
        _skip_timing(bits)
        if bits.take(1):
            n_delay = bits.take(5) + 1
            bits.take(32 + 5 + 5)
    has_initial_delay = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if n_delay is not None and bits.take(1):
            bits.take(2 * n_delay + 1)
        if has_initial_delay and bits.take(1):
            bits.take(4)


def _skip_timing(bits: _Bits) -> None:
    bits.take(64)
    if bits.take(1):
        n_zeros = 0
        while not bits.take(1):
            n_zeros += 1
        bits.take(n_zeros if n_zeros < 32 else 0)
