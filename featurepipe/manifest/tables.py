"""Tables on disk: CSV and Parquet files become columns of cells."""

import csv
from collections import Counter
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import PurePath
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from featurepipe.errors import ManifestError
from featurepipe.manifest.listing import IMAGE_SUFFIXES, is_image
from featurepipe.manifest.words import one_line
from featurepipe.sources import open_file

# What a table holds for one image in one column, or a folder for one attribute;
# None where it holds nothing, an empty tuple where it says "none of the classes".
Cell = tuple[str, ...] | None
Columns = dict[str, list[Cell]]

_PATH_COLUMNS = (
    "path", "image", "file", "filename", "file_name", "filepath", "image_id", "id", "image_path",
)  # fmt: skip


def read_table(table: str) -> tuple[list[str], Columns]:
    """Images that a table names, and what it says of them.

    Parameters
    ----------
    table : str
        Path or URL of a CSV or Parquet file.

    Returns
    -------
    paths : list of str
        As the table has them; empty where missing.
    columns : dict of str to list of (tuple of str or None)
        The table's other columns.

    Raises
    ------
    ManifestError
        If it cannot be read, or has no rows or no column of paths.
    """
    suffix = PurePath(table).suffix
    reader = _READERS.get(suffix.lower())
    if reader is None:
        raise ManifestError(
            f"Table {table} is of the type {suffix!r}, expected .csv or .parquet. Save it as one "
            "of these."
        )
    try:
        with open_file(table) as file:
            columns = reader(file)
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
        raise ManifestError(
            f"Table {table} cannot be read ({one_line(error)}): expected a sound {suffix} "
            "file (CSV: UTF-8, parted by commas). Mend it or save it anew."
        ) from error
    if not any(columns.values()):
        raise ManifestError(f"Table {table} holds no rows: expected one per image.")
    paths = columns.pop(_path_column(columns, table))
    return [cell[0] if cell else "" for cell in paths], columns


def is_table(place: str) -> bool:
    """Whether a file is named as a table.

    Parameters
    ----------
    place : str
        Path or URL.
    """
    return PurePath(place).suffix.lower() in _READERS


def _read_csv(file: IO[bytes]) -> Columns:
    with TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        lines = csv.reader(text, strict=True)
        header = [name.strip() for name in next(lines, [])]
        rows = []
        for row in filter(None, lines):
            if len(row) != len(header):
                raise ValueError(
                    f"line {lines.line_num} has {len(row)} cells, the header has {len(header)}"
                )
            rows.append([cell_of(value) for value in row])
    twice = [name for name, count in Counter(header).items() if name and count > 1]
    if twice:
        raise ValueError(f"two columns are called {twice[0]!r}")
    # pandas writes its index under an empty name.
    return {name: [row[k] for row in rows] for k, name in enumerate(header) if name}


def _read_parquet(file: IO[bytes]) -> Columns:
    with pq.ParquetFile(file) as opened:
        stored = opened.read()
    return {
        field.name: [cell_of(value) for value in stored[field.name].to_pylist()]
        for field in stored.schema
        if _may_name(field.type) and not field.name.startswith("__index_level_")
    }


def _may_name(kind: pa.DataType) -> bool:
    # Pictures and descriptions of them (bytes, structs) are neither paths nor labels.
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    value = kind.value_type if is_list else kind
    is_bytes = pa.types.is_binary(value) or pa.types.is_large_binary(value)
    return not (is_bytes or pa.types.is_nested(value))


_READERS: dict[str, Callable[[IO[bytes]], Columns]] = {
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


def cell_of(value: Any) -> Cell:
    """What a value says as a cell: its text, or the texts of a list.

    Parameters
    ----------
    value : object
        A string, number, bool or None, or a list of them.
    """
    if isinstance(value, list):
        return tuple(text for text in map(_text, value) if text.strip())
    text = _text(value)
    return (text,) if text.strip() else None


def _text(value: Any) -> str:
    if value is None or value != value:
        return ""
    # Parquet holds whole numbers beside missing ones as floats.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _path_column(columns: Columns, table: str) -> str:
    named = [name for known in _PATH_COLUMNS for name in columns if name.lower() == known]
    candidates = [name for name in (*named, *columns) if _are_paths(columns[name])] or named
    if not candidates:
        raise ManifestError(
            f"Table {table} has no column of image paths among {', '.join(columns)}: expected one "
            f"called 'path', or one whose values end in {' '.join(IMAGE_SUFFIXES)}. Name it 'path'."
        )
    return candidates[0]


def _are_paths(cells: list[Cell]) -> bool:
    present = [cell for cell in cells if cell]
    return 2 * sum(is_image(cell[0]) for cell in present) > len(present)
