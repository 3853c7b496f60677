"""What is left of a damaged store."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from featurepipe.errors import StoreError
from featurepipe.features.store.layout import H5PY_ERRORS, ROW_DATASETS, copy_rows, lay_out_alike
from featurepipe.features.store.store import FeatureStore
from featurepipe.files import PART_SUFFIX, disk_full_named

# Where a superblock of each version holds the size that the file should have.
_SIZE_OFFSETS = {0: 40, 1: 44, 2: 28, 3: 28}


@contextmanager
def open_damaged(path: Path) -> Iterator[FeatureStore]:
    """Open what is left of a store that `FeatureStore.open` may refuse.

    In a truncated file zeros stand for the lost end, and datasets of unequal
    lengths are read as far as the shortest; `FeatureStore.damaged_rows` tells
    which rows are still sound.

    Parameters
    ----------
    path : Path
        The store; it is not changed.

    Yields
    ------
    FeatureStore
        For reading. If the file's structure is damaged it is a mended copy, with
        a `path` of its own, that is gone afterwards.

    Raises
    ------
    StoreError
        If too little is left to read.
    """
    try:
        with (
            disk_full_named(path),
            tempfile.TemporaryDirectory(
                prefix=f".{path.name}.", suffix=PART_SUFFIX, dir=path.parent
            ) as folder,
            _open_left(path, folder) as store,
        ):
            yield store
    except H5PY_ERRORS as error:
        raise _beyond_repair(path) from error


def _open_left(path: Path, folder: str) -> FeatureStore:
    try:
        return FeatureStore.open(_of_equal_lengths(_of_full_size(path, folder), folder))
    except StoreError as error:
        raise _beyond_repair(path) from error


def _beyond_repair(path: Path) -> StoreError:
    return StoreError(
        f"{path} cannot be repaired: too little of it is left, or it is no feature store of this "
        "version of featurepipe. If it was one, delete it and extract again."
    )


def _of_full_size(path: Path, folder: str) -> Path:
    """A copy with zeros for the lost end; the file itself if it is as long as it says."""
    with path.open("rb") as file:
        start = file.read(64)
    if len(start) < 64 or not h5py.is_hdf5(path):
        return path
    offset = _SIZE_OFFSETS[start[8]]
    recorded = int.from_bytes(start[offset : offset + 8], "little")
    if path.stat().st_size >= recorded:
        return path
    whole = Path(folder) / f"whole-{path.name}"
    shutil.copyfile(path, whole)
    os.truncate(whole, recorded)
    return whole


def _of_equal_lengths(path: Path, folder: str) -> Path:
    """A copy of as many rows as every dataset has; the file itself if all have as many."""
    with h5py.File(path, "r", locking=False) as old:
        lengths = [len(old[name]) for name in ("ids", *ROW_DATASETS)]
        n_images = min(lengths)
        if n_images == max(lengths):
            return path
        ids = [raw.decode(errors="replace") for raw in old["ids"][:n_images]]
        even, rows = Path(folder) / f"even-{path.name}", np.arange(n_images)
        with h5py.File(even, "w") as new:
            lay_out_alike(old, new, ids)
            copy_rows(old, new, rows, rows)
    return even
