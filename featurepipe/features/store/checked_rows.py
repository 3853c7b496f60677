"""CheckedRows: rows of a store, each read against its checksum."""

import time
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
    checksums,
    in_chunks,
    read_rows,
)

# A row that does not match its checksum may be one that is being written.
_N_LOOKS_AGAIN, _SECONDS_BETWEEN_LOOKS = 5, 0.05
# Checked at once: little enough to stay in the processor's cache.
_CHECK_BYTES = 2**20


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
        ndarray of shape (n_rows, n_features), of the store's dtype

        Raises
        ------
        StoreError
            If a row is not done, does not match its checksum, or holds a number that is not
            finite.
        """
        features = read_rows(self._file["features"], rows)
        doubtful = np.flatnonzero(~self._committed(rows, features))
        for _ in range(_N_LOOKS_AGAIN):
            if not len(doubtful):
                break
            # Another process may be writing just these rows.
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            features[doubtful] = read_rows(self._file["features"], rows[doubtful])
            doubtful = doubtful[~self._committed(rows[doubtful], features[doubtful])]
        if len(doubtful):
            raise self._not_committed(rows[doubtful])
        self._require_finite(rows, features)
        return features

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

    def _committed(self, rows: Rows, features: NDArray[Any]) -> NDArray[np.bool_]:
        digests = read_rows(self._file["digests"], rows)
        is_sound = checksums(self.raw_ids[rows], digests, features) == read_rows(
            self._file["crc32"], rows
        )
        return is_sound & self._done(rows)

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

    def _require_finite(self, rows: Rows, features: NDArray[Any]) -> None:
        if features.dtype.kind == "u":
            # Checking would take as much memory again as the pixels.
            return
        odd = rows[~np.isfinite(features).all(axis=1)]
        if len(odd):
            raise StoreError(
                f"{self._path}: {len(odd)} of {len(rows)} rows have features that are not finite, "
                f"first {self.ids[odd[0]]!r}. Check the weights, delete the store, and extract "
                "again with --precision float32."
            )
