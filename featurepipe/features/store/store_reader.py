"""StoreReader: what a store holds."""

import json
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import StoreMismatchError
from featurepipe.features.store.checked_rows import CheckedRows
from featurepipe.features.store.key import StoreKey
from featurepipe.features.store.layout import (
    PENDING,
    STATUS_NAMES,
    Rows,
    read_rows,
    read_text,
    room_needed,
)
from featurepipe.features.store.shards import ShardedFile
from featurepipe.features.store.stages import StageTimes
from featurepipe.features.store.stored_images import StoredImages
from featurepipe.provenance import differences

# Images, or seconds.
_MAX_TIMING = 2**53


class StoreReader:
    """What a store holds: the half of `FeatureStore` that reads.

    Parameters
    ----------
    file : h5py.File
        An open file of this layout.
    path : Path
        Where it lies.
    """

    def __init__(self, file: h5py.File, path: Path) -> None:
        self.path = path
        self._use(file)

    def _use(self, file: h5py.File) -> None:
        self._file = file
        self._checked = CheckedRows(file, self.path)
        self._opened = ExitStack()
        self._opened.callback(file.close)

    def __len__(self) -> int:
        return int(self._file["ids"].shape[0])

    @property
    def ids(self) -> NDArray[np.object_]:
        """Image ids, sorted: ndarray of shape (n_images,), str."""
        return self._checked.ids

    @property
    def n_bytes(self) -> int:
        """Size of its file, or of all its shards."""
        is_sharded = isinstance(self._file, ShardedFile)
        return self._file.n_bytes if is_sharded else self.path.stat().st_size

    @property
    def n_features(self) -> int:
        """Number of features of an image."""
        return int(self._file["features"].shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the features in the file: float32, float16, or uint8 in a pixel cache."""
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

    def images(self, status: str) -> StoredImages:
        """The images of one status by id (``pending``, ``done``, ``refused``)."""
        return StoredImages.of(self._checked.raw_ids, self.rows(status))

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
        ndarray of shape (n_rows, n_features), float32, or uint8 of a pixel cache

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

    def room_needed(self, n_images: int) -> int:
        """Bytes that a store of the same kind takes for so many images."""
        return room_needed(n_images + len(self.probe), self.n_features * self.dtype.itemsize)
