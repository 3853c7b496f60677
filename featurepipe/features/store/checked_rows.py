"""CheckedRows: rows of a store, each read against its checksum."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import StoreError
from featurepipe.features.store.layout import (
    DONE,
    REFUSED,
    STATUS_NAMES,
    Rows,
    as_slice,
    checksums,
    in_chunks,
    probe_dtype,
    read_rows,
)

# A row that does not match its checksum may be one that is being written.
_N_LOOKS_AGAIN, _SECONDS_BETWEEN_LOOKS = 5, 0.05
# Checked at once by each thread: little enough to stay in the processor's cache.
_CHECK_BYTES = 2**20
# While one thread waits for the disk, the other checks what it has read.
_N_THREADS = 2


class CheckedRows:
    """Rows of a store, each read against its checksum.

    Parameters
    ----------
    file : h5py.File
        An open file of this layout.
    path : Path
        The store, for errors.
    """

    def __init__(self, file: h5py.File, path: Path) -> None:
        self._file = file
        self._path = path

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(_N_THREADS, "rows")

    @cached_property
    def raw_ids(self) -> NDArray[np.bytes_]:
        """Image ids in UTF-8: ndarray of shape (n_images,)."""
        return self._file["ids"][:]

    @cached_property
    def ids(self) -> NDArray[np.object_]:
        """Image ids: ndarray of shape (n_images,), str."""
        # A damaged id may be no text at all; its checksum reveals that.
        return np.array([raw.decode(errors="replace") for raw in self.raw_ids], dtype=object)

    def features(self, rows: Rows) -> NDArray[Any]:
        """Features of some rows, all of which must be done.

        Parameters
        ----------
        rows : ndarray of int

        Returns
        -------
        ndarray of shape (n_rows, n_features), float32, or uint8 of a pixel cache

        Raises
        ------
        StoreError
            If a row is not done, does not match its checksum, or holds a number that is not
            finite.
        """
        features = self._room(rows)
        is_finite = np.ones(len(rows), bool)
        # In the order of the file.
        doubtful = self._read(rows, _ascending(rows), features, is_finite)
        for _ in range(_N_LOOKS_AGAIN):
            if not len(doubtful):
                break
            # Another process may be writing just these rows.
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            doubtful = self._read(rows, doubtful, features, is_finite)
        if len(doubtful):
            raise self._not_committed(rows[np.sort(doubtful)])
        if not is_finite.all():
            raise self._not_finite(rows, is_finite)
        return features

    def _room(self, rows: Rows) -> NDArray[Any]:
        # No dataset stays open: HDF5 keeps the last 64 KB that were read of an open one, and
        # another look would see these.
        dataset = self._file["features"]
        return np.empty((len(rows), *dataset.shape[1:]), probe_dtype(dataset.dtype))

    def _read(
        self, rows: Rows, places: Rows, features: NDArray[Any], is_finite: NDArray[np.bool_]
    ) -> Rows:
        """Fill some places with the features of their rows; those whose rows are not sound."""
        wanted, dataset = rows[places], self._file["features"]
        raw_ids, digests, expected, is_done = (
            read_rows(self._file["ids"], wanted),
            read_rows(self._file["digests"], wanted),
            read_rows(self._file["crc32"], wanted),
            self._done(wanted),
        )
        is_sound = np.empty(len(wanted), bool)

        def read_part(part: Rows) -> None:
            at, place = slice(part[0], part[-1] + 1), as_slice(places[part])
            # Read to where they belong, where rows lie in a run; else a copy.
            values = features[place]
            stored = values if dataset.dtype == values.dtype else None
            stored = read_rows(dataset, wanted[at], stored)
            is_sound[at] = checksums(raw_ids[at], digests[at], stored) == expected[at]
            is_finite[place] = _widen(stored, values)
            if not isinstance(place, slice):
                features[place] = values

        parts = list(in_chunks(np.arange(len(wanted)), dataset, _CHECK_BYTES))
        # Handing a few rows to another thread takes longer than reading them.
        list(self._pool.map(read_part, parts) if len(parts) > 1 else map(read_part, parts))
        return places[~(is_sound & is_done)]

    def damaged(self) -> Rows:
        """Positions of the rows that have an unknown status or do not match their checksum.

        The checksum covers id, digest, and features or reason: all that was
        committed. A pending row has none, and so is never damaged.

        Returns
        -------
        ndarray of int, sorted
        """
        damaged = self._damaged_among(np.arange(len(self.raw_ids)))
        for _ in range(_N_LOOKS_AGAIN):
            if not len(damaged):
                break
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            damaged = self._damaged_among(damaged)
        return damaged

    def _damaged_among(self, rows: Rows) -> Rows:
        status = read_rows(self._file["status"], rows)
        damaged = [rows[status >= len(STATUS_NAMES)]]
        digests, expected = self._file["digests"][:], self._file["crc32"][:]
        for settled, name in ((DONE, "features"), (REFUSED, "reasons")):
            dataset = self._file[name]
            for chunk in in_chunks(rows[status == settled], dataset, _CHECK_BYTES):
                actual = checksums(self.raw_ids[chunk], digests[chunk], read_rows(dataset, chunk))
                damaged.append(chunk[actual != expected[chunk]])
        return np.sort(np.concatenate(damaged))

    def _done(self, rows: Rows) -> NDArray[np.bool_]:
        return read_rows(self._file["status"], rows) == DONE

    def _not_committed(self, rows: Rows) -> StoreError:
        n_open = int((~self._done(rows)).sum())
        if n_open:
            return StoreError(f"{self._path}: {n_open} of the requested rows are not done.")
        again = "train" if self._file["features"].dtype.kind == "u" else "extract"
        return StoreError(
            f"{self._path}: {len(rows)} rows are damaged (checksum), first "
            f"{self.ids[rows[0]]!r}. Run "
            f"featurepipe {again} again, which computes them anew."
        )

    def _not_finite(self, rows: Rows, is_finite: NDArray[np.bool_]) -> StoreError:
        odd = rows[~is_finite]
        return StoreError(
            f"{self._path}: {len(odd)} of {len(rows)} rows have features that are not finite, "
            f"first {self.ids[odd.min()]!r}. Check the weights, delete the store, and extract "
            "again with --precision float32."
        )


def _widen(stored: NDArray[Any], values: NDArray[Any]) -> NDArray[np.bool_] | bool:
    """Fill float32 values with those that are stored; which rows are finite."""
    if stored.dtype != np.float16:
        return np.isfinite(values).all(axis=1) if values.dtype.kind == "f" else True
    # NumPy converts float16 in software. Shifted by 13 bits, a number of it is one of float32 that
    # is too small by the difference of the exponents' biases, 127 - 15; the sign goes further up.
    bits = values.view(np.int32)
    np.left_shift(stored.view(np.int16), 13, out=bits, dtype=np.int32)
    bits &= np.int32(~0x70000000)
    values *= np.float32(2.0 ** (127 - 15))
    # All others have the largest exponent there is.
    return (stored.view(np.uint16) & 0x7FFF).max(axis=1) < 0x7C00


def _ascending(rows: Rows) -> Rows:
    """The order in which rows lie in the file."""
    if (np.diff(rows) >= 0).all():
        return np.arange(len(rows))
    return np.argsort(rows, kind="stable")
