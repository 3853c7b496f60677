"""FeatureStore: the features of some images, and what made them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import astuple
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import StoreMismatchError
from featurepipe.features.store.checked_rows import CheckedRows
from featurepipe.features.store.checking import open_checked, require_access
from featurepipe.features.store.key import StoreKey
from featurepipe.features.store.layout import (
    DONE,
    FORMAT,
    PENDING,
    REFUSED,
    STATUS_NAMES,
    Rows,
    as_slice,
    checksums,
    copy_rows,
    cut_reason,
    features_dtype,
    lay_out,
    lay_out_alike,
    read_rows,
    read_text,
    require_room,
    room_needed,
)
from featurepipe.features.store.stages import StageTimes
from featurepipe.features.store.writing import WritableHDF5
from featurepipe.files import disk_full_named, only_writer, replacing
from featurepipe.provenance import differences

# Images, or seconds.
_MAX_TIMING = 2**53


class FeatureStore:
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
        self.path = path
        # Released by the operating system too, should the process be killed.
        self._lock = ExitStack()
        self._use(file)

    def _use(self, file: h5py.File) -> None:
        self._file = file
        self._checked = CheckedRows(file, self.path)
        self._opened = ExitStack()
        self._opened.callback(file.close)

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
            What decides the features. If its precision is ``"uint8"`` they are uint8, else
            float32.
        made_by : mapping
            Versions, engine and machine: recorded, not compared.
        probe : ndarray of shape (n_probes, n_features), of the features' type
            Features of the generated pictures.

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
        probe = probe.astype(features_dtype(key.precision), casting="same_kind", copy=False)
        require_room(path, room_needed(len(ids) + len(probe), probe[:1].nbytes))
        path.parent.mkdir(parents=True, exist_ok=True)
        with only_writer(path), replacing(path) as beside, WritableHDF5(beside, "w") as file:
            lay_out(file, sorted(ids), probe, about)

    @classmethod
    def open(cls, path: Path | str, *, writable: bool = False) -> Self:
        """Open a store.

        Parameters
        ----------
        path : Path or str
            The file.
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
            return cls(open_checked(path), path)
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

    def __len__(self) -> int:
        return int(self._file["ids"].shape[0])

    @property
    def ids(self) -> NDArray[np.object_]:
        """Image ids, sorted: ndarray of shape (n_images,), str."""
        return self._checked.ids

    @property
    def n_features(self) -> int:
        """Number of features of an image."""
        return int(self._file["features"].shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the features: float32; uint8 in a pixel cache."""
        return self._file["features"].dtype

    @property
    def holds_pixels(self) -> bool:
        """Whether this is a pixel cache: the rows are the pixels of images."""
        return bool(self.dtype == np.uint8)

    @cached_property
    def key(self) -> StoreKey:
        """What decides the features."""
        return StoreKey.from_json(read_text(self._file, "key"), str(self.path))

    @property
    def made_by(self) -> dict[str, Any]:
        """Versions, engine and machine that made the store."""
        return json.loads(read_text(self._file, "made_by"))

    @property
    def probe(self) -> NDArray[Any]:
        """Features of the generated pictures: ndarray of shape (n_probes, n_features)."""
        return self._file["probe"][:]

    @property
    def status(self) -> NDArray[np.uint8]:
        """Status of every row: ndarray of shape (n_images,), 0 pending, 1 done, 2 refused."""
        status = self._file["status"][:]
        # Whatever a damaged status was, embedding the image again restores it.
        return np.where(status < len(STATUS_NAMES), status, PENDING).astype(np.uint8)

    @property
    def digests(self) -> NDArray[np.uint8]:
        """SHA-256 of every image's bytes: ndarray of shape (n_images, 32), uint8."""
        return self._file["digests"][:]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Size of every image's file in bytes: ndarray of shape (n_images,)."""
        return self._file["size"][:]

    @property
    def mtimes(self) -> NDArray[np.int64]:
        """Modification time of every image's file, ns: ndarray of shape (n_images,)."""
        return self._file["mtime"][:]

    @property
    def images_per_s(self) -> float:
        """Speed of the extraction so far; NaN if nothing was embedded yet."""
        n_images, seconds = self._timing[:2]
        return float(n_images / seconds) if seconds else float("nan")

    @property
    def stages(self) -> StageTimes:
        """Seconds that each stage of the extraction was busy so far."""
        return StageTimes(*self._timing[2:].tolist())

    @property
    def _timing(self) -> NDArray[np.float64]:
        # No checksum covers these numbers, and nothing but a speed depends on them.
        timing = self._file["timing"][:]
        return timing if ((timing >= 0) & (timing < _MAX_TIMING)).all() else np.zeros_like(timing)

    def rows(self, status: str) -> Rows:
        """Positions of the rows of one status (``pending``, ``done``, ``refused``)."""
        return np.flatnonzero(self.status == STATUS_NAMES.index(status))

    def counts(self) -> dict[str, int]:
        """How many rows have each status."""
        tally = np.bincount(self.status, minlength=len(STATUS_NAMES))
        return dict(zip(STATUS_NAMES, tally.tolist(), strict=True))

    def refused(self) -> dict[str, str]:
        """Ids of the refused images, each with the reason."""
        rows = self.rows("refused")
        reasons = self._file["reasons"][:][rows]
        return {
            image_id: raw.decode(errors="replace")
            for image_id, raw in zip(self.ids[rows], reasons, strict=True)
        }

    def features(self, rows: Rows | None = None) -> NDArray[Any]:
        """Features of some rows, each checked against its checksum and for finite numbers.

        Parameters
        ----------
        rows : ndarray of int, optional
            Positions of rows that are done; default: all that are.

        Returns
        -------
        ndarray of shape (n_rows, n_features), of the store's `dtype`

        Raises
        ------
        StoreError
            If a row is not done, does not match its checksum, or holds a number that is not
            finite.
        """
        rows = self.rows("done") if rows is None else np.asarray(rows, dtype=np.intp)
        return self._checked.features(rows)

    def unchecked_features(self, rows: Rows) -> NDArray[Any]:
        """Features of some rows as they lie in the file, unchecked.

        For rows that `features` returned before: checking takes longer than reading.

        Parameters
        ----------
        rows : ndarray of int
            Positions.

        Returns
        -------
        ndarray of shape (n_rows, n_features), of the store's `dtype`
        """
        return read_rows(self._file["features"], rows)

    def checksums(self, rows: Rows) -> NDArray[np.uint32]:
        """CRC-32 of id, digest and features of some rows: ndarray of shape (n_rows,), uint32."""
        return read_rows(self._file["crc32"], rows)

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
        features : ndarray of shape (n, n_features), of the store's `dtype`
        digests : ndarray of shape (n, 32), uint8
        sizes, mtimes : ndarray of shape (n,), int64
        """
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

    def require_key(self, key: StoreKey) -> None:
        """Stop unless the store was made with this key.

        Raises
        ------
        StoreMismatchError
            If it was not; the error lists every difference.
        """
        differing = differences(self.key.as_dict(), key.as_dict())
        if differing:
            raise StoreMismatchError(
                f"{self.path} was made with other options: {'; '.join(differing)}. Features of "
                "both kinds are never mixed: use the same options, or give another --workspace."
            )

    def damaged_rows(self) -> Rows:
        """Positions of the rows that have an unknown status or do not match their checksum.

        Reads the whole file, at more than 1 GB/s where the system has it in memory.
        """
        return self._checked.damaged()

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

    def room_needed(self, n_images: int) -> int:
        """Bytes that a store of the same kind takes for so many images."""
        return room_needed(n_images + len(self.probe), self.n_features * self.dtype.itemsize)

    def _commit(self, rows: Rows, status: int, **columns: NDArray[Any]) -> None:
        at, file = as_slice(rows), self._file
        all_status = file["status"]
        with disk_full_named(self.path):
            # A row that is written again must not look done half-way.
            if (all_status[at] != PENDING).any():
                all_status[at] = PENDING
                file.flush()
            for name, values in columns.items():
                file[name][at] = values
            file.flush()
            all_status[at] = status
            file.flush()
