"""Packing: the rows of several stores of one key, in one new file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featurepipe.errors import StoreDamagedError, StoreMismatchError
from featurepipe.features.store.layout import (
    DONE,
    PENDING,
    Rows,
    copy_rows,
    lay_out_alike,
    require_room,
)
from featurepipe.features.store.store import FeatureStore
from featurepipe.features.store.writing import WritableHDF5
from featurepipe.files import only_writer, replacing
from featurepipe.words import counted


@dataclass(frozen=True)
class ChosenRows:
    """Which row each image of a packed store comes from.

    Attributes
    ----------
    ids : list of str
        Sorted, each once.
    rows : list of ndarray of int
        For each store the rows that are taken from it.
    n_pending : int
        Images that are pending in all stores that have them; they are left out.
    """

    ids: list[str]
    rows: list[Rows]
    n_pending: int


def choose_rows(stores: Sequence[FeatureStore]) -> ChosenRows:
    """Take each image from the first store that has its features, else from one that refused it.

    Parameters
    ----------
    stores : sequence of FeatureStore

    Raises
    ------
    StoreMismatchError
        If the stores were made with different options, or have features of different images by
        one name.
    StoreDamagedError
        If a row of a store is damaged.
    """
    taken: dict[str, tuple[int, int]] = {}
    is_done: dict[str, bytes] = {}
    pending: set[str] = set()
    for number, store in enumerate(stores):
        store.require_key(stores[0].key)
        if len(damaged := store.damaged_rows()):
            raise StoreDamagedError(
                store.path, f"{counted(damaged, 'row')} did not match the checksum"
            )
        for row, (image, status, digest) in enumerate(
            zip(store.ids, store.status, store.digests, strict=True)
        ):
            if status == PENDING:
                pending.add(image)
            elif status == DONE and image not in is_done:
                is_done[image], taken[image] = digest.tobytes(), (number, row)
            elif status == DONE and is_done[image] != digest.tobytes():
                first = stores[taken[image][0]].path
                raise StoreMismatchError(
                    f"{first} and {store.path} have features of different images by the name "
                    f"{image!r}. Extract both folders into one workspace instead."
                )
            else:
                taken.setdefault(image, (number, row))
    rows = [
        np.sort(np.array([row for of, row in taken.values() if of == number], np.intp))
        for number in range(len(stores))
    ]
    return ChosenRows(sorted(taken), rows, len(pending - set(taken)))


def write_packed(stores: Sequence[FeatureStore], chosen: ChosenRows, path: Path) -> None:
    """Write a store with the chosen rows, completely or not at all.

    Parameters
    ----------
    stores : sequence of FeatureStore
        What made the first is recorded.
    chosen : ChosenRows
    path : Path

    Raises
    ------
    DiskFullError
        If the disk has no room for it.
    LockedError
        If another process is writing to the path.
    """
    require_room(path, stores[0].room_needed(len(chosen.ids)))
    path.parent.mkdir(parents=True, exist_ok=True)
    place = {image: row for row, image in enumerate(chosen.ids)}
    with only_writer(path), replacing(path) as beside, WritableHDF5(beside, "w") as file:
        lay_out_alike(stores[0]._file, file, chosen.ids)
        file["timing"][:] = np.sum([store._timing for store in stores], axis=0)
        for store, rows in zip(stores, chosen.rows, strict=True):
            targets = np.array([place[image] for image in store.ids[rows]], np.intp)
            order = np.argsort(targets)
            copy_rows(store._file, file, rows[order], targets[order])
