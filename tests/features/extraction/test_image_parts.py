"""Files of very many parts, which are slow to read: pixels up to a limit, then a reason."""

import io
import struct
import zlib

import pytest
from PIL import Image

from featurepipe.errors import ImageError
from featurepipe.features.extraction.decoding import decode_image
from featurepipe.features.extraction.image_headers import MAX_SCANS

# Pytest replaces the filters that the import sets.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def encode(file_format, mode="RGB", side=16, **options):
    file = io.BytesIO()
    Image.new(mode, (side, side), 77).save(file, file_format, **options)
    return file.getvalue()


def outcome(data):
    """The colour of the first pixel, or the reason why there is none."""
    try:
        return decode_image(data, (2, 2))[0, 0].tolist()
    except ImageError as refusal:
        return str(refusal)


def insert(data, position, part, n):
    return data[:position] + part * n + data[position:]


def segment(code, content=b""):
    return struct.pack(">BBH", 0xFF, code, 2 + len(content)) + content


def chunk(kind, content=b""):
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def tiff(n_strips, n_more=0, *, is_big=False):
    """A grey TIFF of a column of pixels, each of which is a strip, with more entries."""
    head, count, entry = ("HHHQ", "Q", "HHQQ") if is_big else ("HI", "H", "HHII")
    start = 16 if is_big else 8
    tags = {256: 1, 257: n_strips, 258: 8, 259: 1, 262: 1, 277: 1, 278: 1}
    entries = [(tag, 4, 1, value) for tag, value in tags.items()]
    entries += [(60000 + row, 4, 1, 0) for row in range(n_more)]
    n_bytes = struct.calcsize("<" + count) + (len(entries) + 2) * struct.calcsize("<" + entry) + 8
    # The strips are all the same pixel: the first byte behind the directory and its offsets.
    offsets = start + n_bytes
    pixel = offsets + 4 * n_strips
    where = (offsets, offsets) if n_strips > 1 else (pixel, 1)
    entries += [(273, 4, n_strips, where[0]), (279, 4, n_strips, where[1])]
    header = (43, 8, 0, start) if is_big else (42, start)
    return (
        b"II"
        + struct.pack("<" + head, *header)
        + struct.pack("<" + count, len(entries))
        + b"".join(struct.pack("<" + entry, *one) for one in sorted(entries))
        + bytes(8)
        + struct.pack("<I", pixel) * n_strips
        + b"\x4d"
    )


def sequential():
    """A JPEG without progression, each component of which is a scan of its own."""
    data = encode("JPEG", side=8, subsampling=0)
    frame = data.find(b"\xff\xc0")
    scan = data.find(b"\xff\xda")
    header = data[:scan]
    # Flat blocks: a difference of 0 and an end, in the codes of the common tables.
    luma = segment(0xDA, bytes([1, 1, 0x00, 0, 63, 0])) + bytes([0b00101011])
    chroma = [segment(0xDA, bytes([1, c, 0x11, 0, 63, 0])) + bytes([0b00001111]) for c in (2, 3)]
    assert data[frame + 9] == 3
    return header + luma + b"".join(chroma) + b"\xff\xd9"


JPEG, GREY_JPEG = encode("JPEG"), encode("JPEG", "L")
PROGRESSIVE = encode("JPEG", progressive=True)
SEQUENTIAL = sequential()
PNG = encode("PNG")
GIF = encode("GIF", "L")
IDAT, IEND = PNG.find(b"IDAT") - 4, PNG.find(b"IEND") - 4
# Behind the header and the palette of a GIF.
PIXELS = 13 + 3 * (2 << (GIF[10] & 7))
LAST_SCAN = PROGRESSIVE.rfind(b"\xff\xda")
PROFILE = chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1 << 20)))

SLOW = {
    # name: (a file of n more parts, n that is allowed, n that is refused, what is said of it)
    "comments of a JPEG": (
        lambda n: insert(JPEG, 2, segment(0xFE), n),
        990,
        1001,
        "more than 1000 segments",
    ),
    "comments of a grey JPEG": (
        lambda n: insert(GREY_JPEG, 2, segment(0xFE, b"text"), n),
        990,
        1001,
        "more than 1000 segments",
    ),
    "comments between scans": (
        lambda n: insert(PROGRESSIVE, LAST_SCAN, segment(0xFE), n),
        960,
        1001,
        "more than 1000 segments",
    ),
    "Exif of a JPEG": (
        lambda n: insert(JPEG, 2, segment(0xE1, b"Exif\0\0" + bytes(9)), n),
        64,
        65,
        "65 Exif segments, at most 64",
    ),
    "filler of a JPEG": (
        lambda n: insert(JPEG, 2, b"\xff", n),
        1_000_000,
        1_000_001,
        "1000001 bytes between segments, at most 1000000",
    ),
    "chunks of a PNG": (
        lambda n: insert(PNG, IDAT, chunk(b"abCd"), n),
        990,
        1001,
        "1001 chunks other than pixels, at most 1000",
    ),
    "text of a PNG": (
        lambda n: insert(PNG, IEND, chunk(b"tEXt", b"a\0b"), n),
        990,
        1001,
        "1001 chunks other than pixels, at most 1000",
    ),
    "profiles of a PNG": (
        lambda n: insert(PNG, IDAT, PROFILE, n),
        50,
        1001,
        "1001 chunks other than pixels, at most 1000",
    ),
    "pixels of a PNG": (
        lambda n: insert(PNG, IDAT, chunk(b"IDAT"), n),
        99_000,
        100_001,
        "100001 chunks, at most 100000",
    ),
    "comments of a GIF": (
        lambda n: insert(GIF, PIXELS, b"!\xfe\1a\0", n),
        49_000,
        50_001,
        "100002 blocks, at most 100000",
    ),
    "long comment of a GIF": (
        lambda n: insert(GIF, PIXELS, b"!\xfe" + b"\1a" * n + b"\0", 1),
        99_000,
        100_001,
        "100001 blocks, at most 100000",
    ),
    "filler of a GIF": (
        lambda n: insert(GIF, PIXELS, b"\1", n),
        99_000,
        100_001,
        "100001 blocks, at most 100000",
    ),
    "strips of a TIFF": (
        lambda n: tiff(n),
        100_000,
        100_001,
        "100001 values of tag 273, at most 100000",
    ),
    "entries of a TIFF": (
        lambda n: tiff(3, n),
        990,
        1000,
        "1009 entries of a directory, at most 1000",
    ),
    "entries of a BigTIFF": (
        lambda n: tiff(3, n, is_big=True),
        990,
        1000,
        "1009 entries of a directory, at most 1000",
    ),
}


@pytest.mark.parametrize("name", SLOW)
def test_so_many_parts_are_read(name):
    make, allowed, *_ = SLOW[name]
    assert outcome(make(allowed)) == outcome(make(2))
    assert isinstance(outcome(make(2)), list)


@pytest.mark.parametrize("name", SLOW)
def test_more_parts_are_refused_before_pillow_reads_them(name, monkeypatch):
    make, _, refused, reason = SLOW[name]
    if name != "comments between scans":
        monkeypatch.setattr("PIL.ImageFile.ImageFile.__init__", None)
    assert outcome(make(refused)) == f"too slow to read: {reason}"


def exif_of(n_values):
    """Exif data that turn an image upside down, with a tag of so many values."""
    entries = ((0x0112, 3, 1, 3), (60000, 3, n_values, 38))
    directory = struct.pack("<H", 2) + b"".join(struct.pack("<HHII", *one) for one in entries)
    return b"II" + struct.pack("<HI", 42, 8) + directory + bytes(4) + bytes(2 * n_values)


@pytest.mark.parametrize("n_values", [3, 100_000, 100_001])
def test_exif_data_of_very_many_values_are_ignored(n_values):
    image = Image.new("RGB", (2, 2), "black")
    image.paste("white", (0, 0, 2, 1))
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif_of(n_values))
    top, bottom = decode_image(file.getvalue(), (2, 2))[:, 0, 0].tolist()
    assert (top, bottom) == ((255, 0) if n_values > 100_000 else (0, 255))


def test_a_directory_inside_a_tiff_is_limited():
    data = tiff(3, 1)
    # That of Exif data, which begins behind the pixel.
    entry = struct.pack("<HHII", 34665, 4, 1, len(data))
    data = data.replace(struct.pack("<HHII", 60000, 4, 1, 0), entry)
    reason = "too slow to read: 1001 entries of a directory, at most 1000"
    assert outcome(data + struct.pack("<H", 1001)) == reason
    assert outcome(data + struct.pack("<H", 0)) == outcome(tiff(3))


def repeated_scans(data, n):
    return insert(data, len(data) - 2, data[data.rfind(b"\xff\xda") : -2], n)


@pytest.mark.parametrize("kind", ["progressive", "sequential"])
def test_too_many_scans_are_refused(kind):
    data = {"progressive": PROGRESSIVE, "sequential": SEQUENTIAL}[kind]
    n_more = MAX_SCANS - data.count(b"\xff\xda")
    assert outcome(repeated_scans(data, n_more)) == outcome(data)
    refusal = outcome(repeated_scans(data, n_more + 1))
    assert refusal == "too slow to decode: 101 scans, at most 100"


def test_large_images_may_have_fewer_scans():
    data = bytearray(encode("JPEG", progressive=True, subsampling=0))
    n_scans = data.count(b"\xff\xda")
    struct.pack_into(">HH", data, data.find(b"\xff\xc2") + 5, 10_000, 10_000)
    reason = "too slow to decode: 21 scans, at most 20 for 10000 x 10000 pixels"
    assert outcome(repeated_scans(bytes(data), 21 - n_scans)) == reason


def test_scans_of_a_thumbnail_or_behind_the_image_do_not_count():
    scans = segment(0xDA, bytes(6)) * 200
    thumbnail = segment(0xE1, b"Exif\0\0" + scans)
    assert outcome(insert(PROGRESSIVE, 2, thumbnail, 1) + scans) == outcome(PROGRESSIVE)
