"""Zip files of arrays (npz, skops): checked before any array is read."""

import math
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

MAX_BYTES = 4 * 10**9
"""Largest file of arrays that is read."""

MAX_UNPACKED_BYTES = 10**9
"""Most bytes that the arrays of any file may unpack to."""

MAX_RATIO = 50
"""A larger file may unpack to so many times its size. Scores hardly shrink, and they are most of
a large file."""

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_TYPES = {"U": ("text",), "b": ("bool",), "i": ("int64",), "f": ("float64", "float32")}
_SURROGATES = range(0xD800, 0xE000)
_N_CHARACTERS = 0x110000


def require_sound_archive(path: Path, others: Collection[str] = ()) -> None:
    """Stop if reading the arrays of a zip file could execute something or fill the memory.

    Parameters
    ----------
    path : Path
    others : collection of str
        Members that may be there and are no arrays.

    Raises
    ------
    ValueError
        If members have the same name, unpack to too many bytes, are compressed by an unusual
        method or are no arrays; or if the header of an array does not match its size, or names
        Python objects.
    zipfile.BadZipFile, OSError
        If it is no zip file, or cannot be read.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        names = [member.filename for member in members]
        if len(set(names)) < len(names):
            raise ValueError("several members have the same name")
        n_bytes = sum(member.file_size for member in members)
        if n_bytes > max(MAX_UNPACKED_BYTES, MAX_RATIO * path.stat().st_size):
            raise ValueError(f"it would unpack to {n_bytes / 1e6:,.0f} MB")
        for member in members:
            if member.compress_type not in _METHODS:
                raise ValueError(f"{member.filename} has the compression {member.compress_type}")
            if member.filename in others:
                continue
            if not member.filename.endswith(".npy"):
                raise ValueError(f"{member.filename} is no array")
            with archive.open(member) as file:
                _require_sound_header(file, member)


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read all arrays of an ``.npz`` file that is sound.

    Parameters
    ----------
    path : Path

    Raises
    ------
    ValueError, zipfile.BadZipFile, OSError
        As `require_sound_archive`.
    """
    require_sound_archive(path)
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def require_array(
    arrays: Mapping[str, NDArray[Any]], name: str, kind: str, *shape: int | None
) -> NDArray[Any]:
    """An array of a file, of the type and shape that is expected.

    Parameters
    ----------
    arrays : mapping of str to ndarray
    name : str
    kind : str
        ``"U"`` text, ``"b"`` bool, ``"i"`` int64, ``"f"`` float64 or float32 from 0 to 1.
    *shape : int or None
        None: any length.

    Raises
    ------
    ValueError
        If there is no such array, it is of another type or shape, its text is not valid
        Unicode, or its numbers are not all from 0 to 1.
    """
    if name not in arrays:
        raise ValueError(f"it has no {name}")
    array = arrays[name]
    is_of_type = array.dtype.kind == kind and (kind == "U" or array.dtype in _TYPES[kind])
    is_of_shape = array.ndim == len(shape) and all(
        wanted in (None, n) for n, wanted in zip(array.shape, shape, strict=True)
    )
    if not is_of_type or not array.dtype.isnative or not is_of_shape:
        lengths = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(
            f"{name} is {array.dtype} of shape {array.shape}, expected {_TYPES[kind][0]} of shape "
            f"({lengths})"
        )
    if kind == "U":
        codes = np.ascontiguousarray(array).reshape(-1).view(np.uint32)
        if ((codes >= _SURROGATES.start) & (codes < _SURROGATES.stop)).any() or (
            codes >= _N_CHARACTERS
        ).any():
            raise ValueError(f"{name} has text that is not Unicode")
    # Rounding may lift a probability a little above 1; NaN is neither.
    if kind == "f" and not (array.min(initial=0) >= 0 and array.max(initial=1) <= 1 + 1e-6):
        raise ValueError(f"{name} has values that are not from 0 to 1")
    return array


def require_distinct(name: str, texts: NDArray[np.str_]) -> None:
    """Stop if a text is there twice.

    Parameters
    ----------
    name : str
        What the texts are, for the error.
    texts : ndarray of shape (n,), str

    Raises
    ------
    ValueError
        Names the first such text.
    """
    values, counts = np.unique(texts, return_counts=True)
    if len(values) < len(texts):
        raise ValueError(f"{name} has {str(values[counts.argmax()])!r} twice")


def _require_sound_header(file: IO[bytes], member: zipfile.ZipInfo) -> None:
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise ValueError(f"{member.filename} is of the version {version}")
    shape, _, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError(f"{member.filename} holds Python objects")
    # Any number of items without a size would fit.
    if not dtype.itemsize or file.tell() + math.prod(shape) * dtype.itemsize != member.file_size:
        raise ValueError(f"{member.filename} is not as large as its shape says")
