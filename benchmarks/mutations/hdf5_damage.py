"""Damage to the structure of HDF5 files: feature stores, pixel caches and weights."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from json_damage import bad_value, damage_json_text

from featurepipe.features.store import layout

HUGE = 2**40
_FILTERS: tuple[dict[str, Any], ...] = (
    {"compression": "gzip"}, {"compression": "lzf"}, {"fletcher32": True}, {"scaleoffset": 2},
    {"compression": 32015, "allow_unknown_filter": True},
)  # fmt: skip
MAX_MENDED = 10_000
"""Rows whose checksums are made to fit again."""


def damage_hdf5(rng: random.Random, path: Path, outside: Path) -> str:
    """Damage objects of an HDF5 file in one to three ways; what was done.

    Parameters
    ----------
    rng : random.Random
    path : Path
    outside : Path
        A folder of files that the file must not reach.
    """
    done = []
    with h5py.File(path, "r+") as file:
        is_store = "features" in file and "status" in file
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            damages = _STORE_DAMAGES + _TREE_DAMAGES if is_store else _TREE_DAMAGES
            damage: Callable[[random.Random, h5py.File, Path], str] = rng.choice(damages)
            # What one damage left may be too strange for the next.
            try:
                done.append(damage(rng, file, outside))
            except (OSError, LookupError, RuntimeError, TypeError, ValueError, AttributeError):
                done.append(f"failed: {damage.__name__}")
        if is_store and rng.random() < 0.6:
            done.append(_mend(file))
    return "; ".join(done)


def _mend(file: h5py.File) -> str:
    """Make the checksums fit again, so that damage gets past them."""
    try:
        if len(file["ids"]) > MAX_MENDED:
            return "checksums not mended"
        file.attrs["crc32"] = layout.about_checksum(layout.read_about(file))
        contents = [
            file["reasons"][row] if status == layout.REFUSED else file["features"][row].tobytes()
            for row, status in enumerate(file["status"][:])
        ]
        file["crc32"][:] = layout.checksums(file["ids"][:], file["digests"][:], contents)
    except Exception:
        return "checksums cannot be mended"
    return "checksums mended"


# --- any file -------------------------------------------------------------------------


def _link_object(rng: random.Random, file: h5py.File, outside: Path) -> str:
    """Put a link, or data in another file, in the place of a dataset."""
    name, others = _dataset(rng, file), _datasets(file)
    shape, dtype = file[name].shape, file[name].dtype
    victim, text = str(outside / "victim.h5"), str(outside / "victim.txt")
    kinds = ("soft link", "loop", "dangling", "external link", "external storage",
             "endless storage", "virtual")  # fmt: skip
    kind = rng.choice(kinds)
    del file[name]
    match kind:
        case "soft link":
            file[name] = h5py.SoftLink(f"/{rng.choice(others)}")
        case "loop":
            file[name] = h5py.SoftLink(f"/{name}")
        case "dangling":
            file[name] = h5py.SoftLink("/nowhere")
        case "external link":
            file[name] = h5py.ExternalLink(victim, f"/{rng.choice(('features', 'ids', name))}")
        case "external storage" | "endless storage":
            source = text if kind == "external storage" else "/dev/zero"
            file.create_dataset(name, shape, dtype, external=[(source, 0, h5py.h5f.UNLIMITED)])
        case "virtual":
            plan = h5py.VirtualLayout(shape, dtype)
            plan[...] = h5py.VirtualSource(victim, "features", shape)
            file.create_virtual_dataset(name, plan)
    return f"{name} is now {kind}"


def _change_object(rng: random.Random, file: h5py.File, outside: Path) -> str:
    """Put an object of another kind in the place of a dataset."""
    name = _dataset(rng, file)
    shape, dtype = file[name].shape, file[name].dtype
    kinds = ("group", "texts", "references", "filter", "huge", "empty", "other type", "other type",
             "compound", "named type")  # fmt: skip
    kind = rng.choice(kinds)
    del file[name]
    match kind:
        case "group":
            file.create_group(name)
        case "texts":
            texts = np.full(shape, rng.choice(("", "x", "../x", "\x1b[2J", "x" * 5000)), object)
            file.create_dataset(name, data=texts, dtype=h5py.string_dtype())
        case "references":
            file.create_dataset(name, data=np.full(shape, file.ref, h5py.ref_dtype))
        case "filter":
            file.create_dataset(name, shape, dtype, chunks=True, **rng.choice(_FILTERS))
        case "huge":
            shape = (rng.choice((2**31, HUGE)), *shape[1:])
            file.create_dataset(name, shape, dtype, chunks=True)
        case "empty":
            file.create_dataset(name, data=h5py.Empty(dtype))
        case "other type":
            types = ("f2", "f8", ">f4", "i8", "u1", "c16", "S3", "S999", "?", "V7", "u4")
            file.create_dataset(name, shape, rng.choice(types))
        case "compound":
            file.create_dataset(name, shape, [("a", "f4"), ("b", h5py.string_dtype())])
        case "named type":
            file[name] = np.dtype("f4")
    return f"{name} is now {kind}"


def _change_shape(rng: random.Random, file: h5py.File, outside: Path) -> str:
    name = _dataset(rng, file)
    data = np.atleast_1d(file[name][()])
    data = rng.choice((data[:0], data[:-1], np.concatenate([data, data]), data[None], data.ravel(),
                       data[..., None], data[:1]))  # fmt: skip
    del file[name]
    file[name] = data
    return f"{name} has shape {data.shape}"


def _change_values(rng: random.Random, file: h5py.File, outside: Path) -> str:
    name = _dataset(rng, file)
    data = np.atleast_1d(file[name][()])
    values = (np.nan, np.inf, 3e38, -1.0, 0.0, 1e-40) if data.dtype.kind == "f" else (0, 255, 7)
    if data.dtype.kind == "S":
        values = (b"", b"../../x", b"\x1b[2J", b"\xff\xfe", b"/abs", b"a\0b", b"x")
    data.flat[rng.randrange(data.size) if rng.random() < 0.5 else slice(None)] = rng.choice(values)
    file[name][...] = data.reshape(file[name].shape)
    return f"values of {name}"


def _drop_object(rng: random.Random, file: h5py.File, outside: Path) -> str:
    name = rng.choice(_names(file))
    del file[name]
    return f"{name} dropped"


def _move_object(rng: random.Random, file: h5py.File, outside: Path) -> str:
    name, new = (
        rng.choice(_names(file)),
        rng.choice(("x", "features2", "\x1b[2J", "a/b/c", "x" * 9999)),
    )
    file.move(name, new)
    return f"{name} renamed"


def _add_object(rng: random.Random, file: h5py.File, outside: Path) -> str:
    groups = ["/", *(name for name in _names(file) if isinstance(file[name], h5py.Group))]
    group = file[rng.choice(groups)]
    name = rng.choice(("x", "0", "vars", "layers", "top_level_model_weights", "\x1b[1m"))
    group.create_dataset(name, data=np.zeros(rng.choice((0, 1, 1000))))
    return f"{name} added"


def _change_attribute(rng: random.Random, file: h5py.File, outside: Path) -> str:
    holders = [file, *(file[name] for name in _names(file))]
    holders = [holder for holder in holders if len(holder.attrs)] or [file]
    holder = rng.choice(holders)
    name = rng.choice(list(holder.attrs) or ["x"])
    old = holder.attrs.get(name)
    if isinstance(old, bytes | str) and rng.random() < 0.7:
        text = old.decode() if isinstance(old, bytes) else old
        if text[:1] in "{[":
            text, done = damage_json_text(rng, text, text)
        else:
            text, done = rng.choice((text[:-1], text + "x", "", "\x1b[2J", "ä")), "text"
        holder.attrs[name] = np.bytes_(text.encode(errors="replace")[:60_000])
        return f"attribute {name}: {done}"
    if rng.random() < 0.2:
        del holder.attrs[name]
        return f"attribute {name} dropped"
    new = rng.choice((bad_value(rng), np.zeros(9), np.bytes_(b"\xff\xfe"), h5py.Empty("f4"),
                      file.ref, np.array([b"a", b"../x"]), "variable"))  # fmt: skip
    holder.attrs[name] = new
    return f"attribute {name} is {str(new)[:30]}"


# --- stores ---------------------------------------------------------------------------


def _change_status(rng: random.Random, file: h5py.File, outside: Path) -> str:
    status = file["status"][:]
    status[rng.choice((slice(None), slice(0, 3), slice(5, 6)))] = rng.choice((0, 1, 2, 3, 255))
    file["status"][:] = status
    return "status"


def _change_ids(rng: random.Random, file: h5py.File, outside: Path) -> str:
    ids = file["ids"][:]
    ways = ("same", "reversed", "path", "absolute", "escape", "no text", "empty", "one twice")
    way = rng.choice(ways)
    match way:
        case "same":
            ids[:] = ids[0]
        case "reversed":
            ids = ids[::-1]
        case "one twice":
            ids[3] = ids[2]
        case _:
            new = {"path": b"../outside/a.png", "absolute": b"/etc/passwd",
                   "escape": b"\x1b[2J.png", "no text": b"\xff\xfe\xfd", "empty": b""}  # fmt: skip
            ids[rng.randrange(len(ids))] = new[way]
    file["ids"][:] = ids
    return f"ids: {way}"


def _change_length(rng: random.Random, file: h5py.File, outside: Path) -> str:
    """Give every dataset with one row per image the same other number of rows."""
    n = rng.choice((0, 1, 31, 33, 10**7, 2**31, HUGE))
    for name in ("ids", *layout.ROW_DATASETS):
        old = file[name]
        data, shape, dtype = old[:n], (n, *old.shape[1:]), old.dtype
        del file[name]
        chunks = (max(1, min(n, 4096)), *shape[1:]) if n > 33 else None
        new = file.create_dataset(name, shape, dtype, chunks=chunks)
        new[: len(data)] = data
    return f"{n} rows"


def _change_width(rng: random.Random, file: h5py.File, outside: Path) -> str:
    """Give features and probe another number of columns."""
    n = rng.choice((0, 1, 7, 2**20))
    for name in ("features", "probe"):
        shape, dtype = (len(file[name]), n), file[name].dtype
        del file[name]
        file.create_dataset(name, shape, dtype)
    return f"{n} features"


def _change_times(rng: random.Random, file: h5py.File, outside: Path) -> str:
    name = rng.choice(("size", "mtime", "timing"))
    file[name][...] = (
        rng.choice((-1, 0, 2**62)) if name != "timing" else rng.choice((np.nan, -1, 1e300))
    )
    return name


_TREE_DAMAGES = (_link_object, _link_object, _change_object, _change_object, _change_shape,
                 _change_values, _drop_object, _move_object, _add_object,
                 _change_attribute)  # fmt: skip
_STORE_DAMAGES = (_change_status, _change_ids, _change_length, _change_width, _change_times,
                  _change_attribute)  # fmt: skip


def _names(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visit(names.append)
    return names


def _datasets(file: h5py.File) -> list[str]:
    return [name for name in _names(file) if isinstance(file[name], h5py.Dataset)]


def _dataset(rng: random.Random, file: h5py.File) -> str:
    return rng.choice(_datasets(file))
