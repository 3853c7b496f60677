"""Damage to the bytes of any file, and other things in the place of a file."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

Bytes = Callable[[random.Random, bytes, bytes], bytes]


def damage_bytes(rng: random.Random, path: Path, donor: Path) -> str:
    """Damage the bytes of a file in one to three ways; what was done."""
    data, other = path.read_bytes(), donor.read_bytes()
    done = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        damage = rng.choice(BYTE_DAMAGES)
        data = damage(rng, data, other)
        done.append(damage.__name__)
    path.write_bytes(data)
    return ", ".join(done)


def flip_bits(rng: random.Random, data: bytes, donor: bytes) -> bytes:
    """Flip bits anywhere, near the front or near the end."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 4, 16)) if data else 0):
        changed[_position(rng, data)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwrite(rng: random.Random, data: bytes, donor: bytes) -> bytes:
    """Overwrite up to 64 bytes with others, or with extreme numbers."""
    start, n = _position(rng, data), rng.choice((1, 2, 4, 8, 64))
    new = rng.choice((rng.randbytes(n), b"\xff" * n, b"\x7f" * n, b"\0" * n, b"9" * n))
    return data[:start] + new + data[start + n :]


def insert(rng: random.Random, data: bytes, donor: bytes) -> bytes:
    """Insert random bytes."""
    start = _position(rng, data)
    return data[:start] + rng.randbytes(rng.choice((1, 7, 100, 5000))) + data[start:]


def delete(rng: random.Random, data: bytes, donor: bytes) -> bytes:
    """Delete some bytes."""
    start = _position(rng, data)
    return data[:start] + data[start + rng.choice((1, 3, 64, 3000)) :]


def truncate(rng: random.Random, data: bytes, donor: bytes) -> bytes:
    """Keep only the front."""
    return data[: rng.choice((rng.randint(0, len(data)), max(0, len(data) - rng.randint(1, 99))))]


def duplicate(rng: random.Random, data: bytes, donor: bytes) -> bytes:
    """Repeat a block."""
    start = _position(rng, data)
    block = data[start : start + rng.choice((8, 100, 4096))]
    return data[:start] + block * rng.choice((2, 3, 100)) + data[start + len(block) :]


def splice(rng: random.Random, data: bytes, donor: bytes) -> bytes:
    """Join the front of one file and the end of another of its kind."""
    cut = _position(rng, data)
    return data[:cut] + donor[rng.choice((cut, _position(rng, donor))) :]


def fill_with_zeros(rng: random.Random, data: bytes, donor: bytes) -> bytes:
    """Fill a block, or all that follows, with zeros."""
    start = _position(rng, data)
    n = min(len(data) - start, rng.choice((16, 512, 4096, len(data))))
    return data[:start] + bytes(n) + data[start + n :]


BYTE_DAMAGES: tuple[Bytes, ...] = (
    flip_bits, flip_bits, flip_bits, overwrite, overwrite, insert, delete, truncate, duplicate,
    splice, fill_with_zeros,
)  # fmt: skip


def _position(rng: random.Random, data: bytes) -> int:
    """Any position; headers at the front and directories at the end come up more often."""
    ends = (len(data), min(200, len(data)), min(2500, len(data)))
    position = rng.randrange(max(1, rng.choice(ends)))
    return max(0, len(data) - 1 - position) if rng.random() < 0.25 else position


# --- other things in the place of a file ----------------------------------------------


def replace_file(rng: random.Random, path: Path, outside: Path) -> str:
    """Put something else in the place of a file; what it is."""
    names = ("nothing", "empty", "folder", "full folder", "pipe", "endless", "link", "dangling",
             "loop", "huge", "unreadable", "other kind")  # fmt: skip
    what, data = rng.choice(names), path.read_bytes()
    path.unlink()
    match what:
        case "empty":
            path.touch()
        case "folder":
            path.mkdir()
        case "full folder":
            (path / "sub").mkdir(parents=True)
            (path / "sub" / "file.txt").write_text("text")
        case "pipe":
            os.mkfifo(path)
        case "endless":
            path.symlink_to("/dev/zero")
        case "link":
            (outside / path.name).write_bytes(data)
            path.symlink_to(outside / path.name)
        case "dangling":
            path.symlink_to(outside / "nowhere" / path.name)
        case "loop":
            path.symlink_to(path.name)
        case "huge":
            with path.open("wb") as file:
                file.write(data)
                file.truncate(rng.choice((2**31, 2**36, 2**40)))
        case "unreadable":
            path.write_bytes(data)
            path.chmod(0)
        case "other kind":
            shutil.copyfile(rng.choice(sorted(outside.glob("*.*"))), path)
    return f"replaced by {what}"
