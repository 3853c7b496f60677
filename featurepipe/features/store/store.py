"""FeatureStore: the features of some images, and what made them."""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import astuple
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import StoreError, StoreMismatchError
from featurepipe.features.store.layout import (
    DONE,
    FORMAT,
    H5PY_ERRORS,
    PENDING,
    REFUSED,
    ROW_DATASETS,
    STATUS_NAMES,
    Rows,
    about_checksum,
    as_slice,
    checksums,
    cut_reason,
    expected_datasets,
    features_dtype,
    in_chunks,
    lay_out,
    read_about,
    read_rows,
    read_text,
    require_room,
)
from featurepipe.features.store.stages import StageTimes
from featurepipe.files import disk_full_named, only_writer, replacing
from featurepipe.provenance import differences

# A row that does not fit its checksum may be one that is being written.
_N_LOOKS_AGAIN, _SECONDS_BETWEEN_LOOKS = 5, 0.05


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
        probe: NDArray[Any],
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
            If its ``precision`` is ``"uint8"`` they are uint8, else float32.
        made_by : mapping
            Versions, engine and machine: recorded, not compared.
        probe : ndarray of shape (n_probes, n_features), of the features' type
            Features of the generated pictures.

        Raises
        ------
        DiskFullError
            If the disk has not the room that the whole store will need.
        """
        about = {
            "format": FORMAT,
            "key": json.dumps(key, sort_keys=True),
            "made_by": json.dumps(made_by, sort_keys=True),
        }
        probe = probe.astype(features_dtype(about), casting="same_kind", copy=False)
        require_room(path, len(ids) + len(probe), probe[:1].nbytes)
        path.parent.mkdir(parents=True, exist_ok=True)
        with only_writer(path), replacing(path) as beside, h5py.File(beside, "w") as file:
            lay_out(file, sorted(ids), probe.shape, about)
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
            except H5PY_ERRORS as error:
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
    def dtype(self) -> np.dtype[Any]:
        """Type of the features: float32; uint8 of a pixel cache."""
        return self._file["features"].dtype

    @property
    def holds_pixels(self) -> bool:
        """Whether the rows are images' own pixels, and no features."""
        return bool(self.dtype == np.uint8)

    @property
    def key(self) -> dict[str, Any]:
        """What decides the features: backbone, weights, size, pooling, view, …."""
        return json.loads(read_text(self._file, "key"))

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

    def features(self, rows: Rows | None = None) -> NDArray[Any]:
        """Features of some rows, each checked against its checksum.

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
            If a row is not done, its checksum does not fit or a number is not finite.
        """
        rows = self.rows("done") if rows is None else np.asarray(rows, dtype=np.intp)
        features = read_rows(self._file["features"], rows)
        left = np.flatnonzero(~self._committed(rows, features))
        for _ in range(_N_LOOKS_AGAIN):
            if not len(left):
                break
            # Another process may be writing just these rows anew.
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            features[left] = read_rows(self._file["features"], rows[left])
            left = left[~self._committed(rows[left], features[left])]
        if len(left):
            raise self._not_committed(rows[left])
        self._require_finite(rows, features)
        return features

    def unchecked_features(self, rows: Rows) -> NDArray[Any]:
        """Features of some rows as they lie in the file.

        For rows that `features` gave before: what it checks takes longer than reading.

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
            crc32=checksums(self._raw_ids[rows], digests, features),
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
        raw = np.array(
            [cut_reason(reason) for reason in reasons], dtype=self._file["reasons"].dtype
        )
        self._commit(
            rows,
            REFUSED,
            reasons=raw,
            crc32=checksums(self._raw_ids[rows], digests, raw),
            digests=digests,
            size=sizes,
            mtime=mtimes,
        )

    def write_seen(self, rows: Rows, sizes: NDArray[np.int64], mtimes: NDArray[np.int64]) -> None:
        """Note the new size and time of files whose bytes are still the same."""
        place = as_slice(rows)
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
        status = read_rows(self._file["status"], rows)
        damaged = [rows[status >= len(STATUS_NAMES)]]
        for settled, name in ((DONE, "features"), (REFUSED, "reasons")):
            for some in in_chunks(rows[status == settled], self._file[name]):
                contents = read_rows(self._file[name], some)
                damaged.append(some[~self._sound(some, contents)])
        return np.sort(np.concatenate(damaged))

    @cached_property
    def _raw_ids(self) -> NDArray[np.bytes_]:
        return self._file["ids"][:]

    def _committed(self, rows: Rows, features: NDArray[Any]) -> NDArray[np.bool_]:
        return self._sound(rows, features) & (read_rows(self._file["status"], rows) == DONE)

    def _not_committed(self, rows: Rows) -> StoreError:
        n_open = int((read_rows(self._file["status"], rows) != DONE).sum())
        if n_open:
            return StoreError(f"{self.path}: {n_open} of the rows asked for are not done.")
        return StoreError(
            f"{self.path}: {len(rows)} rows are damaged (checksum), first "
            f"{self.ids[rows[0]]!r}. Mark them pending: featurepipe repair {self.path}"
        )

    def _require_finite(self, rows: Rows, features: NDArray[Any]) -> None:
        if features.dtype.kind == "u":
            # To look would take as much memory again as the pixels do.
            return
        odd = rows[~np.isfinite(features).all(axis=1)]
        if len(odd):
            raise StoreError(
                f"{self.path}: {len(odd)} of {len(rows)} rows have features that are not finite, "
                f"first {self.ids[odd[0]]!r}. Expected finite numbers: remove the store, look at "
                "the weights, and extract again with --precision float32."
            )

    def _sound(self, rows: Rows, contents: NDArray[Any]) -> NDArray[np.bool_]:
        digests = read_rows(self._file["digests"], rows)
        found = checksums(self._raw_ids[rows], digests, contents)
        return found == read_rows(self._file["crc32"], rows)

    def _commit(self, rows: Rows, status: int, **columns: NDArray[Any]) -> None:
        place, of_rows = as_slice(rows), self._file["status"]
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
        if self._file.attrs.get("format") != FORMAT.encode():
            raise StoreError(
                f"{self.path} is HDF5 but no feature store of this version of featurepipe "
                f"(expected the format {FORMAT!r}). Name another file, or extract again."
            )
        if about_checksum(read_about(self._file)) != self._file.attrs["crc32"]:
            raise StoreError(
                f"{self.path} is damaged: what tells how it was made does not fit its checksum. "
                "Delete it and extract again."
            )
        lengths = {
            name: self._file[name].shape[0] if name in self._file else None
            for name in ("ids", *ROW_DATASETS)
        }
        if len(set(lengths.values())) != 1:
            raise StoreError(
                f"{self.path} is damaged: its datasets have unequal lengths {lengths}. "
                f"Save what is sound: featurepipe repair {self.path}"
            )
        n_probes, id_bytes = len(self._file["probe"]), self._file["ids"].dtype.itemsize
        expected = expected_datasets(
            len(self), id_bytes, (n_probes, self.n_features), features_dtype(read_about(self._file))
        )
        found = {name: (self._file[name].shape, self._file[name].dtype) for name in expected}
        odd = [name for name in expected if found[name] != expected[name]]
        if odd:
            raise StoreError(
                f"{self.path} is damaged: {odd[0]} is of shape and type {found[odd[0]]}, expected "
                f"{expected[odd[0]]}. Delete it and extract again."
            )


def _unreadable(path: Path, error: Exception) -> str:
    if not h5py.is_hdf5(path):
        what = "is not an HDF5 file (or its beginning is lost). Delete it and extract again."
    elif "truncated" in str(error):
        what = f"is truncated: its end is missing. Save what is sound: featurepipe repair {path}"
    else:
        what = f"cannot be read ({error}). Delete it and extract again."
    return f"The feature store {path} {what}"
