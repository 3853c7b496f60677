"""Healing: a damaged store is rebuilt with its sound rows, and the others are pending.

The damaged file stays beside as ``NAME.h5.damaged`` until every row is computed
again. Of a file of which nothing can be read, a new store is made with every row
pending; such a file stays as ``NAME.h5.unreadable`` and is never removed.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import h5py
import numpy as np

from featurepipe.errors import StoreDamagedError
from featurepipe.features.store.checking import (
    is_in_file,
    open_checked,
    require_access,
    require_own_content,
)
from featurepipe.features.store.layout import (
    H5PY_ERRORS,
    PENDING,
    ROW_DATASETS,
    Rows,
    copy_rows,
    lay_out_alike,
)
from featurepipe.features.store.store import FeatureStore
from featurepipe.features.store.writing import WritableHDF5
from featurepipe.files import PART_SUFFIX, disk_full_named, only_writer, replacing
from featurepipe.words import counted

logger = logging.getLogger(__name__)

# Where a superblock of each version holds the size that the file should have.
_SIZE_OFFSETS = {0: 40, 1: 44, 2: 28, 3: 28}


# Of a file that has lost more than this, next to nothing is left.
_MAX_GROWTH = 1000


@dataclass
class StoreFile:
    """The file of a store as an extraction finds it, locked for writing.

    `look` changes nothing; `make_ready` then makes, heals or grows the store.

    Attributes
    ----------
    path : Path
    store : FeatureStore or None
        None if there is no file, or nothing can be read of it.
    damage : str
        What is wrong with the file, a clause; empty if nothing is.
    damaged : ndarray of int
        Positions of the rows of `store` that are not kept.
    n_cut : int
        Rows that are missing from the file.
    """

    path: Path
    store: FeatureStore | None = None
    damage: str = ""
    damaged: Rows = field(default_factory=lambda: np.empty(0, np.intp))
    n_cut: int = 0

    @classmethod
    def look(cls, path: Path) -> Self:
        """Open a store and check its structure and every row.

        Raises
        ------
        StoreError
            If the file may not be read, or is no feature store of this version.
        LockedError
            If another process is writing to it.
        NotWritableError
            If it may not be written to.
        """
        file = cls(path)
        with ExitStack() as unless_opened:
            unless_opened.callback(file.close)
            if path.exists():
                file._open()
            unless_opened.pop_all()
        return file

    def _open(self) -> None:
        try:
            self.store = FeatureStore.open_locked(self.path)
        except StoreDamagedError as error:
            self.damage = error.damage
        if self.damage:
            self.store, self.n_cut = open_left(self.path)
        if self.store is not None:
            self.damaged = self.store.damaged_rows()
            self.damage = self.damage or _row_damage(self.store, self.damaged)

    def wanted_ids(self, ids: Iterable[str]) -> set[str]:
        """Ids of the images that the store is to hold: those of its sound rows, and `ids`."""
        if self.store is None:
            return set(ids)
        # A damaged id that no image has is dropped: nothing could ever be computed for it.
        return {*np.delete(self.store.ids, self.damaged), *ids}

    def is_ready(self, ids: Iterable[str]) -> bool:
        """Whether the store is sound and has a row for each of the images."""
        if self.store is None or self.damage:
            return False
        return len(self.wanted_ids(ids)) == len(self.store)

    def make_ready(self, ids: Iterable[str], create: Callable[[], None] | None) -> FeatureStore:
        """Make, heal or grow the store, so that it has a row for each of some images.

        Parameters
        ----------
        ids : iterable of str
            Image ids.
        create : callable or None
            Writes a new store at `path`, in which each of the images is pending; called if
            `store` is None.

        Returns
        -------
        FeatureStore
            Locked; `FeatureStore.begin_writing` opens it for writing, `close` closes it.
        """
        aside = self._kept_aside() if self.damage else ExitStack()
        if self.store is None:
            assert create is not None
            with aside:
                create()
            self.store = FeatureStore.open_locked(self.path)
        elif not self.is_ready(ids):
            is_settled = self.store.status != PENDING
            kept = np.setdiff1d(np.flatnonzero(is_settled), self.damaged)
            with aside:
                self.store.rewrite(self.wanted_ids(ids), kept)
        return self.store

    def complete(self) -> None:
        """Remove the damaged file, since every row is computed again."""
        with suppress(OSError):
            _damaged_file(self.path).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the store, and let others write to it."""
        if self.store is not None:
            self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _kept_aside(self) -> Iterator[None]:
        """Keep the damaged file while another takes its place, and say so."""
        if self.store is None:
            aside = _free_name(self.path, ".unreadable")
            what = "Nothing can be read of it: every row is computed again"
            until = "The old file is kept as"
        else:
            aside = _damaged_file(self.path)
            n_lost = len(self.damaged) + self.n_cut
            what = f"{n_lost} of {len(self.store) + self.n_cut} rows are computed again"
            until = "Until that is done, the old file is kept as"
        with replacing(aside) as beside:
            _link(self.path, beside)
        try:
            yield
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        logger.warning(
            "The feature store %s is damaged: %s. %s. %s %s.",
            self.path, self.damage, what, until, aside.name,
        )  # fmt: skip


def open_left(path: Path) -> tuple[FeatureStore | None, int]:
    """Open what is left of a store whose structure is damaged.

    In a truncated file zeros stand for the lost end, and datasets of unequal
    lengths are read as far as the shortest; `FeatureStore.damaged_rows` tells
    which rows are still sound. The file itself is not changed.

    Parameters
    ----------
    path : Path
        The store.

    Returns
    -------
    store : FeatureStore or None
        Locked for writing, but only `FeatureStore.rewrite` may write. None if too little is left.
    n_cut : int
        Rows that are missing from it.

    Raises
    ------
    StoreError
        If the file may not be read, or is no feature store of this version.
    DiskFullError
        If the disk has no room for a copy of the file.
    """
    require_access(path, writable=True)
    with ExitStack() as lock, ExitStack() as opened:
        lock.enter_context(only_writer(path))
        folder = opened.enter_context(
            tempfile.TemporaryDirectory(
                prefix=f".{path.name}.", suffix=PART_SUFFIX, dir=path.parent
            )
        )
        try:
            with disk_full_named(path):
                mended, n_cut = _of_equal_lengths(_of_full_size(path, folder), folder)
            file = open_checked(mended)
        except (StoreDamagedError, *H5PY_ERRORS):
            return None, 0
        store = FeatureStore(file, path)
        opened.callback(file.close)
        store._lock, store._opened = lock.pop_all(), opened.pop_all()
        return store, n_cut


def _row_damage(store: FeatureStore, damaged: Rows) -> str:
    if len(damaged):
        is_one = len(damaged) == 1
        return f"{counted(damaged, 'row')} {'does' if is_one else 'do'} not match the checksum"
    return "it holds an image twice" if len(set(store.ids)) < len(store) else ""


def _of_full_size(path: Path, folder: str) -> Path:
    """A copy with zeros for the lost end; the file itself if it has its full size."""
    with path.open("rb") as file:
        start = file.read(64)
    if len(start) < 64 or not h5py.is_hdf5(path):
        return path
    offset = _SIZE_OFFSETS[start[8]]
    recorded = int.from_bytes(start[offset : offset + 8], "little")
    n_bytes = path.stat().st_size
    if n_bytes >= recorded or recorded > _MAX_GROWTH * n_bytes:
        return path
    whole = Path(folder) / f"whole-{path.name}"
    shutil.copyfile(path, whole)
    os.truncate(whole, recorded)
    return whole


def _of_equal_lengths(path: Path, folder: str) -> tuple[Path, int]:
    """A copy of as many rows as every dataset has, or the file itself; and how many are cut."""
    with h5py.File(path, "r", locking=False) as old:
        require_own_content(old, path)
        if len(old["ids"]) and not is_in_file(old, "ids"):
            raise StoreDamagedError(path, "its ids are missing")
        lengths = [len(old[name]) for name in ("ids", *ROW_DATASETS)]
        n_images = min(lengths)
        if n_images == max(lengths):
            return path, 0
        ids = [raw.decode(errors="replace") for raw in old["ids"][:n_images]]
        even, rows = Path(folder) / f"even-{path.name}", np.arange(n_images)
        with WritableHDF5(even, "w") as new:
            lay_out_alike(old, new, ids)
            copy_rows(old, new, rows, rows)
    return even, max(lengths) - n_images


def _damaged_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.damaged")


def _free_name(path: Path, suffix: str) -> Path:
    names = (path.with_name(f"{path.name}{suffix}{number}") for number in ("", *range(2, 1000)))
    return next(name for name in names if not name.exists())


def _link(path: Path, aside: Path) -> None:
    try:
        os.link(path, aside)
    except OSError:
        # Not every file system has links.
        shutil.copyfile(path, aside)
