"""How a feature store lies in its HDF5 file.

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

besides ``probe`` (of the features' type, (k, d): features of generated pictures)
and ``timing`` (float64 (6,): images embedded, seconds that took, and how long each
stage was busy: read, decode, infer, write). Where the precision in ``key`` is
``uint8``, so are the features: images' own pixels. What made the store lies in
the attributes ``key`` and ``made_by`` (JSON), and their CRC-32 in ``crc32``.

Under SIGKILL this layout keeps every row whose status was flushed: after
creation nothing is written but raw data in place, features first, then status.
The features lie behind everything else in the file: one that lost its end still
has all that tells which of its rows are whole.
"""

import json
import math
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import DiskFullError
from featurepipe.features.store.stages import STAGES

PENDING, DONE, REFUSED = 0, 1, 2
STATUS_NAMES = ("pending", "done", "refused")
FORMAT = "featurepipe-store-3"
ROW_DATASETS = ("status", "digests", "crc32", "size", "mtime", "reasons", "features")
# What h5py raises of a file whose inner structure is damaged.
H5PY_ERRORS = (
    OSError, LookupError, RuntimeError, TypeError, ValueError, AttributeError, OverflowError,
)  # fmt: skip

_REASON_BYTES = 160
# Rows held at once, by their number and by what their features take.
_CHUNK, _CHUNK_BYTES = 4096, 2**25
# Rows further apart are read by themselves; of rows nearer to each other, what lies between is
# read too, so much at once.
_GAP_BYTES, _SPAN_BYTES = 2**16, 2**21

Rows = NDArray[np.intp]


def lay_out(
    file: h5py.File, ids: Sequence[str], probe_shape: tuple[int, int], about: Mapping[str, str]
) -> None:
    """Write all of a new store but its rows, each pending."""
    # First the attributes, last the features: what comes late is lost when a file is cut.
    for name, text in about.items():
        # Not of any length: damaged references to such texts make libhdf5 crash.
        file.attrs[name] = np.bytes_(text.encode())
    file.attrs["crc32"] = about_checksum(about)
    raw_ids = [image_id.encode() for image_id in ids]
    id_bytes = max(map(len, raw_ids), default=1)
    # All room is taken now, so that a full disk shows before the work, not amid it.
    allocate_early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    allocate_early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    allocate_early.set_fill_time(h5py.h5d.FILL_TIME_ALLOC)
    expected = expected_datasets(len(raw_ids), id_bytes, probe_shape, features_dtype(about))
    for name, (shape, dtype) in expected.items():
        file.create_dataset(name, shape, dtype, dcpl=allocate_early)
    file["ids"][:] = np.array(raw_ids, dtype=file["ids"].dtype)


def features_dtype(about: Mapping[str, str]) -> np.dtype[Any]:
    """Type of a store's features, by what is known of it: uint8 of pixels, else float32."""
    precision = json.loads(about["key"]).get("precision")
    return np.dtype(np.uint8 if precision == "uint8" else np.float32)


def expected_datasets(
    n_images: int, id_bytes: int, probe_shape: tuple[int, int], dtype: np.dtype[Any]
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
        "probe": (probe_shape, dtype),
        "timing": ((2 + len(STAGES),), np.dtype(np.float64)),
        "features": ((n_images, probe_shape[1]), dtype),
    }


def lay_out_alike(old: h5py.File, new: h5py.File, ids: Sequence[str]) -> None:
    """`lay_out` with all that another store says of itself."""
    lay_out(new, ids, old["probe"].shape, read_about(old))
    new["probe"][:] = old["probe"][:]
    new["timing"][:] = old["timing"][:]


def copy_rows(old: h5py.File, new: h5py.File, sources: Rows, targets: Rows) -> None:
    """Copy rows of one store to rows of another."""
    for places in in_chunks(np.arange(len(sources)), old["features"]):
        for name in ROW_DATASETS:
            new[name][targets[places]] = read_rows(old[name], sources[places])


def read_about(file: h5py.File) -> dict[str, str]:
    """What is known of the store as a whole, by the names of its attributes."""
    return {name: read_text(file, name) for name in ("format", "key", "made_by")}


def read_text(file: h5py.File, name: str) -> str:
    """An attribute that is text."""
    return bytes(file.attrs[name]).decode()


def about_checksum(about: Mapping[str, str]) -> np.uint32:
    """CRC-32 of what is known of the store as a whole."""
    return np.uint32(zlib.crc32("\n".join(about.values()).encode()))


def read_rows(dataset: h5py.Dataset, rows: Rows) -> NDArray[Any]:
    """Some rows of a dataset, in any order."""
    # A slice read and then picked from is far faster than h5py's own row lists.
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
    """The same rows, as a slice where they are a run."""
    # h5py takes far longer over a list of rows than over a run of them.
    is_run = len(rows) > 0 and rows[-1] - rows[0] + 1 == len(rows)
    return slice(int(rows[0]), int(rows[-1]) + 1) if is_run else rows


def in_chunks(rows: Rows, dataset: h5py.Dataset) -> Iterator[Rows]:
    """The rows in parts of which the dataset's values fit into memory."""
    length = max(1, min(_CHUNK, _CHUNK_BYTES // _row_bytes(dataset)))
    return (rows[start : start + length] for start in range(0, len(rows), length))


def _row_bytes(dataset: h5py.Dataset) -> int:
    return max(1, dataset.dtype.itemsize * math.prod(dataset.shape[1:]))


def checksums(
    ids: NDArray[np.bytes_], digests: NDArray[np.uint8], contents: NDArray[Any]
) -> NDArray[np.uint32]:
    """CRC-32 of each row: of its id, its digest, and its features or reason."""
    rows = zip(ids, digests, contents, strict=True)
    found = (
        zlib.crc32(content, zlib.crc32(digest, zlib.crc32(raw_id)))
        for raw_id, digest, content in rows
    )
    return np.fromiter(found, np.uint32, count=len(ids))


def cut_reason(reason: str) -> bytes:
    """As many characters of a reason as a row has room for, in UTF-8."""
    return reason.encode()[:_REASON_BYTES].decode(errors="ignore").encode()


def require_room(path: Path, n_rows: int, row_bytes: int) -> None:
    """Stop unless the disk has the room that a whole store needs, its probes among the rows."""
    needed = n_rows * (row_bytes + 512) + 2**16
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DiskFullError(
            f"The disk is full: {path} needs {needed / 1e6:.0f} MB and {folder} has "
            f"{free / 1e6:.0f} MB free. Free some space, or give another --workspace."
        )
