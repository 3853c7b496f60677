"""Opening the file of a store, if it may be read and its structure is sound."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import h5py
import numpy as np

from featurepipe.errors import NotWritableError, StoreDamagedError, StoreError
from featurepipe.features.store.key import StoreKey, made_by_damage
from featurepipe.features.store.layout import (
    FORMAT,
    H5PY_ERRORS,
    ROW_DATASETS,
    about_checksum,
    expected_datasets,
    features_dtype,
    read_about,
    read_text,
)
from featurepipe.files import require_readable
from featurepipe.hdf5 import foreign_part

_Value = TypeVar("_Value")


def open_checked(path: Path) -> h5py.File:
    """Open the file of a store whose structure is sound for reading; rows are not checked.

    Parameters
    ----------
    path : Path

    Raises
    ------
    StoreDamagedError
        If the file is truncated, overwritten, or damaged in its structure.
    StoreError
        If it is missing, may not be read, or is no feature store of this version.
    """
    require_access(path)
    if not h5py.is_hdf5(path):
        raise StoreDamagedError(path, "it is not an HDF5 file, or its beginning is lost")
    try:
        file = h5py.File(path, locking=False)
    except H5PY_ERRORS as error:
        is_cut = "truncated" in str(error)
        damage = "its end is missing (truncated)" if is_cut else f"it cannot be read ({error})"
        raise StoreDamagedError(path, damage) from error
    try:
        _require_layout(file, path)
    except BaseException:
        file.close()
        raise
    return file


def require_access(path: Path, *, writable: bool = False) -> None:
    """Stop unless the operating system lets this process open the file.

    Raises
    ------
    StoreError
        If the file is missing or may not be read.
    NotReadableError
        If it is no regular file.
    NotWritableError
        If it may not be written to, or is a link.
    """
    if not path.exists():
        raise StoreError(f"There is no feature store {path}. Make one: featurepipe extract")
    require_readable(path)
    if writable and path.is_symlink():
        raise NotWritableError(
            f"{path} is a link to {path.resolve()}, and featurepipe writes to no file outside of "
            "its workspace. Replace the link by a copy of the file, or give another --workspace."
        )
    try:
        path.open("r+b" if writable else "rb").close()
    except OSError as error:
        reason = error.strerror or error
        if writable:
            raise NotWritableError(
                f"{path} cannot be written to ({reason}). Change its permissions, or give a "
                "folder of yours with --workspace."
            ) from error
        raise StoreError(
            f"{path} cannot be opened ({reason}). The file itself may be sound: change its "
            "permissions, or check the disk."
        ) from error


def is_in_file(file: h5py.File, name: str) -> bool:
    """Whether a file has a place for every byte of a dataset, which for ids is no hole.

    Parameters
    ----------
    file : h5py.File
    name : str
    """
    dataset = file[name]
    start, n_bytes = dataset.id.get_offset(), dataset.nbytes
    if start is None or start + n_bytes > file.id.get_filesize():
        return False
    if name != "ids" or not hasattr(os, "SEEK_HOLE"):
        return True
    # Ids are no zeros. So a small file of holes cannot claim any number of images.
    with Path(file.filename).open("rb") as raw:
        return os.lseek(raw.fileno(), start, os.SEEK_HOLE) >= start + n_bytes


def _require_layout(file: h5py.File, path: Path) -> None:
    require_own_content(file, path)
    if not _read(path, lambda: np.array_equal(file.attrs.get("format"), FORMAT.encode())):
        raise StoreError(
            f"{path} is HDF5 but no feature store of this version of featurepipe (expected the "
            f"format {FORMAT!r}). Move it away and extract again, or name another file."
        )
    checksums = _read(path, lambda: (about_checksum(read_about(file)), file.attrs["crc32"]))
    if not np.array_equal(*checksums):
        raise StoreDamagedError(
            path, "the attributes that say how it was made do not match their checksum"
        )
    key = StoreKey.from_json(read_text(file, "key"), str(path))
    damage = made_by_damage(read_text(file, "made_by")) or _read(
        path, lambda: _dataset_damage(file, key)
    )
    if damage:
        raise StoreDamagedError(path, damage)


def require_own_content(file: h5py.File, path: Path) -> None:
    """Stop if a file refers to others, or holds what no feature store holds.

    Parameters
    ----------
    file : h5py.File
    path : Path
        What to call it.

    Raises
    ------
    StoreDamagedError
        If it is damaged in its structure.
    StoreError
        If it is no feature store.
    """
    foreign = _read(path, lambda: foreign_part(file, plain=True))
    if foreign:
        raise StoreError(
            f"{path} was not written by featurepipe: {foreign}. Nothing was read or written. Move "
            "it away and extract again."
        )


def _read(path: Path, look: Callable[[], _Value]) -> _Value:
    """What one look into the file gives; h5py's errors mean that the structure is damaged."""
    try:
        return look()
    except H5PY_ERRORS as error:
        raise StoreDamagedError(path, f"it cannot be read ({error})") from error


def _dataset_damage(file: h5py.File, key: StoreKey) -> str:
    lengths = {
        name: file[name].shape[0] if name in file else None for name in ("ids", *ROW_DATASETS)
    }
    if len(set(lengths.values())) != 1:
        return f"its datasets have unequal lengths {lengths}"
    n_features = int(file["features"].shape[1])
    if n_features == 0 or (key.precision == "uint8" and n_features != 3 * key.size_px**2):
        return f"it has {n_features} features for each image"
    probe_shape = (len(file["probe"]), n_features)
    expected = expected_datasets(
        len(file["ids"]), file["ids"].dtype.itemsize, probe_shape, features_dtype(key.precision)
    )
    for name, wanted in expected.items():
        dataset = file[name]
        actual = (dataset.shape, dataset.dtype)
        if actual != wanted:
            return f"{name} is of shape and type {actual}, expected {wanted}"
        if dataset.size and not is_in_file(file, name):
            return f"the file is too small for its {name} of shape {dataset.shape}"
    return ""
