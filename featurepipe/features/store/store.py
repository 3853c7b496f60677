"""FeatureStore: the features of some images, and what made them; opened, locked and written."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import astuple
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from featurepipe.features.store.checking import open_checked, require_access
from featurepipe.features.store.key import StoreKey
from featurepipe.features.store.layout import (
    DONE,
    FORMAT,
    PENDING,
    REFUSED,
    ROW_DATASETS,
    Rows,
    as_slice,
    checksums,
    copy_rows,
    cut_reason,
    features_dtype,
    lay_out,
    lay_out_alike,
    probe_dtype,
    require_room,
    room_needed,
)
from featurepipe.features.store.shards import SHARDS_SUFFIX, ShardedFile
from featurepipe.features.store.stages import StageTimes
from featurepipe.features.store.store_reader import StoreReader
from featurepipe.features.store.writing import WritableHDF5
from featurepipe.files import disk_full_named, only_writer, replacing


class FeatureStore(StoreReader):
    """The features of some images, and what made them.

    Open one with `FeatureStore.open`; it closes as a context manager.

    Parameters
    ----------
    file : h5py.File
        An open file of this layout.
    path : Path
        Where it lies.

    Examples
    --------
    ::

        with FeatureStore.open("features/xception-imagenet-299-avg-rgb.h5") as store:
            X = store.features()
            ids = store.ids[store.rows("done")]
    """

    def __init__(self, file: h5py.File, path: Path) -> None:
        # Released by the operating system too, should the process be killed.
        self._lock = ExitStack()
        super().__init__(file, path)

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        ids: Sequence[str],
        key: StoreKey,
        made_by: Mapping[str, Any],
        probe: NDArray[Any],
    ) -> None:
        """Write a new store in which every row is pending.

        Parameters
        ----------
        path : Path
            The file; an existing one is replaced.
        ids : sequence of str
            Image ids.
        key : StoreKey
            What decides the features. If its precision is ``"uint8"`` or ``"float16"``, they are
            kept as that, else as float32.
        made_by : mapping
            Versions, engine and machine: recorded, not compared.
        probe : ndarray of shape (n_probes, n_features)
            Features of the generated pictures: uint8 for that precision, else float32.

        Raises
        ------
        DiskFullError
            If the disk has no room for the whole store.
        """
        about = {
            "format": FORMAT,
            "key": key.to_json(),
            "made_by": json.dumps(made_by, sort_keys=True),
        }
        dtype = features_dtype(key.precision)
        probe = probe.astype(probe_dtype(dtype), casting="same_kind", copy=False)
        require_room(path, room_needed(len(ids) + len(probe), probe.shape[1] * dtype.itemsize))
        path.parent.mkdir(parents=True, exist_ok=True)
        with only_writer(path), replacing(path) as beside, WritableHDF5(beside, "w") as file:
            lay_out(file, sorted(ids), probe, about, dtype)

    @classmethod
    def open(cls, path: Path | str, *, writable: bool = False) -> Self:
        """Open a store.

        Parameters
        ----------
        path : Path or str
            The file, or the folder of a store of shards.
        writable : bool
            Whether rows will be written; only one process may do so at a time.

        Raises
        ------
        StoreDamagedError
            If the file is truncated, overwritten, or damaged in its structure.
        StoreError
            If it is missing, may not be read, or is no feature store of this version.
        LockedError
            If another process is writing to it.
        NotWritableError
            If it may not be written to.
        """
        path = Path(path)
        if not writable:
            # Readers take no lock: rows never move, and each has a checksum.
            return cls(
                ShardedFile(path) if path.suffix == SHARDS_SUFFIX else open_checked(path), path
            )
        store = cls.open_locked(path)
        try:
            store.begin_writing()
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def open_locked(cls, path: Path) -> Self:
        """Open a store for reading that `begin_writing` may write to later; errors as in `open`."""
        require_access(path, writable=True)
        with ExitStack() as lock:
            lock.enter_context(only_writer(path))
            store = cls(open_checked(path), path)
            store._lock = lock.pop_all()
        return store

    def begin_writing(self) -> None:
        """Open the file of a locked store for writing.

        HDF5 misses some damage in a file that it opens for writing, and may add to it. So
        `open_locked` checks it as a reader does, and one without work is not opened so at all.
        """
        if self._file.mode == "r":
            self._opened.close()
            self._use(WritableHDF5(self.path, "r+"))
            # Looking them up for each batch takes longer than their checksums.
            self._columns = {name: self._file[name] for name in ROW_DATASETS}

    def close(self) -> None:
        """Close the file, and let others write to it.

        Raises
        ------
        DiskFullError
            If the disk is full, and what was written last is lost.
        """
        with self._lock, disk_full_named(self.path):
            self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write_done(
        self,
        rows: Rows,
        features: NDArray[Any],
        digests: NDArray[np.uint8],
        sizes: NDArray[np.int64],
        mtimes: NDArray[np.int64],
    ) -> None:
        """Commit a batch of features; once this returns, a kill does not lose it.

        Parameters
        ----------
        rows : ndarray of shape (n,), int
            Strictly increasing positions.
        features : ndarray of shape (n, n_features), float32, or uint8 of pixels
            Of a float16 store, a number beyond its range becomes infinite, which readers refuse.
        digests : ndarray of shape (n, 32), uint8
        sizes, mtimes : ndarray of shape (n,), int64
        """
        with np.errstate(over="ignore"):
            features = features.astype(self.dtype, order="C", casting="same_kind", copy=False)
        self._commit(
            rows,
            DONE,
            features=features,
            crc32=checksums(self._checked.raw_ids[rows], digests, features),
            digests=digests,
            size=sizes,
            mtime=mtimes,
        )

    def write_refused(
        self,
        rows: Rows,
        reasons: Sequence[str],
        digests: NDArray[np.uint8],
        sizes: NDArray[np.int64],
        mtimes: NDArray[np.int64],
    ) -> None:
        """Commit the reasons why some images were refused; parameters as in `write_done`."""
        raw = np.array(
            [cut_reason(reason) for reason in reasons], dtype=self._file["reasons"].dtype
        )
        self._commit(
            rows,
            REFUSED,
            reasons=raw,
            crc32=checksums(self._checked.raw_ids[rows], digests, raw),
            digests=digests,
            size=sizes,
            mtime=mtimes,
        )

    def write_seen(self, rows: Rows, sizes: NDArray[np.int64], mtimes: NDArray[np.int64]) -> None:
        """Store the new size and time of files whose bytes are still the same."""
        at, file = as_slice(rows), self._file
        with disk_full_named(self.path):
            file["size"][at] = sizes
            file["mtime"][at] = mtimes
            file.flush()

    def add_timing(self, n_images: int, seconds: float, stages: StageTimes) -> None:
        """Add to the number of images embedded, the seconds that took, and the stages' times."""
        file = self._file
        with disk_full_named(self.path):
            file["timing"][:] = np.add(self._timing, [n_images, seconds, *astuple(stages)])
            file.flush()

    def rewrite(self, ids: Iterable[str], rows: Rows) -> None:
        """Replace the file by one that holds other images; the store stays open and locked.

        A new file is written beside with some of the rows and replaces the old one once it is
        complete.

        Parameters
        ----------
        ids : iterable of str
            Image ids of the new file; those without a row to keep are pending.
        rows : ndarray of int
            Positions of the rows to keep; their ids are among `ids`.

        Raises
        ------
        DiskFullError
            If the disk has no room for both files.
        """
        new_ids = sorted(set(ids))
        require_room(self.path, self.room_needed(len(new_ids)))
        targets = np.searchsorted(new_ids, self.ids[rows].astype(str))
        # HDF5 writes rows in their order only. Damaged ids may be unsorted, or one be there twice.
        targets, order = np.unique(targets, return_index=True)
        with replacing(self.path) as beside, WritableHDF5(beside, "w") as file:
            lay_out_alike(self._file, file, new_ids)
            copy_rows(self._file, file, rows[order], targets)
        self._opened.close()
        self._use(open_checked(self.path))

    def _commit(self, rows: Rows, status: int, **columns: NDArray[Any]) -> None:
        at, file = as_slice(rows), self._file
        all_status = self._columns["status"]
        with disk_full_named(self.path):
            # A row that is written again must not look done half-way.
            if (all_status[at] != PENDING).any():
                all_status[at] = PENDING
                file.flush()
            for name, values in columns.items():
                self._columns[name][at] = values
            file.flush()
            all_status[at] = status
            file.flush()
