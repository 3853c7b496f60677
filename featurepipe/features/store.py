"""FeatureStore: one HDF5 file of features; the only module that knows its layout.

Datasets, all of one row an image, contiguous, and of a size that never changes:

========  =================  ====================================================
ids       utf-8 bytes        image ids, sorted
features  float32 (n, d)     pooled features; zero unless the status is ``done``
status    uint8              0 ``pending``, 1 ``done``, 2 ``refused``
digests   uint8 (n, 32)      SHA-256 of the image's bytes
crc32     uint32             CRC-32 of the row of features
size      int64              of the image's file, bytes
mtime     int64              modification time of the image's file, ns since 1970
reasons   utf-8 bytes        why an image was refused
========  =================  ====================================================

besides ``probe`` (float32 (d,), features of a generated picture) and ``timing``
(float64 (2,): images embedded, seconds that took). What made the store lies in
the attributes ``key`` and ``made_by`` (JSON).

Under SIGKILL this layout keeps every row whose status was flushed: after
creation nothing is written but raw data in place, features first, then status.
"""

import json
import shutil
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import DiskFullError, StoreError, StoreMismatchError
from featurepipe.files import disk_full_named, only_writer, replacing
from featurepipe.provenance import differences

PENDING, DONE, REFUSED = 0, 1, 2
STATUS_NAMES = ("pending", "done", "refused")

_FORMAT = "featurepipe-store-1"
_REASON_BYTES = 160
_ROW_DATASETS = ("features", "status", "digests", "crc32", "size", "mtime", "reasons")

Rows = NDArray[np.intp]


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
        self._file = file
        self._opened = ExitStack()
        self.path = path

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        ids: Sequence[str],
        key: Mapping[str, Any],
        made_by: Mapping[str, Any],
        probe: NDArray[np.float32],
    ) -> None:
        """Write a new store in which every row is pending.

        Parameters
        ----------
        path : Path
            Where; whatever lies there is replaced.
        ids : sequence of str
            Image ids.
        key : mapping
            What decides the features: backbone, weights, size, pooling, view, …
        made_by : mapping
            Versions, engine and machine: recorded, not compared.
        probe : ndarray of shape (n_features,), float32
            Features of the generated picture.

        Raises
        ------
        DiskFullError
            If the disk has not the room that the whole store will need.
        """
        _require_room(path, len(ids), len(probe))
        with replacing(path) as beside, h5py.File(beside, "w") as file:
            _lay_out(file, sorted(ids), len(probe))
            file.attrs["format"] = _FORMAT
            file.attrs["key"] = json.dumps(key, sort_keys=True)
            file.attrs["made_by"] = json.dumps(made_by, sort_keys=True)
            file["probe"][:] = probe

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
        StoreError
            If the file is missing, truncated, no HDF5, or no feature store.
        """
        path = Path(path)
        if not path.is_file():
            raise StoreError(f"There is no feature store {path}. Make one: featurepipe extract")
        with ExitStack() as opened:
            if writable:
                # Readers take no lock: rows never move, and each carries a checksum.
                opened.enter_context(only_writer(path))
            try:
                file = h5py.File(path, "r+" if writable else "r", locking=False)
            except OSError as error:
                raise StoreError(_unreadable(path, error)) from error
            opened.callback(file.close)
            store = cls(file, path)
            store._check_layout()
            store._opened = opened.pop_all()
        return store

    def close(self) -> None:
        """Close the file, and let others write to it."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return int(self._file["ids"].shape[0])

    @property
    def ids(self) -> NDArray[np.object_]:
        """Image ids, sorted: ndarray of shape (n_images,), str."""
        return np.array([raw.decode() for raw in self._file["ids"][:]], dtype=object)

    @property
    def n_features(self) -> int:
        """Features of an image."""
        return int(self._file["features"].shape[1])

    @property
    def key(self) -> dict[str, Any]:
        """What decides the features: backbone, weights, size, pooling, view, …."""
        return json.loads(self._file.attrs["key"])

    @property
    def made_by(self) -> dict[str, Any]:
        """Versions, engine and machine that made the store."""
        return json.loads(self._file.attrs["made_by"])

    @property
    def probe(self) -> NDArray[np.float32]:
        """Features of the generated picture: ndarray of shape (n_features,), float32."""
        return self._file["probe"][:]

    @property
    def status(self) -> NDArray[np.uint8]:
        """Status of every row: ndarray of shape (n_images,), 0 pending, 1 done, 2 refused."""
        return self._file["status"][:]

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
        n_images, seconds = self._file["timing"][:]
        return float(n_images / seconds) if seconds else float("nan")

    def rows(self, status: str) -> Rows:
        """Positions of the rows of one status (``pending``, ``done``, ``refused``)."""
        return np.flatnonzero(self.status == STATUS_NAMES.index(status))

    def counts(self) -> dict[str, int]:
        """How many rows have each status."""
        tally = np.bincount(self.status, minlength=len(STATUS_NAMES))
        return dict(zip(STATUS_NAMES, tally.tolist(), strict=True))

    def refused(self) -> dict[str, str]:
        """Ids of the refused images, and why."""
        rows = self.rows("refused")
        reasons = self._file["reasons"][:][rows]
        return {
            image_id: raw.decode(errors="replace")
            for image_id, raw in zip(self.ids[rows], reasons, strict=True)
        }

    def features(self, rows: Rows | None = None) -> NDArray[np.float32]:
        """Features of some rows, each checked against its checksum.

        Parameters
        ----------
        rows : ndarray of int, optional
            Positions of rows that are done; default: all that are.

        Returns
        -------
        ndarray of shape (n_rows, n_features), float32

        Raises
        ------
        StoreError
            If a row is not done or its checksum does not fit.
        """
        rows = self.rows("done") if rows is None else np.asarray(rows, dtype=np.intp)
        if (self.status[rows] != DONE).any():
            n_open = int((self.status[rows] != DONE).sum())
            raise StoreError(f"{self.path}: {n_open} of the rows asked for are not done.")
        features = _read_rows(self._file["features"], rows)
        damaged = rows[_checksums(features) != self._file["crc32"][:][rows]]
        if len(damaged):
            raise StoreError(
                f"{self.path}: {len(damaged)} rows are damaged (checksum), first "
                f"{self.ids[damaged[0]]!r}. Delete the file and extract again."
            )
        return features

    def write_done(
        self,
        rows: Rows,
        features: NDArray[np.float32],
        digests: NDArray[np.uint8],
        sizes: NDArray[np.int64],
        mtimes: NDArray[np.int64],
    ) -> None:
        """Commit a batch of features; once this returns, a kill does not lose it.

        Parameters
        ----------
        rows : ndarray of shape (n,), int
            Strictly increasing positions.
        features : ndarray of shape (n, n_features), float32
        digests : ndarray of shape (n, 32), uint8
        sizes, mtimes : ndarray of shape (n,), int64
        """
        checksums = _checksums(np.ascontiguousarray(features, dtype=np.float32))
        self._commit(
            rows,
            DONE,
            features=features,
            crc32=checksums,
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
        """Commit why some images were refused; parameters as in `write_done`."""
        raw = np.array([_cut(reason) for reason in reasons], dtype=self._file["reasons"].dtype)
        self._commit(rows, REFUSED, reasons=raw, digests=digests, size=sizes, mtime=mtimes)

    def write_seen(self, rows: Rows, sizes: NDArray[np.int64], mtimes: NDArray[np.int64]) -> None:
        """Note the new size and time of files whose bytes are still the same."""
        with disk_full_named(self.path):
            self._file["size"][rows] = sizes
            self._file["mtime"][rows] = mtimes
            self._file.flush()

    def add_timing(self, n_images: int, seconds: float) -> None:
        """Add to the images embedded so far and the seconds that took."""
        with disk_full_named(self.path):
            self._file["timing"][:] += (n_images, seconds)
            self._file.flush()

    def require_key(self, key: Mapping[str, Any]) -> None:
        """Stop unless the store was made as is asked for now.

        Raises
        ------
        StoreMismatchError
            With every difference.
        """
        found = differences(self.key, json.loads(json.dumps(key)))
        if found:
            raise StoreMismatchError(
                f"{self.path} was made otherwise: {'; '.join(found)}. Features of both kinds are "
                "never mixed: ask for the same again, or give another --workspace."
            )

    def damaged_rows(self) -> Rows:
        """Positions of the done rows whose features do not fit their checksum."""
        rows = self.rows("done")
        bad = _checksums(_read_rows(self._file["features"], rows)) != self._file["crc32"][:][rows]
        return rows[bad]

    def _commit(self, rows: Rows, status: int, **columns: NDArray[Any]) -> None:
        with disk_full_named(self.path):
            # A row that is written again must not look done half-way.
            if (self._file["status"][rows] != PENDING).any():
                self._file["status"][rows] = PENDING
                self._file.flush()
            for name, values in columns.items():
                self._file[name][rows] = values
            self._file.flush()
            self._file["status"][rows] = status
            self._file.flush()

    def _check_layout(self) -> None:
        if self._file.attrs.get("format") != _FORMAT:
            raise StoreError(
                f"{self.path} is HDF5 but no feature store of this version of featurepipe "
                f"(expected the format {_FORMAT!r}). Name another file, or extract again."
            )
        lengths = {
            name: self._file[name].shape[0] if name in self._file else None
            for name in ("ids", *_ROW_DATASETS)
        }
        if len(set(lengths.values())) != 1:
            raise StoreError(
                f"{self.path} is damaged: its datasets have unequal lengths {lengths}. "
                "Delete it and extract again."
            )


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
    with FeatureStore.open(path) as old:
        united = sorted({*old.ids, *ids})
        if len(united) == len(old):
            return
        _require_room(path, len(united), old.n_features)
        with replacing(path) as beside, h5py.File(beside, "w") as file:
            _lay_out(file, united, old.n_features)
            file.attrs.update(old._file.attrs)
            file["probe"][:] = old.probe
            file["timing"][:] = old._file["timing"][:]
            _copy_rows(old._file, file, np.searchsorted(united, old.ids.astype(str)))


def _copy_rows(old: h5py.File, new: h5py.File, targets: Rows, chunk: int = 4096) -> None:
    for start in range(0, len(targets), chunk):
        rows = slice(start, start + chunk)
        for name in _ROW_DATASETS:
            new[name][targets[rows]] = old[name][rows]


def _lay_out(file: h5py.File, ids: Sequence[str], n_features: int) -> None:
    raw_ids = [image_id.encode() for image_id in ids]
    id_bytes = max(map(len, raw_ids), default=1)
    n_images = len(raw_ids)
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {
        "ids": ((n_images,), h5py.string_dtype("utf-8", id_bytes)),
        "features": ((n_images, n_features), np.float32),
        "status": ((n_images,), np.uint8),
        "digests": ((n_images, 32), np.uint8),
        "crc32": ((n_images,), np.uint32),
        "size": ((n_images,), np.int64),
        "mtime": ((n_images,), np.int64),
        "reasons": ((n_images,), h5py.string_dtype("utf-8", _REASON_BYTES)),
        "probe": ((n_features,), np.float32),
        "timing": ((2,), np.float64),
    }
    # All room is taken now, so that a full disk shows before the work, not amid it.
    allocate_early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    allocate_early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    allocate_early.set_fill_time(h5py.h5d.FILL_TIME_ALLOC)
    for name, (shape, dtype) in shapes.items():
        file.create_dataset(name, shape, dtype, dcpl=allocate_early)
    file["ids"][:] = np.array(raw_ids, dtype=file["ids"].dtype)


def _read_rows(dataset: h5py.Dataset, rows: Rows, chunk: int = 4096) -> NDArray[np.float32]:
    # A slice read and then picked from is far faster than h5py's own row lists.
    values = np.empty((len(rows), dataset.shape[1]), dtype=np.float32)
    order = np.argsort(rows, kind="stable")
    for start in range(0, dataset.shape[0], chunk):
        first, last = np.searchsorted(rows[order], (start, start + chunk))
        if last > first:
            picked = order[first:last]
            values[picked] = dataset[start : start + chunk][rows[picked] - start]
    return values


def _checksums(features: NDArray[np.float32]) -> NDArray[np.uint32]:
    return np.fromiter((zlib.crc32(row) for row in features), np.uint32, count=len(features))


def _cut(reason: str) -> bytes:
    return reason.encode()[:_REASON_BYTES].decode(errors="ignore").encode()


def _require_room(path: Path, n_images: int, n_features: int) -> None:
    needed = n_images * (4 * n_features + 512) + 2**16
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DiskFullError(
            f"The disk is full: {path} needs {needed / 1e6:.0f} MB and {folder} has "
            f"{free / 1e6:.0f} MB free. Free some space, or give another --workspace."
        )


def _unreadable(path: Path, error: OSError) -> str:
    if not h5py.is_hdf5(path):
        what = "is not an HDF5 file (or its beginning is lost)"
    elif "truncated" in str(error):
        what = "is truncated: its end is missing"
    else:
        what = f"cannot be read ({error})"
    return f"The feature store {path} {what}. Delete it and extract again."
