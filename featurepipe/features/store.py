"""FeatureStore: one HDF5 file of features; the only module that knows its layout.

Datasets, all of one row an image, contiguous, and of a size that never changes:

========  =================  ====================================================
ids       utf-8 bytes        image ids, sorted
status    uint8              0 ``pending``, 1 ``done``, 2 ``refused``
digests   uint8 (n, 32)      SHA-256 of the image's bytes
crc32     uint32             CRC-32 of id, digest, and features or else reason
size      int64              of the image's file, bytes
mtime     int64              modification time of the image's file, ns since 1970
reasons   utf-8 bytes        why an image was refused
features  float32 (n, d)     pooled features; zero unless the status is ``done``
========  =================  ====================================================

besides ``probe`` (float32 (k, d), features of generated pictures) and ``timing``
(float64 (6,): images embedded, seconds that took, and how long each stage was
busy: read, decode, infer, write). What made the store lies in
the attributes ``key`` and ``made_by`` (JSON), and their CRC-32 in ``crc32``.

Under SIGKILL this layout keeps every row whose status was flushed: after
creation nothing is written but raw data in place, features first, then status.
The features lie behind everything else in the file: one that lost its end still
has all that tells which of its rows are whole.
"""

import json
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import DiskFullError, StoreError, StoreMismatchError
from featurepipe.features.stages import STAGES, StageTimes
from featurepipe.files import PART_SUFFIX, disk_full_named, only_writer, replacing
from featurepipe.provenance import differences

PENDING, DONE, REFUSED = 0, 1, 2
STATUS_NAMES = ("pending", "done", "refused")

_FORMAT = "featurepipe-store-3"
_REASON_BYTES = 160
_CHUNK = 4096
# A row that does not fit its checksum may be one that is being written.
_N_LOOKS_AGAIN, _SECONDS_BETWEEN_LOOKS = 5, 0.05
_ROW_DATASETS = ("status", "digests", "crc32", "size", "mtime", "reasons", "features")
# What h5py raises of a file whose inner structure is damaged.
_H5PY_ERRORS = (
    OSError, LookupError, RuntimeError, TypeError, ValueError, AttributeError, OverflowError,
)  # fmt: skip
# Where a superblock of each version holds the size that the file should have.
_SIZE_OFFSETS = {0: 40, 1: 44, 2: 28, 3: 28}

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
        probe : ndarray of shape (n_probes, n_features), float32
            Features of the generated pictures.

        Raises
        ------
        DiskFullError
            If the disk has not the room that the whole store will need.
        """
        _require_room(path, len(ids), probe.shape[1])
        about = {
            "format": _FORMAT,
            "key": json.dumps(key, sort_keys=True),
            "made_by": json.dumps(made_by, sort_keys=True),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with only_writer(path), replacing(path) as beside, h5py.File(beside, "w") as file:
            _lay_out(file, sorted(ids), probe.shape, about)
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
                opened.callback(file.close)
                store = cls(file, path)
                store._check_layout()
            except _H5PY_ERRORS as error:
                raise StoreError(_unreadable(path, error)) from error
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
        # A damaged id may be no text at all; its checksum tells.
        return np.array([raw.decode(errors="replace") for raw in self._raw_ids], dtype=object)

    @property
    def n_features(self) -> int:
        """Features of an image."""
        return int(self._file["features"].shape[1])

    @property
    def key(self) -> dict[str, Any]:
        """What decides the features: backbone, weights, size, pooling, view, …."""
        return json.loads(_text(self._file, "key"))

    @property
    def made_by(self) -> dict[str, Any]:
        """Versions, engine and machine that made the store."""
        return json.loads(_text(self._file, "made_by"))

    @property
    def probe(self) -> NDArray[np.float32]:
        """Features of the generated pictures: ndarray of shape (n_probes, n_features), float32."""
        return self._file["probe"][:]

    @property
    def status(self) -> NDArray[np.uint8]:
        """Status of every row: ndarray of shape (n_images,), 0 pending, 1 done, 2 refused."""
        status = self._file["status"][:]
        # Whatever a damaged status was: to embed the image again puts it right.
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
        n_images, seconds = self._file["timing"][:2]
        return float(n_images / seconds) if seconds else float("nan")

    @property
    def stages(self) -> StageTimes:
        """How long each stage of the extraction was busy so far."""
        return StageTimes(*self._file["timing"][2:].tolist())

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
        features = _read_rows(self._file["features"], rows)
        left = np.flatnonzero(~self._committed(rows, features))
        for _ in range(_N_LOOKS_AGAIN):
            if not len(left):
                break
            # Another process may be writing just these rows anew.
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            features[left] = _read_rows(self._file["features"], rows[left])
            left = left[~self._committed(rows[left], features[left])]
        if len(left):
            raise self._not_committed(rows[left])
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
        features = np.ascontiguousarray(features, dtype=np.float32)
        self._commit(
            rows,
            DONE,
            features=features,
            crc32=_checksums(self._raw_ids[rows], digests, features),
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
        self._commit(
            rows,
            REFUSED,
            reasons=raw,
            crc32=_checksums(self._raw_ids[rows], digests, raw),
            digests=digests,
            size=sizes,
            mtime=mtimes,
        )

    def write_seen(self, rows: Rows, sizes: NDArray[np.int64], mtimes: NDArray[np.int64]) -> None:
        """Note the new size and time of files whose bytes are still the same."""
        place = _place(rows)
        with disk_full_named(self.path):
            self._file["size"][place] = sizes
            self._file["mtime"][place] = mtimes
            self._file.flush()

    def add_timing(self, n_images: int, seconds: float, stages: StageTimes) -> None:
        """Add to the images embedded so far, the seconds that took, and their stages."""
        with disk_full_named(self.path):
            self._file["timing"][:] += (n_images, seconds, *astuple(stages))
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
        """Positions of the rows of no known status, or that do not fit their checksum.

        The checksum is over id, digest, and features or reason: over all that was
        committed. A pending row claims nothing, and so is never damaged.
        """
        damaged = self._damaged_among(np.arange(len(self)))
        for _ in range(_N_LOOKS_AGAIN):
            if not len(damaged):
                break
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            damaged = self._damaged_among(damaged)
        return damaged

    def _damaged_among(self, rows: Rows) -> Rows:
        status = _read_rows(self._file["status"], rows)
        damaged = [rows[status >= len(STATUS_NAMES)]]
        for settled, name in ((DONE, "features"), (REFUSED, "reasons")):
            for some in _chunks(rows[status == settled]):
                contents = _read_rows(self._file[name], some)
                damaged.append(some[~self._sound(some, contents)])
        return np.sort(np.concatenate(damaged))

    @cached_property
    def _raw_ids(self) -> NDArray[np.bytes_]:
        return self._file["ids"][:]

    def _committed(self, rows: Rows, features: NDArray[np.float32]) -> NDArray[np.bool_]:
        return self._sound(rows, features) & (_read_rows(self._file["status"], rows) == DONE)

    def _not_committed(self, rows: Rows) -> StoreError:
        n_open = int((_read_rows(self._file["status"], rows) != DONE).sum())
        if n_open:
            return StoreError(f"{self.path}: {n_open} of the rows asked for are not done.")
        return StoreError(
            f"{self.path}: {len(rows)} rows are damaged (checksum), first "
            f"{self.ids[rows[0]]!r}. Mark them pending: featurepipe repair {self.path}"
        )

    def _sound(self, rows: Rows, contents: NDArray[Any]) -> NDArray[np.bool_]:
        digests = _read_rows(self._file["digests"], rows)
        found = _checksums(self._raw_ids[rows], digests, contents)
        return found == _read_rows(self._file["crc32"], rows)

    def _commit(self, rows: Rows, status: int, **columns: NDArray[Any]) -> None:
        place, of_rows = _place(rows), self._file["status"]
        with disk_full_named(self.path):
            # A row that is written again must not look done half-way.
            if (of_rows[place] != PENDING).any():
                of_rows[place] = PENDING
                self._file.flush()
            for name, values in columns.items():
                self._file[name][place] = values
            self._file.flush()
            of_rows[place] = status
            self._file.flush()

    def _check_layout(self) -> None:
        if self._file.attrs.get("format") != _FORMAT.encode():
            raise StoreError(
                f"{self.path} is HDF5 but no feature store of this version of featurepipe "
                f"(expected the format {_FORMAT!r}). Name another file, or extract again."
            )
        if _about_checksum(_about(self._file)) != self._file.attrs["crc32"]:
            raise StoreError(
                f"{self.path} is damaged: what tells how it was made does not fit its checksum. "
                "Delete it and extract again."
            )
        lengths = {
            name: self._file[name].shape[0] if name in self._file else None
            for name in ("ids", *_ROW_DATASETS)
        }
        if len(set(lengths.values())) != 1:
            raise StoreError(
                f"{self.path} is damaged: its datasets have unequal lengths {lengths}. "
                f"Save what is sound: featurepipe repair {self.path}"
            )
        n_probes, id_bytes = len(self._file["probe"]), self._file["ids"].dtype.itemsize
        expected = _layout(len(self), id_bytes, (n_probes, self.n_features))
        found = {name: (self._file[name].shape, self._file[name].dtype) for name in expected}
        odd = [name for name in expected if found[name] != expected[name]]
        if odd:
            raise StoreError(
                f"{self.path} is damaged: {odd[0]} is of shape and type {found[odd[0]]}, expected "
                f"{expected[odd[0]]}. Delete it and extract again."
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
    _require_room(path, len(ids), old.n_features)
    targets = np.searchsorted(ids, old.ids[rows].astype(str))
    # HDF5 writes rows in their order only, and damaged ids are in none.
    order = np.argsort(targets)
    with replacing(path) as beside, h5py.File(beside, "w") as file:
        _lay_out_alike(old._file, file, ids)
        _copy_rows(old._file, file, rows[order], targets[order])


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
    except _H5PY_ERRORS as error:
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
        lengths = [len(old[name]) for name in ("ids", *_ROW_DATASETS)]
        n_images = min(lengths)
        if n_images == max(lengths):
            return path
        ids = [raw.decode(errors="replace") for raw in old["ids"][:n_images]]
        even, rows = Path(folder) / f"even-{path.name}", np.arange(n_images)
        with h5py.File(even, "w") as new:
            _lay_out_alike(old, new, ids)
            _copy_rows(old, new, rows, rows)
    return even


def _lay_out_alike(old: h5py.File, new: h5py.File, ids: Sequence[str]) -> None:
    _lay_out(new, ids, old["probe"].shape, _about(old))
    new["probe"][:] = old["probe"][:]
    new["timing"][:] = old["timing"][:]


def _copy_rows(old: h5py.File, new: h5py.File, sources: Rows, targets: Rows) -> None:
    for places in _chunks(np.arange(len(sources))):
        for name in _ROW_DATASETS:
            new[name][targets[places]] = _read_rows(old[name], sources[places])


def _lay_out(
    file: h5py.File, ids: Sequence[str], probe_shape: tuple[int, int], about: Mapping[str, str]
) -> None:
    # First the attributes, last the features: what comes late is lost when a file is cut.
    for name, text in about.items():
        # Not of any length: damaged references to such texts make libhdf5 crash.
        file.attrs[name] = np.bytes_(text.encode())
    file.attrs["crc32"] = _about_checksum(about)
    raw_ids = [image_id.encode() for image_id in ids]
    id_bytes = max(map(len, raw_ids), default=1)
    # All room is taken now, so that a full disk shows before the work, not amid it.
    allocate_early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    allocate_early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    allocate_early.set_fill_time(h5py.h5d.FILL_TIME_ALLOC)
    for name, (shape, dtype) in _layout(len(raw_ids), id_bytes, probe_shape).items():
        file.create_dataset(name, shape, dtype, dcpl=allocate_early)
    file["ids"][:] = np.array(raw_ids, dtype=file["ids"].dtype)


def _layout(
    n_images: int, id_bytes: int, probe_shape: tuple[int, int]
) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and type of every dataset, in their order in the file."""
    return {
        "ids": ((n_images,), h5py.string_dtype("utf-8", id_bytes)),
        "status": ((n_images,), np.dtype(np.uint8)),
        "digests": ((n_images, 32), np.dtype(np.uint8)),
        "crc32": ((n_images,), np.dtype(np.uint32)),
        "size": ((n_images,), np.dtype(np.int64)),
        "mtime": ((n_images,), np.dtype(np.int64)),
        "reasons": ((n_images,), h5py.string_dtype("utf-8", _REASON_BYTES)),
        "probe": (probe_shape, np.dtype(np.float32)),
        "timing": ((2 + len(STAGES),), np.dtype(np.float64)),
        "features": ((n_images, probe_shape[1]), np.dtype(np.float32)),
    }


def _about(file: h5py.File) -> dict[str, str]:
    """What is known of the store as a whole, by the names of its attributes."""
    return {name: _text(file, name) for name in ("format", "key", "made_by")}


def _text(file: h5py.File, name: str) -> str:
    return bytes(file.attrs[name]).decode()


def _about_checksum(about: Mapping[str, str]) -> np.uint32:
    return np.uint32(zlib.crc32("\n".join(about.values()).encode()))


def _read_rows(dataset: h5py.Dataset, rows: Rows) -> NDArray[Any]:
    # A slice read and then picked from is far faster than h5py's own row lists.
    values = np.empty((len(rows), *dataset.shape[1:]), dtype=dataset.dtype)
    order = np.argsort(rows, kind="stable")
    for start in range(0, dataset.shape[0], _CHUNK):
        first, last = np.searchsorted(rows[order], (start, start + _CHUNK))
        if last > first:
            picked = order[first:last]
            lowest, highest = rows[picked[0]], rows[picked[-1]]
            values[picked] = dataset[lowest : highest + 1][rows[picked] - lowest]
    return values


def _place(rows: Rows) -> slice | Rows:
    # h5py takes far longer over a list of rows than over a run of them.
    is_run = len(rows) > 0 and rows[-1] - rows[0] + 1 == len(rows)
    return slice(int(rows[0]), int(rows[-1]) + 1) if is_run else rows


def _chunks(rows: Rows) -> Iterator[Rows]:
    return (rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK))


def _checksums(
    ids: NDArray[np.bytes_], digests: NDArray[np.uint8], contents: NDArray[Any]
) -> NDArray[np.uint32]:
    rows = zip(ids, digests, contents, strict=True)
    checksums = (
        zlib.crc32(content, zlib.crc32(digest, zlib.crc32(raw_id)))
        for raw_id, digest, content in rows
    )
    return np.fromiter(checksums, np.uint32, count=len(ids))


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


def _unreadable(path: Path, error: Exception) -> str:
    if not h5py.is_hdf5(path):
        what = "is not an HDF5 file (or its beginning is lost). Delete it and extract again."
    elif "truncated" in str(error):
        what = f"is truncated: its end is missing. Save what is sound: featurepipe repair {path}"
    else:
        what = f"cannot be read ({error}). Delete it and extract again."
    return f"The feature store {path} {what}"
