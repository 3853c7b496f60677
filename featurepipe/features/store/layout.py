"""How a feature store lies in its HDF5 file.

Datasets, each with one row per image, contiguous, and of a size that never changes:

========  =================  ====================================================
ids       utf-8 bytes        image ids, sorted
status    uint8              0 ``pending``, 1 ``done``, 2 ``refused``
digests   uint8 (n, 32)      SHA-256 of the image's bytes
crc32     uint32             CRC-32 of id, digest, and features or reason
size      int64              size of the image's file, bytes
mtime     int64              modification time of the image's file, ns since 1970
reasons   utf-8 bytes        why an image was refused
features  float32 (n, d)     pooled features; zero unless the status is ``done``
========  =================  ====================================================

Two more datasets are ``probe`` (k, d), the features of generated pictures, and
``timing`` (float64 (6,)): images embedded, the seconds that took, and how long
each stage was busy: read, decode, infer, write. Where the precision in ``key`` is
``float16``, features are float16. Where it is ``uint8``, features and probe are uint8:
images' own pixels. The attributes ``key``
and ``made_by`` (JSON) say what made the store; ``crc32`` is their CRC-32.

Under SIGKILL this layout keeps every row whose status was flushed: after
creation only raw data is written in place, features first, then status.
The features are the last part of the file: a file that lost its end can still
tell which of its rows are complete.
"""

import math
import operator
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from zlib_ng.zlib_ng import crc32

from featurepipe.errors import DiskFullError
from featurepipe.features.store.stages import STAGES

PENDING, DONE, REFUSED = 0, 1, 2
STATUS_NAMES = ("pending", "done", "refused")
FORMAT = "featurepipe-store-3"
ROW_DATASETS = ("status", "digests", "crc32", "size", "mtime", "reasons", "features")
# What h5py raises when the inner structure of a file is damaged.
H5PY_ERRORS = (
    OSError, LookupError, RuntimeError, TypeError, ValueError, AttributeError, OverflowError,
)  # fmt: skip

_REASON_BYTES = 160
# Rows copied at once: at most this many, and at most this many bytes of features.
_CHUNK, _CHUNK_BYTES = 4096, 2**25
# Rows closer together than the gap are read in one piece of at most the span, together with
# the rows between them; rows further apart are read separately.
_GAP_BYTES, _SPAN_BYTES = 2**16, 2**21

Rows = NDArray[np.intp]


def lay_out(
    file: h5py.File,
    ids: Sequence[str],
    probe: NDArray[Any],
    about: Mapping[str, str],
    dtype: np.dtype[Any],
) -> None:
    """Write a new store in which every row is pending.

    Parameters
    ----------
    file : h5py.File
        Empty.
    ids : sequence of str
        Image ids, sorted, each once.
    probe : ndarray of shape (n_probes, n_features), float32 or uint8
    about : mapping of str to str
        As `read_about` returns it.
    dtype : dtype
        Of the features.
    """
    # Attributes first, features last: what is written last is lost when a file is cut.
    for name, text in about.items():
        # Fixed length: damaged references to texts of variable length make libhdf5 crash.
        file.attrs[name] = np.bytes_(text.encode())
    file.attrs["crc32"] = about_checksum(about)
    raw_ids = [image_id.encode() for image_id in ids]
    id_bytes = max(map(len, raw_ids), default=1)
    # All room is taken now, so that a full disk shows before the work, not during it.
    allocate_early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    allocate_early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    allocate_early.set_fill_time(h5py.h5d.FILL_TIME_ALLOC)
    expected = expected_datasets(len(raw_ids), id_bytes, probe.shape, dtype)
    for name, (shape, of_rows) in expected.items():
        file.create_dataset(name, shape, of_rows, dcpl=allocate_early)
    file["ids"][:] = np.array(raw_ids, dtype=file["ids"].dtype)
    file["probe"][:] = probe


def features_dtype(precision: str) -> np.dtype[Any]:
    """Type of the features in the file of a store: that of the precision, else float32."""
    return np.dtype(precision if precision in ("uint8", "float16") else np.float32)


def probe_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Type of the features of a store as they are computed and read: uint8, else float32."""
    return np.dtype(np.uint8 if dtype == np.uint8 else np.float32)


def expected_datasets(
    n_images: int, id_bytes: int, probe_shape: tuple[int, ...], dtype: np.dtype[Any]
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
        "probe": (probe_shape, probe_dtype(dtype)),
        "timing": ((2 + len(STAGES),), np.dtype(np.float64)),
        "features": ((n_images, probe_shape[1]), dtype),
    }


def lay_out_alike(old: h5py.File, new: h5py.File, ids: Sequence[str]) -> None:
    """`lay_out` with the attributes, probe and timing of another store."""
    lay_out(new, ids, old["probe"][:], read_about(old), old["features"].dtype)
    new["timing"][:] = old["timing"][:]


def copy_rows(old: h5py.File, new: h5py.File, sources: Rows, targets: Rows) -> None:
    """Copy rows of one store to rows of another."""
    for chunk in in_chunks(np.arange(len(sources)), old["features"]):
        for name in ROW_DATASETS:
            new[name][targets[chunk]] = read_rows(old[name], sources[chunk])


def read_about(file: h5py.File) -> dict[str, str]:
    """The attributes that describe the store as a whole, by name."""
    return {name: read_text(file, name) for name in ("format", "key", "made_by")}


def read_text(file: h5py.File, name: str) -> str:
    """An attribute that is text."""
    return bytes(file.attrs[name]).decode()


def about_checksum(about: Mapping[str, str]) -> np.uint32:
    """CRC-32 of the attributes that describe the store as a whole."""
    return np.uint32(crc32("\n".join(about.values()).encode()))


def read_rows(
    dataset: h5py.Dataset, rows: Rows, values: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Some rows of a dataset, in any order; into `values` if it is given."""
    if isinstance(run := as_slice(rows), slice):
        if values is None:
            return dataset[run]
        dataset.read_direct(values, run)
        return values
    # Reading a slice and picking from it is far faster than h5py's own row lists.
    if values is None:
        values = np.empty((len(rows), *dataset.shape[1:]), dtype=dataset.dtype)
    row_bytes = _row_bytes(dataset)
    gap, span = max(1, _GAP_BYTES // row_bytes), max(1, _SPAN_BYTES // row_bytes)
    order = np.argsort(rows, kind="stable")
    ascending, first = rows[order], 0
    while first < len(rows):
        last = first + np.searchsorted(ascending[first : first + span], ascending[first] + span)
        wide = np.flatnonzero(np.diff(ascending[first:last]) > gap)
        last = first + wide[0] + 1 if len(wide) else last
        lowest, highest = ascending[first], ascending[last - 1]
        values[order[first:last]] = dataset[lowest : highest + 1][ascending[first:last] - lowest]
        first = last
    return values


def as_slice(rows: Rows) -> slice | Rows:
    """The same rows, as a slice where they are consecutive."""
    # h5py takes far longer over a list of rows than over a slice.
    is_run = len(rows) > 0 and bool((np.diff(rows) == 1).all())
    return slice(int(rows[0]), int(rows[-1]) + 1) if is_run else rows


def in_chunks(rows: Rows, dataset: h5py.Dataset, n_bytes: int | None = None) -> Iterator[Rows]:
    """The rows in parts whose values take at most so many bytes (default: 32 MB)."""
    length = max(1, min(_CHUNK, (n_bytes or _CHUNK_BYTES) // _row_bytes(dataset)))
    return (rows[start : start + length] for start in range(0, len(rows), length))


def _row_bytes(dataset: h5py.Dataset) -> int:
    return max(1, dataset.dtype.itemsize * math.prod(dataset.shape[1:]))


def checksums(
    ids: NDArray[np.bytes_], digests: NDArray[np.uint8], contents: NDArray[Any]
) -> NDArray[np.uint32]:
    """CRC-32 of each row: of its id, its digest, and its features or reason."""
    # Lists of buffers and map: iterating over the rows of an array takes longer than the CRC-32.
    as_bytes = np.ascontiguousarray(digests).view("V32").ravel().tolist()
    begun = map(crc32, map(operator.add, ids.tolist(), as_bytes))
    values = map(crc32, _buffers(contents), begun)
    return np.fromiter(values, np.uint32, count=len(ids))


def _buffers(contents: NDArray[Any]) -> Sequence[bytes | memoryview]:
    """The bytes of each row."""
    if contents.ndim == 1 or not contents.size:
        return contents.tolist()
    row_bytes = contents[0].nbytes
    whole = np.ascontiguousarray(contents).ravel().view(np.uint8).data
    return [whole[start : start + row_bytes] for start in range(0, len(whole), row_bytes)]


def cut_reason(reason: str) -> bytes:
    """As many characters of a reason as a row has room for, in UTF-8."""
    return reason.encode()[:_REASON_BYTES].decode(errors="ignore").encode()


def room_needed(n_rows: int, row_bytes: int) -> int:
    """Bytes that a whole store takes, its probes counted among the rows."""
    return n_rows * (row_bytes + 512) + 2**16


def require_room(path: Path, n_bytes: int) -> None:
    """Stop unless the disk has room for so many bytes.

    Raises
    ------
    DiskFullError
        If it has not.
    """
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise DiskFullError(
            f"The disk is full: {path} needs {n_bytes / 1e6:.0f} MB and {folder} has "
            f"{free / 1e6:.0f} MB free. Free some space, or give another --workspace."
        )
