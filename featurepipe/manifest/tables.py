"""Reads CSV and Parquet tables as columns of cells."""

import csv
import os
from collections import Counter
from collections.abc import Callable, Iterator
from io import TextIOWrapper
from pathlib import PurePath
from typing import IO, Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from featurepipe.errors import FeaturepipeError, ManifestError
from featurepipe.image_types import image_suffixes, looks_like_image
from featurepipe.sources import open_file
from featurepipe.words import one_line

# The labels of one image in one column; None if missing, an empty tuple for "none of the classes".
Cell = tuple[str, ...] | None
Columns = dict[str, list[Cell]]

MAX_EXPANSION = 100
"""How many times its size a Parquet file may decode to. Paths of images differ, so that tables
of them decode to far less."""

_MAX_LINE = 2**24

_PATH_COLUMNS = (
    "path", "image", "file", "filename", "file_name", "filepath", "image_id", "id", "image_path",
)  # fmt: skip


def read_table(table: str) -> tuple[list[str], Columns]:
    """Read the image paths and the other columns of a table.

    Parameters
    ----------
    table : str
        Path or URL of a CSV or Parquet file.

    Returns
    -------
    paths : list of str
        As in the table; empty if missing.
    columns : dict of str to list of (tuple of str or None)
        The other columns.

    Raises
    ------
    ManifestError
        If it cannot be read, or has no rows or no column of paths.
    """
    suffix = PurePath(table).suffix
    reader = _READERS.get(suffix.lower())
    if reader is None:
        raise ManifestError(
            f"The table {table} has the suffix {suffix!r}. Save it as .csv or .parquet."
        )
    try:
        with open_file(table) as file:
            columns = reader(file)
    except FeaturepipeError:
        raise
    # The type of the error depends on what is wrong with the file.
    except Exception as error:
        raise ManifestError(
            f"Cannot read the table {table} ({one_line(error)}). Expected a valid {suffix} file "
            "(CSV in UTF-8, separated by commas)."
        ) from error
    if not any(columns.values()):
        raise ManifestError(f"The table {table} has no rows. Expected one row per image.")
    paths = columns.pop(_path_column(columns, table))
    return [cell[0] if cell else "" for cell in paths], columns


def is_table(place: str) -> bool:
    """Whether a file name has the suffix of a table.

    Parameters
    ----------
    place : str
        Path or URL.
    """
    return PurePath(place).suffix.lower() in _READERS


def _read_csv(file: IO[bytes]) -> Columns:
    with TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        lines = csv.reader(_lines(text), strict=True)
        header = [name.strip() for name in next(lines, [])]
        rows = []
        for row in filter(None, lines):
            if len(row) != len(header):
                raise ValueError(
                    f"line {lines.line_num} has {len(row)} cells, the header has {len(header)}"
                )
            rows.append([cell_of(value) for value in row])
    _require_distinct(header)
    # pandas writes its index as a column without a name.
    return {name: [row[k] for row in rows] for k, name in enumerate(header) if name}


def _lines(text: TextIO) -> Iterator[str]:
    while line := text.readline(_MAX_LINE):
        if len(line) == _MAX_LINE:
            raise ValueError(f"it has a line of more than {_MAX_LINE:,} characters")
        yield line


def _require_distinct(names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if name and count > 1]
    if twice:
        raise ValueError(f"two columns are named {twice[0]!r}")


def _read_parquet(file: IO[bytes]) -> Columns:
    stored = read_parquet(file, is_wanted=_may_name)
    return {
        name: [cell_of(value) for value in stored[name].to_pylist()] for name in stored.column_names
    }


def _may_name(field: pa.Field) -> bool:
    # Images and their descriptions (bytes, structs) are neither paths nor labels.
    is_list = pa.types.is_list(field.type) or pa.types.is_large_list(field.type)
    value = field.type.value_type if is_list else field.type
    is_bytes = pa.types.is_binary(value) or pa.types.is_large_binary(value)
    is_index = field.name.startswith("__index_level_")
    return not (is_index or is_bytes or pa.types.is_nested(value))


def read_parquet(
    file: IO[bytes], is_wanted: Callable[[pa.Field], bool] = lambda field: True
) -> pa.Table:
    """Read a Parquet file that cannot fill the memory, whatever it declares.

    Parameters
    ----------
    file : binary file
    is_wanted : callable
        Which columns to read.

    Raises
    ------
    ValueError
        If it decodes to more than `MAX_EXPANSION` times its size.
    OSError, ArrowException
        If it is damaged.
    """
    limit = MAX_EXPANSION * file.seek(0, os.SEEK_END) + 2**26
    file.seek(0)
    with pq.ParquetFile(file) as opened:
        groups = (opened.metadata.row_group(k) for k in range(opened.num_row_groups))
        n_bytes, batches = sum(group.total_byte_size for group in groups), []
        schema = pa.schema(filter(is_wanted, opened.schema_arrow), opened.schema_arrow.metadata)
        if n_bytes <= limit:
            n_bytes = 0
            for batch in opened.iter_batches(1024, columns=schema.names):
                batches.append(batch)
                n_bytes += batch.nbytes
                if n_bytes > limit:
                    break
    _require_distinct(schema.names)
    if n_bytes > limit:
        raise ValueError(f"it holds more than {MAX_EXPANSION} times its size")
    return pa.Table.from_batches(batches, schema)


_READERS: dict[str, Callable[[IO[bytes]], Columns]] = {
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


def cell_of(value: Any) -> Cell:
    """Convert a value to a cell: its text, or the texts of a list.

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
    # Parquet stores integers with missing values as floats.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _path_column(columns: Columns, table: str) -> str:
    named = [name for known in _PATH_COLUMNS for name in columns if name.lower() == known]
    candidates = [name for name in (*named, *columns) if _are_paths(columns[name])] or named
    if not candidates:
        raise ManifestError(
            f"The table {table} has no column of image paths (columns: {', '.join(columns)}). "
            f"Name it 'path', or use values ending in {' '.join(image_suffixes())}."
        )
    return candidates[0]


def _are_paths(cells: list[Cell]) -> bool:
    present = [cell for cell in cells if cell]
    return 2 * sum(looks_like_image(cell[0]) for cell in present) > len(present)
