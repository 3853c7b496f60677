"""Reads CSV and Parquet tables as columns of cells."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from featurepipe.errors import FeaturepipeError, ManifestError
from featurepipe.image_types import image_suffixes, looks_like_image
from featurepipe.manifest.cells import Cell, Columns, cell_of
from featurepipe.manifest.csv_tables import read_csv, require_distinct
from featurepipe.manifest.parts import SPLIT_COLUMN
from featurepipe.sources import name_of, open_file
from featurepipe.words import one_line

MAX_EXPANSION = 100
"""How many times its size a Parquet file may decode to. Paths of images differ, so that tables
of them decode to far less."""

_PATH_COLUMNS = (
    "path", "image", "file", "filename", "file_name", "filepath", "image_id", "id", "image_path",
)  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A table of images and labels.

    Attributes
    ----------
    place : str
        Path or URL.
    columns : dict of str to list of (tuple of str or None)
        All columns, that of the paths included.
    findings : list of str
        How it was read.
    """

    place: str
    columns: Columns
    findings: list[str]

    @property
    def name(self) -> str:
        """Its file name."""
        return name_of(self.place)

    def paths(self, column: str) -> list[str]:
        """The cells of a column of paths; empty where they are missing.

        Parameters
        ----------
        column : str
        """
        return [cell[0] if cell else "" for cell in self.columns[column]]

    def named_path_columns(self) -> list[str]:
        """Columns of paths by their values or their names, the likeliest first."""
        named = [name for known in _PATH_COLUMNS for name in self.columns if name.lower() == known]
        likely = [name for name in (*named, *self.columns) if _are_paths(self.columns[name])]
        return list(dict.fromkeys([*likely, *named]))

    def path_columns(self) -> list[str]:
        """Columns that may hold paths: those named, and those whose values mostly differ."""
        differing = [name for name, cells in self.columns.items() if _are_different(cells)]
        return list(dict.fromkeys([*self.named_path_columns(), *differing]))

    def without_paths(self) -> ManifestError:
        """The error for a table in which no column names images."""
        only = next(iter(self.columns.values())) if len(self.columns) == 1 else []
        advice = (
            "Its cells are separated by spaces: separate them by commas, and begin with a header "
            "line such as path,label."
            if _most(only, lambda text: len(text.split()) > 1)
            else f"Name it 'path', or use values ending in {' '.join(image_suffixes())}."
        )
        return ManifestError(
            f"The table {self.place} has no column of image paths (columns: "
            f"{', '.join(self.columns)}). {advice}"
        )


def read_table(place: str) -> Table:
    """Read all columns of a table.

    Parameters
    ----------
    place : str
        Path or URL of a CSV or Parquet file.

    Raises
    ------
    ManifestError
        If it cannot be read, or has no rows.
    """
    suffix = PurePath(place).suffix
    reader = _READERS.get(suffix.lower())
    if reader is None:
        *others, last = _READERS
        raise ManifestError(
            f"The table {place} has the suffix {suffix!r}. Save it as {', '.join(others)} or "
            f"{last}."
        )
    try:
        with open_file(place) as file:
            columns, findings = reader(file, name_of(place))
    except FeaturepipeError:
        raise
    # The type of the error depends on what is wrong with the file.
    except Exception as error:
        raise ManifestError(
            f"Cannot read the table {place} ({one_line(error)}). Expected a valid {suffix} file "
            "(CSV in UTF-8, with a header line)."
        ) from error
    if not any(columns.values()):
        raise ManifestError(f"The table {place} has no rows. Expected one row per image.")
    split = [name for name in columns if name.lower() == SPLIT_COLUMN]
    if len(split) == 1:
        columns = {SPLIT_COLUMN if name in split else name: columns[name] for name in columns}
    return Table(place, columns, findings)


def is_table(place: str) -> bool:
    """Whether a file name has the suffix of a table.

    Parameters
    ----------
    place : str
        Path or URL.
    """
    return PurePath(place).suffix.lower() in _READERS


def _read_parquet(file: IO[bytes], name: str) -> tuple[Columns, list[str]]:
    stored = read_parquet(file, is_wanted=_may_name)
    columns: Columns = {name: [] for name in stored.column_names}
    # There are far fewer classes than rows: equal cells are one object.
    known: dict[Cell, Cell] = {}
    for name, cells in columns.items():
        for chunk in stored[name].chunks:
            for cell in map(cell_of, chunk.to_pylist()):
                cells.append(known.setdefault(cell, cell))
    return columns, []


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
    limit = expansion_limit(file)
    with pq.ParquetFile(file) as opened:
        schema = pa.schema(filter(is_wanted, opened.schema_arrow), opened.schema_arrow.metadata)
        return read_within(opened, schema, limit)


def expansion_limit(file: IO[bytes]) -> int:
    """How many bytes a Parquet file may decode to.

    Parameters
    ----------
    file : binary file
        Read from its start afterwards.
    """
    n_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    return MAX_EXPANSION * n_bytes + 2**26


def read_within(
    file: pq.ParquetFile, schema: pa.Schema, limit: int, groups: Sequence[int] | None = None
) -> pa.Table:
    """Read columns of a Parquet file, if they do not take too much memory.

    Parameters
    ----------
    file : ParquetFile
    schema : Schema
        Of the columns to read.
    limit : int
        How many bytes they may take.
    groups : sequence of int, optional
        The groups of rows to read; by default, all.

    Raises
    ------
    ValueError
        If they take more.
    OSError, ArrowException
        If the file is damaged.
    """
    groups = range(file.num_row_groups) if groups is None else groups
    n_bytes = sum(file.metadata.row_group(number).total_byte_size for number in groups)
    batches = []
    if n_bytes <= limit:
        n_bytes = 0
        for batch in file.iter_batches(1024, row_groups=groups, columns=schema.names):
            batches.append(batch)
            n_bytes += batch.nbytes
            if n_bytes > limit:
                break
    require_distinct(schema.names)
    if n_bytes > limit:
        raise ValueError(f"it holds more than {MAX_EXPANSION} times its size")
    return pa.Table.from_batches(batches, schema)


_READERS: dict[str, Callable[[IO[bytes], str], tuple[Columns, list[str]]]] = {
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": _read_parquet,
}


def _are_paths(cells: list[Cell]) -> bool:
    return _most(cells, lambda text: looks_like_image(text.strip()))


def _are_different(cells: list[Cell]) -> bool:
    counts = Counter(cells)
    counts.pop(None, None)
    return 2 * len(counts) > counts.total()


def _most(cells: list[Cell], has: Callable[[str], bool]) -> bool:
    """Whether most of the different values have a property."""
    present = {cell[0] for cell in set(cells) if cell}
    return 2 * sum(map(has, present)) > len(present)
