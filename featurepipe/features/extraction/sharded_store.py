"""ShardedStore: a store of shards as the driver of an extraction sees it."""

import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import StoreDamagedError, StoreError
from featurepipe.features.store import SHARDS_FILE, FeatureStore, StoreKey
from featurepipe.features.store.shards import (
    Shard,
    open_listed,
    read_shards,
    shard_damage,
    write_shards,
)
from featurepipe.words import counted, one_line

# Pauses between listings are so many times as long as a listing takes: of few shards, each is
# listed at once; of a hundred thousand, a killed driver loses those of some seconds.
_TIMES_BETWEEN_LISTINGS = 10
_OWN_FILE = re.compile(r"\d{6,}-[0-9a-f]{8}\.h5")


@dataclass
class ShardedStore:
    """The sound shards of a store; `add` takes those that are made.

    Attributes
    ----------
    folder : Path
    key : StoreKey or None
        Of the store, if it exists.
    by_file : dict of str to Shard
        The shards by the names of their files.
    probe : ndarray of shape (N_PROBES, n_features) or None
        Features of the generated pictures, if a shard is sound.
    damage : dict of str to str
        What is wrong with the other files.
    """

    folder: Path
    key: StoreKey | None = None
    by_file: dict[str, Shard] = field(default_factory=dict)
    probe: NDArray[np.float32] | None = None
    damage: dict[str, str] = field(default_factory=dict)
    _list_again: float = 0.0

    @classmethod
    def look(cls, folder: Path) -> "ShardedStore":
        """Look at every shard, but for its features; nothing is changed.

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
            damage = shard_damage(folder, shard) or store._look_inside(store.key, shard)
            if damage:
                store.damage[shard.file] = damage
            else:
                store.by_file[shard.file] = shard
        return store

    def _look_inside(self, key: StoreKey, shard: Shard) -> str:
        try:
            with open_listed(self.folder, key, shard) as file:
                self.probe = file["probe"][:] if self.probe is None else self.probe
        except StoreDamagedError as error:
            return error.damage
        except StoreError as error:
            return one_line(error)
        return ""

    @property
    def shards(self) -> list[Shard]:
        """The shards in the order of their files' names."""
        return [shard for _, shard in sorted(self.by_file.items())]

    @property
    def next_number(self) -> int:
        """The lowest number that no shard had."""
        files = [*self.by_file, *self.damage]
        return max((number_of(file) + 1 for file in files), default=0)

    def add(self, old: str | None, shard: Shard) -> None:
        """Take a shard that was made; it replaces the old file of its rows.

        Parameters
        ----------
        old : str or None
        shard : Shard
        """
        self.by_file.pop(old or "", None)
        self.by_file[shard.file] = shard
        if time.monotonic() > self._list_again:
            self.save()

    def save(self) -> None:
        """List the shards."""
        if self.key is not None and self.by_file:
            started = time.monotonic()
            write_shards(self.folder, self.key, self.shards)
            ended = time.monotonic()
            self._list_again = ended + _TIMES_BETWEEN_LISTINGS * (ended - started)

    def remove_leftovers(self) -> None:
        """Remove unfinished files, and shards that another one replaced."""
        for path in self.folder.iterdir():
            is_own = _OWN_FILE.fullmatch(path.name) or path.name.startswith(".")
            if is_own and path.name not in self.by_file and path.name != ".lock":
                with suppress(OSError):
                    path.unlink()


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


def number_of(file: str) -> int:
    """The number of a shard, with which the name of its file begins.

    Parameters
    ----------
    file : str
    """
    return int(file.partition("-")[0])
