"""A store written anew: with more images, or with only some of its rows."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from featurepipe.errors import StoreError
from featurepipe.features.store.layout import Rows, copy_rows, lay_out_alike, require_room
from featurepipe.features.store.store import FeatureStore
from featurepipe.files import only_writer, replacing


def grow(path: Path, ids: Sequence[str]) -> None:
    """Give a store pending rows for images that it does not hold yet.

    A larger file is written beside with the rows of the old one and replaces
    it once complete.

    Parameters
    ----------
    path : Path
        The store.
    ids : sequence of str
        Image ids; those that it holds already keep their rows, and rows of
        other images stay too.
    """
    with only_writer(path), FeatureStore.open(path) as old:
        if len(set(old.ids)) < len(old):
            raise StoreError(
                f"{path} is damaged: it holds an image twice. Save what is sound: featurepipe "
                f"repair {path}"
            )
        united = sorted({*old.ids, *ids})
        if len(united) > len(old):
            rewrite(old, path, united, np.arange(len(old)))


def rewrite(old: FeatureStore, path: Path, ids: Sequence[str], rows: Rows) -> None:
    """Write a store anew with some of its rows; those of all other ids are pending.

    Parameters
    ----------
    old : FeatureStore
        Where the rows are; it may be the file that is replaced.
    path : Path
        What is replaced once the new file is complete.
    ids : sequence of str
        Image ids of the new file, sorted, each once.
    rows : ndarray of int
        Positions in `old` of the rows to keep; their ids are among `ids`.
    """
    n_rows = len(ids) + len(old.probe)
    require_room(path, n_rows, old.n_features * old.dtype.itemsize)
    targets = np.searchsorted(ids, old.ids[rows].astype(str))
    # HDF5 writes rows in their order only, and damaged ids are in none.
    order = np.argsort(targets)
    with replacing(path) as beside, h5py.File(beside, "w") as file:
        lay_out_alike(old._file, file, ids)
        copy_rows(old._file, file, rows[order], targets[order])
