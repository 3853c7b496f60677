"""Decode damaged image files: each must give pixels or a reason, and nothing worse.

    python benchmarks/fuzz.py [FOLDER …] [--n 10000] [--seed 0] [--keep DIR]

Files from the folders, and small generated pictures in every format, are damaged: bytes are
flipped, cut and spliced, sizes and metadata forged, other files put before and behind. Each
input is decoded in a child process of limited memory. An input that crashes it, hangs or takes
too much memory is saved in `--keep`. For each input:

* the outcome is pixels of the right shape and type, or a reason in one line;
* decoding again gives the same, and so does Pillow without simplejpeg.

An input depends on the seed and its number alone: `--first K --n 1` makes it again.
"""

import argparse
import contextlib
import functools
import io
import multiprocessing
import os
import random
import resource
import struct
import tempfile
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from unittest import mock

import numpy as np
import simplejpeg
from PIL import ExifTags, Image

from featurepipe.errors import ImageError
from featurepipe.features.extraction.decoding import decode_framed, decode_image
from featurepipe.features.framing import Framing
from featurepipe.image_types import reads_avif

SIZE = (7, 5)
SUFFIXES = {
    ".jpg", ".jpeg", ".png", ".gif", ".webp", ".tif", ".tiff", ".bmp", ".mpo", ".ppm", ".avif",
    ".heic",
}  # fmt: skip
MEMORY_BYTES = 1_500_000_000
"""Address space of the child process beyond what its imports take."""
PATIENCE_SECONDS = 120

Outcome = tuple[str, float, int]
"""The verdict on an input, the seconds of one decoding, and its peak of memory in bytes."""


def main() -> None:
    """Decode all inputs and print the outcomes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "folders", nargs="*", type=Path, help="real images; none: generated ones only"
    )
    parser.add_argument("--n", type=int, default=10_000, help="number of inputs")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--seed", type=int, default=0, help="seed of all damage")
    parser.add_argument(
        "--keep",
        type=Path,
        default=Path(tempfile.gettempdir()) / "fuzz",
        help="folder for inputs with a finding; default: %(default)s",
    )
    options = parser.parse_args()
    inputs = Inputs(options.folders, options.seed)
    numbers = range(options.first, options.first + options.n)
    started = time.perf_counter()
    outcomes = dict(campaign(inputs, numbers))
    for number, (what, _, _) in outcomes.items():
        if is_finding(what):
            save(options.keep, inputs, number)
    report(outcomes, inputs, time.perf_counter() - started)


class Inputs:
    """Damaged files, each made from the seed and its number alone."""

    def __init__(self, folders: Sequence[Path], seed: int):
        self.seed = seed
        self.real = sorted(
            path
            for folder in folders
            for path in folder.rglob("*")
            if path.suffix.lower() in SUFFIXES
        )
        self.drawn = list(drawn_files().values())

    def make(self, number: int) -> bytes:
        """The bytes of one input."""
        rng = random.Random(f"{self.seed} {number}")
        return damage(rng, self._pick(rng), self._pick(rng))

    def _pick(self, rng: random.Random) -> bytes:
        # Half of the inputs come from generated files, since only those have every format.
        if self.real and rng.random() < 0.5:
            return rng.choice(self.real).read_bytes()
        return rng.choice(self.drawn)


# --- drawing -------------------------------------------------------------------------


@functools.cache
def drawn_files() -> dict[str, bytes]:
    """Small pictures in every format, and in the encodings of each that differ inside."""
    rgb = picture()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.ImageDescription] = "drawn"
    grey16 = Image.fromarray(np.arange(1080, dtype=np.uint16).reshape(27, 40) * 60)
    modes = {mode: rgb.convert(mode) for mode in ("L", "LA", "P", "RGBA", "CMYK", "1")}
    clear = modes["RGBA"].copy()
    clear.putalpha(modes["L"])
    return {
        "jpeg": encode(rgb, "JPEG"),
        "jpeg 444": encode(rgb, "JPEG", subsampling=0),
        "jpeg progressive": encode(rgb, "JPEG", progressive=True),
        "jpeg restarts": encode(rgb, "JPEG", restart_marker_blocks=1),
        "jpeg rgb": encode(rgb, "JPEG", keep_rgb=True),
        "jpeg grey": encode(modes["L"], "JPEG"),
        "jpeg cmyk": encode(modes["CMYK"], "JPEG"),
        "jpeg exif icc": encode(rgb, "JPEG", exif=exif, icc_profile=bytes(range(256)) * 4),
        "mpo": encode(rgb, "MPO", **frames(rgb)),
        "png": encode(rgb, "PNG", exif=exif, icc_profile=b"rubbish" * 9),
        "png alpha": encode(clear, "PNG"),
        "png grey alpha": encode(modes["LA"], "PNG"),
        "png palette": encode(modes["P"], "PNG", transparency=bytes(range(256))),
        "png one bit": encode(modes["1"], "PNG"),
        "png 16 bit": encode(grey16, "PNG"),
        "png interlaced": interlaced_png(40, 27),
        "apng": encode(rgb, "PNG", **frames(rgb)),
        "gif": encode(modes["P"], "GIF", transparency=3),
        "gif animated": encode(rgb, "GIF", **frames(rgb)),
        "webp": encode(rgb, "WEBP", exif=exif),
        "webp alpha": encode(clear, "WEBP"),
        "webp lossless": encode(clear, "WEBP", lossless=True),
        "webp animated": encode(rgb, "WEBP", **frames(rgb)),
        "tiff": encode(rgb, "TIFF", exif=exif),
        "tiff pages": encode(rgb, "TIFF", **frames(rgb)),
        "tiff 16 bit": encode(grey16, "TIFF", compression="tiff_deflate"),
        "tiff cmyk": encode(modes["CMYK"], "TIFF", compression="packbits"),
        "tiff jpeg": encode(rgb, "TIFF", compression="jpeg"),
        "tiff lzw": encode(clear, "TIFF", compression="tiff_lzw"),
        "tiff fax": encode(modes["1"], "TIFF", compression="group4"),
        "ppm": encode(rgb, "PPM"),
        "pgm": encode(modes["L"], "PPM"),
        "pbm": encode(modes["1"], "PPM"),
        **avif_files(rgb, clear, exif),
        "bmp": encode(rgb, "BMP"),
        "bmp palette": encode(modes["P"], "BMP"),
        "bmp runs": runs_bmp(16, 9),
    }


def avif_files(rgb: Image.Image, clear: Image.Image, exif: Image.Exif) -> dict[str, bytes]:
    """Small AVIF pictures, where the installed Pillow writes them."""
    if not reads_avif():
        return {}
    return {
        "avif": encode(rgb, "AVIF", exif=exif, speed=10),
        "avif alpha": encode(clear, "AVIF", subsampling="4:4:4", speed=10),
    }


def frames(image: Image.Image) -> dict[str, object]:
    """Options that save two more frames or pages."""
    return {"save_all": True, "append_images": [image.rotate(90), image.rotate(180)]}


def picture() -> Image.Image:
    """A picture of 40 x 27 pixels with every frequency and no symmetry."""
    y, x, channel = np.ogrid[:27, :40, :3]
    noise = np.random.default_rng(0).integers(0, 60, (27, 40, 3))
    pixels = 5 * x + 3 * y * (channel == 1) + 60 * (channel == 2) + noise
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def encode(image: Image.Image, file_format: str, **options: object) -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    # Copy it: Pillow leaves some options of one format in the image for the next.
    image.copy().save(file, file_format, **options)
    return file.getvalue()


ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
"""First column, first row and steps of each pass of an interlaced PNG."""


def interlaced_png(width: int, height: int) -> bytes:
    """A PNG in Adam7, which Pillow cannot write."""
    rows = bytearray()
    for x, y, across, down in ADAM7:
        row = b"\0" + bytes(range(3)) * len(range(x, width, across))
        rows += row * len(range(y, height, down))
    return png(struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1), zlib.compress(bytes(rows)))


def png(header: bytes, content: bytes) -> bytes:
    """A PNG with this IHDR and IDAT."""
    chunks = ((b"IHDR", header), (b"IDAT", content), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, body) for kind, body in chunks)


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG, with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def runs_bmp(width: int, height: int) -> bytes:
    """A run-length encoded BMP, which Pillow cannot write."""
    palette = bytes(range(256)) * 4
    runs = b"".join(bytes([width, row, 0, 0]) for row in range(height)) + b"\0\2\1\1\0\1"
    start = 54 + len(palette)
    file_header = struct.pack("<2sIHHI", b"BM", start + len(runs), 0, 0, start)
    sizes = (40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 256)
    return file_header + struct.pack("<IiiHHIIiiII", *sizes) + palette + runs


# --- damaging ------------------------------------------------------------------------


def damage(rng: random.Random, data: bytes, donor: bytes) -> bytes:
    """Damage a file in one to three ways; the checksums of a PNG may be corrected."""
    for _ in range(rng.randint(1, 3)):
        data = rng.choice(DAMAGES)(rng, data, donor)
    return mend_png(data) if rng.random() < 0.7 else data


def flip_bytes(rng: random.Random, data: bytes, donor: bytes) -> bytes:
    """Change bytes anywhere, or near the front, where headers are."""
    changed = bytearray(data)
    end = rng.choice((64, 700, len(data)))
    for _ in range(rng.choice((1, 2, 4, 16)) if data else 0):
        position = rng.randrange(min(end, len(data)))
        changed[position] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
    return bytes(changed)


def cut_end(rng: random.Random, data: bytes, donor: bytes) -> bytes:
    """Keep only the front."""
    return data[: rng.randint(0, len(data))]


def cut_middle(rng: random.Random, data: bytes, donor: bytes) -> bytes:
    """Leave out up to 99 bytes."""
    start = rng.randint(0, len(data))
    return data[:start] + data[start + rng.randint(1, 99) :]


def repeat_middle(rng: random.Random, data: bytes, donor: bytes) -> bytes:
    """Repeat some bytes."""
    start = rng.randint(0, len(data))
    end = start + rng.randint(1, 999)
    return data[:end] + data[start:end] * rng.choice((1, 2, 200)) + data[end:]


def splice(rng: random.Random, data: bytes, donor: bytes) -> bytes:
    """Join the front of one file and the end of another."""
    return data[: rng.randint(0, len(data))] + donor[rng.randint(0, len(donor)) :]


def change_signature(rng: random.Random, data: bytes, donor: bytes) -> bytes:
    """Start the file like another format."""
    length = rng.choice((3, 8, 16))
    return donor[:length] + data[length:]


def add_other(rng: random.Random, data: bytes, donor: bytes) -> bytes:
    """Put a zip, a web page or another image before or behind: a file of two kinds."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("a.txt", "a" * 99)
    other = rng.choice((archive.getvalue(), b"<html><script>1</script></html>", donor))
    return rng.choice((data + other, other + data))


def forge_size(rng: random.Random, data: bytes, donor: bytes) -> bytes:
    """Declare another size, if the format has a field for it."""
    changed = bytearray(data)
    sizes = ((65535, 65535), (30000, 30000), (1, 65535), (16383, 9), (0, 0), (300, 200))
    # Within the limit and therefore decoded: rarely, since each takes seconds.
    size = (11000, 9000) if rng.random() < 0.02 else rng.choice(sizes)
    for position, form in size_fields(data):
        if position + struct.calcsize(form) <= len(data):
            struct.pack_into(form, changed, position, *size)
    return bytes(changed)


def size_fields(data: bytes) -> list[tuple[int, str]]:
    """Positions and formats of the fields for width and height."""
    frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    return {
        b"\x89P": [(16, ">II")],
        b"GI": [(6, "<HH")],
        b"BM": [(18, "<ii")],
        b"RI": [(26, "<HH")] if data[12:16] == b"VP8 " else [(24, "<HxH")],
        b"\xff\xd8": [(frame + 5, ">HH")] if frame > 0 else [],
        b"II": [(position, "<I8xI") for position in (data.find(b"\0\1\4\0\1\0\0\0") + 9,)],
    }.get(data[:2], [])


def forge_metadata(rng: random.Random, data: bytes, donor: bytes) -> bytes:
    """Add random EXIF data, a random colour profile or a large text to a JPEG or PNG."""
    rubbish = rng.randbytes(rng.choice((0, 1, 20, 3000)))
    if data[:2] == b"\xff\xd8":
        name = rng.choice(
            (b"Exif\0\0II*\0\x08\0\0\0", b"Exif\0\0MM\0*", b"ICC_PROFILE\0\1\1", b"MPF\0II*\0")
        )
        segment = rng.choice((b"\xff\xe1", b"\xff\xe2")) + struct.pack(
            ">H", len(name + rubbish) + 2
        )
        return data[:2] + segment + name + rubbish + data[2:]
    if data[:4] == b"\x89PNG":
        kind, body = rng.choice(
            ((b"eXIf", rubbish), (b"iCCP", b"a\0\0" + rubbish), (b"tRNS", rubbish))
        )
        bomb = b"a\0\0" + zlib.compress(bytes(3_000_000))
        extra = rng.choice((chunk(kind, body), chunk(b"zTXt", bomb), chunk(b"iCCP", bomb)))
        return data[:33] + extra + data[33:]
    return data


DAMAGES: tuple[Callable[[random.Random, bytes, bytes], bytes], ...] = (
    flip_bytes, flip_bytes, flip_bytes, flip_bytes, cut_end, cut_middle, repeat_middle, splice,
    change_signature, add_other, forge_size, forge_size, forge_metadata,
)  # fmt: skip


def mend_png(data: bytes) -> bytes:
    """Correct the checksums of a PNG, so that damage gets past them."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return data
    mended, position = bytearray(data), 8
    while position + 12 <= len(data):
        end = position + 8 + int.from_bytes(data[position : position + 4], "big")
        if end + 4 > len(data):
            break
        struct.pack_into(">I", mended, end, zlib.crc32(data[position + 4 : end]))
        position = end + 4
    return bytes(mended)


# --- judging -------------------------------------------------------------------------


def judge(data: bytes) -> str:
    """``decoded``, the class of the refusal, or ``wrong: …`` if a contract is broken."""
    try:
        first, second, pillow = outcome_of(data), outcome_of(data), by_pillow(data)
        decode_fast(data)
    except Exception as error:
        return f"wrong: {type(error).__name__}: {error}"
    if first != second:
        return "wrong: decoded again it differs"
    if first != pillow:
        return "wrong: Pillow decides otherwise"
    return "decoded" if isinstance(first, bytes) else reason_class(first)


def outcome_of(data: bytes) -> bytes | str:
    """The pixels, or the reason for the refusal."""
    try:
        pixels = decode_image(data, SIZE)
    except ImageError as refusal:
        reason = str(refusal)
        if not (reason.isprintable() and 0 < len(reason) < 120):
            raise ValueError(f"not a printable reason: {reason!r}") from refusal
        return reason
    if pixels.shape != (*SIZE, 3) or pixels.dtype != np.uint8:
        raise ValueError(f"{pixels.dtype} of shape {pixels.shape}")
    return pixels.tobytes()


def by_pillow(data: bytes) -> bytes | str:
    """The outcome when simplejpeg refuses everything."""
    with mock.patch.object(simplejpeg, "decode_jpeg", side_effect=ValueError):
        return outcome_of(data)


def decode_fast(data: bytes) -> None:
    """Decode at reduced size; only the kind of outcome is checked."""
    try:
        decoded = decode_framed(data, [Framing(3, 4), Framing(*SIZE)], fast=True)
    except ImageError:
        return
    if decoded[Framing(3, 4)].shape != (3, 4, 3) or decoded[Framing(*SIZE)].shape != (*SIZE, 3):
        raise ValueError("wrong shapes at reduced size")


def reason_class(reason: str) -> str:
    """The part of a reason that similar refusals share."""
    return "refused: " + reason.split(" (")[0].split(":")[0]


def is_finding(what: str) -> bool:
    """Whether an input is worth keeping."""
    return not what.startswith(("decoded", "refused")) or "memory" in what


# --- running -------------------------------------------------------------------------


def campaign(inputs: Inputs, numbers: range) -> Iterator[tuple[int, Outcome]]:
    """The outcome of each input; after a crash, a new child process continues behind it."""
    while numbers:
        ours, theirs = multiprocessing.Pipe(duplex=False)
        child = multiprocessing.Process(target=decode_all, args=(theirs, inputs, numbers))
        child.start()
        theirs.close()
        n_done = 0
        for outcome in answers(ours, child):
            yield numbers[n_done], outcome
            n_done += 1
        child.join()
        if n_done < len(numbers):
            yield numbers[n_done], (f"crash: exit code {child.exitcode}", 0.0, 0)
        numbers = numbers[n_done + 1 :]


def answers(ours: Connection, child: multiprocessing.Process) -> Iterator[Outcome]:
    """Outcomes from a child process until it ends, crashes, or is killed for being slow."""
    try:
        while ours.poll(PATIENCE_SECONDS):
            yield ours.recv()
        child.kill()
    except EOFError:
        return


def decode_all(theirs: Connection, inputs: Inputs, numbers: range) -> None:
    """Decode inputs and send the outcome of each."""
    # libtiff writes a complaint about every damaged file to stderr.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    # Libraries reserve address space at their first use.
    decode_image(inputs.drawn[0], SIZE)
    used = _status("VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES,) * 2)
    for number in numbers:
        data = inputs.make(number)
        seconds, taken = measure(data)
        theirs.send((judge(data), seconds, taken))
    theirs.close()


def measure(data: bytes) -> tuple[float, int]:
    """Seconds and peak memory in bytes of one decoding."""
    Path("/proc/self/clear_refs").write_text("5")
    before, started = _status("VmRSS"), time.perf_counter()
    # `judge` looks at errors afterwards.
    with contextlib.suppress(Exception):
        decode_image(data, SIZE)
    return time.perf_counter() - started, max(0, _status("VmHWM") - before)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return 1024 * int(line.split()[1])


def save(folder: Path, inputs: Inputs, number: int) -> None:
    """Save an input, so that it can be decoded again."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"seed{inputs.seed}-{number}.bin").write_bytes(inputs.make(number))


def report(outcomes: dict[int, Outcome], inputs: Inputs, seconds: float) -> None:
    """Print the table."""
    print(f"{len(outcomes)} inputs of seed {inputs.seed} in {seconds:.0f} s, from")
    print(f"{len(inputs.real)} real and {len(inputs.drawn)} generated files")
    for what, count in Counter(what for what, _, _ in outcomes.values()).most_common():
        print(f"{count:8} {what}")
    print(f"{sum(is_finding(what) for what, _, _ in outcomes.values()):8} findings")
    slowest = max(outcomes, key=lambda number: outcomes[number][1])
    largest = max(outcomes, key=lambda number: outcomes[number][2])
    print(f"slowest: input {slowest}, {outcomes[slowest][1]:.2f} s ({outcomes[slowest][0]})")
    print(f"largest: input {largest}, {outcomes[largest][2] / 1e6:.0f} MB ({outcomes[largest][0]})")


if __name__ == "__main__":
    main()
