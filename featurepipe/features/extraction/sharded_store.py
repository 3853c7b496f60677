"""ShardedStore: a store of shards as the driver of an extraction sees it, and its tasks."""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import StoreError
from featurepipe.features.extraction.shard_worker import ShardTask
from featurepipe.features.store import SHARDS_FILE, FeatureStore, StoreKey
from featurepipe.features.store.shards import Shard, read_shards, shard_damage, write_shards
from featurepipe.words import counted, one_line

_SECONDS_BETWEEN_LISTINGS = 2.0
_OWN_FILE = re.compile(r"\d{6,}-[0-9a-f]{8}\.h5")

Runs = tuple[tuple[int, int], ...]


@dataclass
class ShardedStore:
    """The sound shards of a store; `add` takes those that are made.

    Attributes
    ----------
    folder : Path
    key : StoreKey or None
        Of the store, if it exists.
    shards : list of Shard
        In the order of their rows.
    ids : dict of str to ndarray of str objects
        Image ids by shard.
    probe : ndarray of shape (N_PROBES, n_features) or None
        Features of the generated pictures, if a shard is sound.
    damage : dict of str to str
        What is wrong with the other shards.
    """

    folder: Path
    key: StoreKey | None = None
    shards: list[Shard] = field(default_factory=list)
    ids: dict[str, NDArray[np.object_]] = field(default_factory=dict)
    probe: NDArray[np.float32] | None = None
    damage: dict[str, str] = field(default_factory=dict)
    _listed_last: float = 0.0

    @classmethod
    def look(cls, folder: Path) -> "ShardedStore":
        """Look at every shard; nothing is changed.

        Parameters
        ----------
        folder : Path

        Raises
        ------
        StoreError
            If the list of shards is damaged.
        """
        store = cls(folder)
        if not (folder / SHARDS_FILE).exists():
            return store
        store.key, listed = read_shards(folder)
        for shard in listed:
            damage = shard_damage(folder, shard)
            if not damage:
                damage = store._look_inside(shard)
            if damage:
                store.damage[shard.file] = damage
            else:
                store.shards.append(shard)
        return store

    def _look_inside(self, shard: Shard) -> str:
        path = self.folder / shard.file
        try:
            if Shard.of(path) != shard:
                return f"it is not the file that {SHARDS_FILE} lists"
            with FeatureStore.open(path) as store:
                if store.key != self.key:
                    return "it was made with other options"
                self.ids[shard.file] = store.ids
                self.probe = store.probe if self.probe is None else self.probe
        except StoreError as error:
            return one_line(error)
        return ""

    @property
    def next_number(self) -> int:
        """The lowest number that no shard had."""
        names = [*self.ids, *self.damage]
        return max((int(name.partition("-")[0]) + 1 for name in names), default=0)

    def add(self, old: str | None, shard: Shard) -> None:
        """Take a shard that was made; it replaces the old file of its rows.

        Parameters
        ----------
        old : str or None
        shard : Shard
        """
        at = next((k for k, known in enumerate(self.shards) if known.file == old), None)
        if at is None:
            self.shards.append(shard)
        else:
            self.shards[at] = shard
        if time.monotonic() - self._listed_last > _SECONDS_BETWEEN_LISTINGS:
            self.save()

    def save(self) -> None:
        """List the shards."""
        if self.key is not None and self.shards:
            self.shards.sort(key=lambda shard: shard.file)
            write_shards(self.folder, self.key, self.shards)
            self._listed_last = time.monotonic()

    def remove_leftovers(self) -> None:
        """Remove unfinished files, and shards that another one replaced."""
        listed = {shard.file for shard in self.shards}
        for path in self.folder.iterdir():
            is_own = _OWN_FILE.fullmatch(path.name) or path.name.startswith(".")
            if is_own and path.name not in listed and path.name != ".lock":
                with suppress(OSError):
                    path.unlink()


def plan_tasks(
    stores: Sequence[ShardedStore],
    ids: NDArray[np.object_],
    n_per_shard: int,
    *,
    by_tar: bool,
) -> list[ShardTask]:
    """What must be made, and after it what must be looked at.

    Parameters
    ----------
    stores : sequence of ShardedStore
    ids : ndarray of shape (n_images,), str objects
        All images of the manifest.
    n_per_shard : int
        Images of a new shard, at most.
    by_tar : bool
        Whether a shard ends where a tar file does: the first part of the ids.
    """
    row_of = {image_id: row for row, image_id in enumerate(ids)}
    new: dict[Runs, dict[int, str | None]] = {}
    there: dict[tuple[int, Runs], dict[int, str | None]] = {}
    for place, store in enumerate(stores):
        is_pending = np.ones(len(ids), bool)
        for file, shard_ids in store.ids.items():
            rows = np.array(sorted(row_of[one] for one in shard_ids if one in row_of), np.intp)
            is_pending[rows] = False
            if len(rows):
                number = int(file.partition("-")[0])
                there.setdefault((number, _runs(rows)), {})[place] = file
        for rows in _cut(np.flatnonzero(is_pending), ids, n_per_shard, by_tar):
            new.setdefault(_runs(rows), {})[place] = None
    first = max(store.next_number for store in stores)
    tasks = [ShardTask(first + k, *task) for k, task in enumerate(new.items())]
    return tasks + [ShardTask(number, runs, have) for (number, runs), have in there.items()]


def _cut(
    rows: NDArray[np.intp], ids: NDArray[np.object_], n_per_shard: int, by_tar: bool
) -> Iterator[NDArray[np.intp]]:
    parts: Sequence[NDArray[np.intp]] = [rows]
    if by_tar:
        tars = groupby(rows, key=lambda row: str(ids.item(row)).partition("/")[0])
        parts = [np.fromiter(part, np.intp) for _, part in tars]
    for part in parts:
        n_shards = -(-len(part) // n_per_shard)
        yield from np.array_split(part, n_shards) if n_shards else ()


def _runs(rows: NDArray[np.intp]) -> Runs:
    """Rows in ascending order as runs, each from a first to before a last."""
    starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
    ends = np.append(starts[1:], len(rows)) - 1
    return tuple((int(rows[a]), int(rows[b]) + 1) for a, b in zip(starts, ends, strict=True))


def open_any_shard(folder: Path) -> FeatureStore:
    """Open the first shard of a store that can be read; it says what all were made with.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    StoreError
        If none can be read, or their list is damaged.
    """
    _, shards = read_shards(folder)
    for shard in shards:
        with suppress(StoreError):
            return FeatureStore.open(folder / shard.file)
    raise StoreError(
        f"None of the {counted(shards, 'shard')} of {folder} can be read. Extract again with "
        "--backbone and its options, or delete the folder."
    )
