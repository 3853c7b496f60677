"""The file of a manifest: Parquet, written in groups of rows that have checksums.

Every group has `ROWS_PER_GROUP` rows, but for the last. The metadata of the file hold a description
with the first id and the checksums of each group, and the CRC-32 of the description. So a reader
can trust a group without reading the others, and no more than one need be in memory.
"""

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from featurepipe.errors import ManifestError
from featurepipe.manifest.cells import Columns
from featurepipe.manifest.labelling import Labelling
from featurepipe.words import invalid_field, one_line

FORMAT = 3
ROWS_PER_GROUP = 100_000
DESCRIPTION_KEY = b"featurepipe.manifest"
CHECKSUM_KEY = b"featurepipe.manifest.crc32"
COLUMN_PREFIX = "table."

_IDS, _CELLS = pa.string(), pa.list_(pa.string())


class About(BaseModel):
    """What a manifest says beside its images and columns; see `featurepipe.manifest.Manifest`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    root: str
    source: str
    labels_source: str | None
    labelling: Labelling
    findings: tuple[str, ...]
    all_images: bool


class Group(BaseModel):
    """A group of rows.

    Attributes
    ----------
    first_id : str
    checksums : tuple of int
        Of the ids, and of each column.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    first_id: str
    checksums: tuple[int, ...]


class Description(BaseModel):
    """What the file of a manifest says about its content.

    Attributes
    ----------
    format : int
    about : About
    columns : tuple of str
        Names of the columns that were read.
    n_rows : int
    groups : tuple of Group
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    format: int
    about: About
    columns: tuple[str, ...]
    n_rows: int
    groups: tuple[Group, ...]

    @property
    def schema(self) -> pa.Schema:
        """The columns of the file."""
        return schema_of(self.columns)

    @property
    def checksum(self) -> int:
        """CRC-32 of all that the manifest holds."""
        return zlib.crc32(self._text())

    def metadata(self) -> dict[bytes, bytes]:
        """What the file stores of it."""
        return {DESCRIPTION_KEY: self._text(), CHECKSUM_KEY: str(self.checksum).encode()}

    def _text(self) -> bytes:
        return json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()


def tables_of(ids: Iterable[str], columns: Columns) -> Iterator[pa.Table]:
    """Images and their columns as the groups of a file.

    Parameters
    ----------
    ids : iterable of str
        Sorted; no more than one group of them is in memory.
    columns : dict of str to list of (tuple of str or None)
    """
    names, rest = ["id", *map(_name_of, columns)], iter(ids)
    for start in count(0, ROWS_PER_GROUP):
        group = list(islice(rest, ROWS_PER_GROUP))
        if not group:
            return
        rows = slice(start, start + ROWS_PER_GROUP)
        cells = [pa.array(column[rows], _CELLS) for column in columns.values()]
        yield pa.Table.from_arrays([pa.array(group, _IDS), *cells], names)


def write_manifest_file(
    path: Path | IO[bytes],
    columns: Sequence[str],
    groups: Iterable[pa.Table],
    about: Callable[[], About],
) -> None:
    """Write the file of a manifest, one group in memory at a time.

    Parameters
    ----------
    path : Path or binary file
    columns : sequence of str
        Names of the columns that were read.
    groups : iterable of Table
        Those of the file, such as `tables_of` gives; ids are sorted, each once over all groups.
    about : callable
        Gives what else the manifest says; called after the last group.
    """
    described: list[Group] = []
    n_rows = 0
    with pq.ParquetWriter(path, schema_of(columns)) as writer:
        for group in groups:
            checksums = tuple(map(column_checksum, whole_columns(group)))
            described.append(Group(first_id=group["id"][0].as_py(), checksums=checksums))
            n_rows += len(group)
            writer.write_table(group, row_group_size=len(group))
        description = Description(
            format=FORMAT,
            about=about(),
            columns=tuple(columns),
            n_rows=n_rows,
            groups=tuple(described),
        )
        writer.add_key_value_metadata(description.metadata())


def schema_of(columns: Sequence[str]) -> pa.Schema:
    """The columns of a file: the ids, then those that were read.

    Parameters
    ----------
    columns : sequence of str
        Names of the columns that were read.
    """
    return pa.schema([("id", _IDS), *((_name_of(name), _CELLS) for name in columns)])


def _name_of(column: str) -> str:
    return f"{COLUMN_PREFIX}{column}"


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file of a manifest raises into an error that names it.

    Raises
    ------
    ManifestError
        If anything is raised within.
    """
    try:
        yield
    # The type of the error depends on what is wrong with the file.
    except Exception as error:
        reason = invalid_field(error) if isinstance(error, ValidationError) else one_line(error)
        raise ManifestError(
            f"Cannot read the manifest {path} ({reason}). Remove it, and create it again with "
            "`featurepipe extract SOURCE`."
        ) from error


def read_description(metadata: dict[bytes, bytes] | None) -> Description:
    """Read and check the description in the metadata of a file, within `damage_named`.

    Parameters
    ----------
    metadata : dict of bytes to bytes or None

    Raises
    ------
    Exception
        If it is missing or damaged; its type depends on what is wrong.
    """
    text = (metadata or {}).get(DESCRIPTION_KEY, b"{}")
    described = json.loads(text)
    if not isinstance(described, dict):
        raise TypeError(f"its description is a {type(described).__name__}")
    if described.get("format") != FORMAT:
        raise ValueError(f"its format is {described.get('format')}, not {FORMAT}")
    if (metadata or {}).get(CHECKSUM_KEY) != str(zlib.crc32(text)).encode():
        raise ValueError("its description does not match its checksum")
    return Description.model_validate_json(json.dumps(described))


def whole_columns(table: pa.Table) -> list[pa.Array]:
    """The columns of a table, each as one array."""
    # Concatenating one chunk copies nothing.
    return [column.combine_chunks() for column in table.itercolumns()]


def column_checksum(column: pa.Array) -> int:
    """CRC-32 of strings, or of lists of strings, however Arrow stores them.

    It is that of the lengths of the lists (int32, -1 for None), of the lengths of the strings in
    bytes (int32) and of their bytes, in this order.

    Parameters
    ----------
    column : StringArray or ListArray
        No string is None.
    """
    checksum = 0
    if pa.types.is_list(column.type):
        checksum = _checksum(pc.fill_null(pc.list_value_length(column), -1), checksum)
        column = column.flatten()
    checksum = _checksum(pc.binary_length(column), checksum)
    if not len(column):
        return checksum
    _, offsets, values = column.buffers()
    ends = np.frombuffer(offsets, np.int32)[column.offset :][: len(column) + 1]
    # Strings that are all empty may have no values.
    return zlib.crc32(memoryview(values or b"")[ends[0] : ends[-1]], checksum)


def _checksum(lengths: pa.Array, checksum: int) -> int:
    return zlib.crc32(np.ascontiguousarray(lengths.to_numpy(), "<i4").data, checksum)
