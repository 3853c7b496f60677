"""Damage to archives of arrays and networks: `.npz`, `.skops` and `.keras`, which are all zip."""

import functools
import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from forged_code import Canary, forge_config, forge_schema
from hdf5_damage import damage_hdf5
from json_damage import bad_value, damage_json_text

Members = list[tuple[str, bytes]]


def damage_zip(rng: random.Random, path: Path, donor: Path, canary: Path) -> str:
    """Damage the members of an archive, or their list; what was done."""
    members = _members(path)
    if rng.random() < 0.3:
        damage = rng.choice(_LIST_DAMAGES)
        path.write_bytes(_packed(damage(rng, members, _members(donor))))
        return damage.__name__.strip("_").replace("_", " ")
    if rng.random() < 0.07:
        path.write_bytes(_bomb(rng.choice(members)[0]))
        return "a member that becomes 3.5 GB"
    number = rng.randrange(len(members)) if rng.random() < 0.5 else 0
    name, data = members[number]
    new, done = _damage_member(rng, name, data, _members(donor), canary)
    members[number] = (name, new)
    path.write_bytes(_packed(members))
    return f"{name}: {done}"


def _damage_member(
    rng: random.Random, name: str, data: bytes, donor: Members, canary: Path
) -> tuple[bytes, str]:
    if name.endswith(".npy"):
        return _damage_array(rng, data, canary)
    if name.endswith(".json"):
        if name == "schema.json" and rng.random() < 0.3:
            return forge_schema(rng, data, canary)
        if name == "config.json" and rng.random() < 0.3:
            return forge_config(rng, data, canary)
        other = next((text for key, text in donor if key == name), data)
        text, done = damage_json_text(rng, data.decode(), other.decode())
        return text.encode(errors="surrogatepass"), done
    file = canary.with_name("member.h5")
    file.write_bytes(data)
    done = damage_hdf5(rng, file, canary.parent / "place" / "outside")
    return file.read_bytes(), done


def _damage_array(rng: random.Random, data: bytes, canary: Path) -> tuple[bytes, str]:
    if rng.random() < 0.15:
        return _forge_header(rng, data)
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except ValueError:
        return data, "nothing"
    damage: Callable[[random.Random, Any, Path], Any] = rng.choice(_ARRAY_DAMAGES)
    file = io.BytesIO()
    with np.errstate(all="ignore"):
        np.save(file, damage(rng, array, canary), allow_pickle=True)
    return file.getvalue(), damage.__name__.strip("_").replace("_", " ")


def _forge_header(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    """Another shape or type in the header than that of the content."""
    shape = rng.choice(
        ("(10000000000,)", "(-1,)", "(2, 99999999)", "()", "(0,)", "(1,)*9", "(1.5,)")
    )
    dtype = rng.choice(
        ("<f8", "<U19", "|O", "<U999999999", "|V0", "[('a', '<f8')]", ">i2", "<M8[s]")
    )
    quoted = dtype if dtype.startswith("[") else repr(dtype)
    text = f"{{'descr': {quoted}, 'fortran_order': False, 'shape': {shape}, }}\n"
    body = data[10 + int.from_bytes(data[8:10], "little") :]
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + body, text.strip()


def _other_type(rng: random.Random, array: Any, canary: Path) -> Any:
    types = ("f4", "f2", "i1", "u8", "c16", "U3", "S3", "?", "U19", "M8[s]", ">f8", "i8", "f8")
    try:
        return array.astype(rng.choice(types))
    except (ValueError, TypeError, OverflowError):
        return np.zeros(array.shape, "c16")


def _other_shape(rng: random.Random, array: Any, canary: Path) -> Any:
    ways = (array[None], array.ravel(), array[..., None], array.T, np.array([array, array]))
    return rng.choice(ways)


def _other_length(rng: random.Random, array: Any, canary: Path) -> Any:
    flat = np.atleast_1d(array)
    return rng.choice((flat[:0], flat[:-1], flat[:1], np.concatenate([flat, flat])))


def _equal_values(rng: random.Random, array: Any, canary: Path) -> Any:
    changed = np.atleast_1d(array.copy())
    changed[...] = changed[:1]
    return changed.reshape(array.shape)


def _extreme_values(rng: random.Random, array: Any, canary: Path) -> Any:
    changed = np.atleast_1d(array.copy())
    if not changed.size:
        return changed
    number, kind = rng.randrange(changed.size), changed.dtype.kind
    if kind == "U":
        new: Any = rng.choice(("", "../../x", "\x1b[2J", "x", "\ud800"[:0]))
    elif kind == "f":
        new = rng.choice((np.nan, np.inf, -np.inf, 1e300, -1.0, 2.0))
    else:
        new = rng.choice((0, 1, -1, 2**31 - 1, -(2**31), 7))
    try:
        changed.flat[slice(None) if rng.random() < 0.3 else number] = new
    except (OverflowError, ValueError, TypeError):
        changed.flat[number] = changed.flat[0]
    return changed.reshape(array.shape)


def _shuffled(rng: random.Random, array: Any, canary: Path) -> Any:
    return np.random.default_rng(rng.randrange(99)).permutation(np.atleast_1d(array))


def _pickled(rng: random.Random, array: Any, canary: Path) -> Any:
    objects = np.empty(np.atleast_1d(array).shape, object)
    objects.flat[:] = Canary(canary)
    return objects


def _text(rng: random.Random, array: Any, canary: Path) -> Any:
    return np.full(
        array.shape, rng.choice(("", "../x", "\x1b[31mred", "x" * 9999, "per-attribute"))
    )


_ARRAY_DAMAGES = (_other_type, _other_type, _other_shape, _other_length, _equal_values,
                  _extreme_values, _extreme_values, _shuffled, _pickled, _text)  # fmt: skip


# --- the list of members --------------------------------------------------------------


def _drop_member(rng: random.Random, members: Members, donor: Members) -> Members:
    dropped = rng.randrange(len(members))
    return members[:dropped] + members[dropped + 1 :]


def _double_member(rng: random.Random, members: Members, donor: Members) -> Members:
    return [*members, (rng.choice(members)[0], rng.choice(donor)[1])]


def _rename_member(rng: random.Random, members: Members, donor: Members) -> Members:
    number = rng.randrange(len(members))
    name = members[number][0]
    names = (f"../{name}", f"/tmp/{name}", f"../../outside/{name}", name + "\0", "", name.upper(),
             "x" * 60_000, "\x1b[2J", f"sub/{name}", rng.choice(members)[0])  # fmt: skip
    renamed = (rng.choice(names), members[number][1])
    return [*members[:number], renamed, *members[number + 1 :]]


def _swap_members(rng: random.Random, members: Members, donor: Members) -> Members:
    (one, data), (other, content) = rng.choice(members), rng.choice(members)
    swapped = {one: content, other: data}
    return [(name, swapped.get(name, kept)) for name, kept in members]


def _add_member(rng: random.Random, members: Members, donor: Members) -> Members:
    value = json.dumps(bad_value(rng)).encode()[:1000]
    return [*members, (rng.choice(("new.npy", "../../outside/new.txt", "schema.json")), value)]


def _take_member(rng: random.Random, members: Members, donor: Members) -> Members:
    number, given = rng.randrange(len(members)), rng.choice(donor)
    return [*members[:number], (members[number][0], given[1]), *members[number + 1 :]]


_LIST_DAMAGES = (_drop_member, _double_member, _rename_member, _swap_members, _add_member,
                 _take_member)  # fmt: skip


def _members(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def _packed(members: Members) -> bytes:
    """The archive; names may repeat and may be bad."""
    packed = []
    for name, data in members:
        squeezer = zlib.compressobj(1, zlib.DEFLATED, -15)
        squeezed = squeezer.compress(data) + squeezer.flush()
        packed.append((name, squeezed, zlib.crc32(data), len(data)))
    return _zip(packed)


def _zip(packed: list[tuple[str, bytes, int, int]]) -> bytes:
    """A zip file of members that are compressed already: name, data, CRC-32 and full size."""
    front, back = bytearray(), bytearray()
    for name, data, crc, size in packed:
        raw = name.encode(errors="replace")
        fields = struct.pack("<HHHHHIIIHH", 20, 2048, 8, 0, 33, crc, len(data), size, len(raw), 0)
        back += (
            b"PK\1\2"
            + struct.pack("<H", 20)
            + fields
            + struct.pack("<HHHII", 0, 0, 0, 0, len(front))
        )
        back += raw
        front += b"PK\3\4" + fields + raw + data
    n = len(packed)
    end = struct.pack("<HHHHIIH", 0, 0, n, n, len(back), len(front), 0)
    return bytes(front + back) + b"PK\5\6" + end


@functools.cache
def _zeros() -> tuple[bytes, int, int]:
    """3.5 GB of zeros behind the header of an array: compressed, with CRC-32 and size."""
    n_blocks, block = 3500, bytes(1_000_000)
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<f8", "fortran_order": False, "shape": (n_blocks * len(block) // 8,)}
    )
    header = file.getvalue()
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = squeezer.compress(header) + squeezer.flush(zlib.Z_FULL_FLUSH)
    squeezed = squeezer.compress(block) + squeezer.flush(zlib.Z_FULL_FLUSH)
    crc = zlib.crc32(header)
    for _ in range(n_blocks):
        crc = zlib.crc32(block, crc)
    return start + squeezed * n_blocks + squeezer.flush(), crc, len(header) + n_blocks * len(block)


def _bomb(name: str) -> bytes:
    return _zip([(name, *_zeros())])
