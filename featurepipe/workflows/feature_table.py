"""Features of a store as a table for other programs: .npz, .parquet or .csv."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from featurepipe.errors import UsageError, WorkspaceError
from featurepipe.features.store import FeatureStore, Rows
from featurepipe.manifest import Manifest
from featurepipe.progress import Progress

# Features held at once, in bytes; their text in CSV takes some three times as much.
_CHUNK_BYTES = 2**25

_Cells = list[str | None]
Columns = dict[str, _Cells]
"""Cells of each attribute, None where an image has no label."""

Writer = Callable[[Path, FeatureStore, Rows, NDArray[np.object_], Columns], None]
"""Writes the features of some rows of a store to a path, with their ids and labels."""


def writer_for(target: Path) -> Writer:
    """What writes a table of the format that the suffix of a file names.

    Raises
    ------
    UsageError
        If it names none.
    """
    writers: dict[str, Writer] = {
        ".npz": _write_npz,
        ".parquet": _write_parquet,
        ".csv": _write_csv,
    }
    if target.suffix.lower() not in writers:
        raise UsageError(
            f"Cannot export to {target}: its suffix is {target.suffix!r}. Use .npz, .parquet, "
            ".csv or .h5; for a run, .onnx or .xml."
        )
    return writers[target.suffix.lower()]


def label_cells(manifest: Manifest | None, ids: NDArray[np.object_], path: Path) -> Columns:
    """The classes of each image, by attribute; several of one image are joined by ``|``.

    Parameters
    ----------
    manifest : Manifest or None
    ids : ndarray of shape (n_images,), str
    path : Path
        The store of the images, for errors.

    Raises
    ------
    WorkspaceError
        If the manifest has no labels, or those of other images.
    """
    if manifest is None or not manifest.attribute_names:
        raise WorkspaceError(
            f"There are no labels for {path}. Give them to featurepipe extract or fit with "
            "--attributes or --labels, or export without --labels."
        )
    if not set(ids) & set(manifest.ids):
        raise WorkspaceError(
            f"The labels of {manifest.source} belong to other images than those of {path}. Give "
            "the --workspace of the store."
        )
    table = manifest.table.reindex(ids)
    return {
        name: ["|".join(cell) if isinstance(cell, tuple) else None for cell in table[name]]
        for name in manifest.attribute_names
    }


def _write_npz(
    beside: Path, store: FeatureStore, rows: Rows, ids: NDArray[np.object_], labels: Columns
) -> None:
    arrays: dict[str, Any] = {
        f"label_{name}": np.array([cell or "" for cell in cells], dtype=np.str_)
        for name, cells in labels.items()
    }
    # An open file, since numpy would add a suffix to the name.
    with beside.open("wb") as file:
        np.savez(
            file,
            ids=ids.astype(np.str_),
            features=store.features(rows).astype(store.dtype, copy=False),
            **arrays,
        )


def _write_parquet(
    beside: Path, store: FeatureStore, rows: Rows, ids: NDArray[np.object_], labels: Columns
) -> None:
    schema = _schema(".parquet", store, labels)
    # Hardly two features are equal: a dictionary of them would only cost time and room.
    words = ["id", *labels]
    with (
        # Opened here, since pyarrow opens no path that is not UTF-8.
        beside.open("wb") as file,
        pq.ParquetWriter(file, schema, use_dictionary=words, write_statistics=words) as writer,
    ):
        for words, features in _chunks(store, rows, ids, labels):
            numbers = pa.array(features.ravel().astype(store.dtype, copy=False))
            lists = pa.FixedSizeListArray.from_arrays(numbers, store.n_features)
            writer.write_table(pa.Table.from_arrays([*words, lists], schema=schema))


def _write_csv(
    beside: Path, store: FeatureStore, rows: Rows, ids: NDArray[np.object_], labels: Columns
) -> None:
    schema = _schema(".csv", store, labels)
    with beside.open("wb") as file, pa_csv.CSVWriter(file, schema) as writer:
        for words, features in _chunks(store, rows, ids, labels):
            columns = map(pa.array, np.ascontiguousarray(features.T))
            writer.write_table(pa.Table.from_arrays([*words, *columns], schema=schema))


def _schema(suffix: str, store: FeatureStore, labels: Mapping[str, Any]) -> pa.Schema:
    words = [(name, pa.string()) for name in ("id", *labels)]
    return pa.schema(words + list(feature_columns(suffix, store).items()))


def feature_columns(suffix: str, store: FeatureStore) -> dict[str, pa.DataType]:
    """The columns of features of a file, none in `.npz`: its arrays have names of their own."""
    n_features = store.n_features
    match suffix:
        case ".parquet":
            return {"features": pa.list_(pa.from_numpy_dtype(store.dtype), n_features)}
        case ".csv":
            n_digits = max(4, len(str(n_features - 1)))
            return {f"f{number:0{n_digits}}": pa.float32() for number in range(n_features)}
    return {}


def _chunks(
    store: FeatureStore, rows: Rows, ids: NDArray[np.object_], labels: Columns
) -> Iterator[tuple[list[pa.Array], NDArray[np.float32]]]:
    """Ids and labels of some images after the other, and their features."""
    n_at_once = max(1, _CHUNK_BYTES // (4 * store.n_features))
    with Progress(len(rows), f"Exporting {store.path.stem}", "image") as progress:
        for start in range(0, len(rows), n_at_once):
            part = slice(start, start + n_at_once)
            words = [pa.array(cells[part], pa.string()) for cells in (list(ids), *labels.values())]
            yield words, store.features(rows[part])
            progress.advance(len(rows[part]))
