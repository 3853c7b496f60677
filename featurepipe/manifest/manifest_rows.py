"""ManifestRows: the file of a manifest, read group by group."""

import shutil
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import IO, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from featurepipe.files import disk_full_named, replacing, require_readable
from featurepipe.manifest.cells import Cell, Columns
from featurepipe.manifest.manifest_file import (
    ROWS_PER_GROUP,
    About,
    Description,
    Group,
    column_checksum,
    damage_named,
    read_description,
    tables_of,
    whole_columns,
    write_manifest_file,
)
from featurepipe.manifest.tables import expansion_limit, read_within

# Bytes of a new manifest; a million images take about 6 MB.
_MOST_IN_MEMORY = 2**24
_UNSAVED = Path("a temporary manifest ($TMPDIR)")


class ManifestRows:
    """The images of a manifest, of any number, in the file that holds them.

    No more than one group of `ROWS_PER_GROUP` rows is in memory. Opening reads the description
    alone. Each group is compared with it before any of its rows is given: with the checksums, and
    with the place of its ids between those of the other groups. So ids are sorted and each is
    there once, whichever rows are read.

    Parameters
    ----------
    path : Path
    file : binary file, optional
        The file itself if it has no name; `path` then says what it is. It is closed with the rows.

    Raises
    ------
    ManifestError
        If the file is missing, damaged or something else; so do all methods that read.
    """

    def __init__(self, path: Path, file: IO[bytes] | None = None) -> None:
        self.path = path
        if file is None:
            require_readable(path)
        with damage_named(path):
            # Not a path: its folder might be taken for columns (`a=b/manifest.parquet`).
            self._file = path.open("rb") if file is None else file
            try:
                self._limit = expansion_limit(self._file)
                self._parquet = pq.ParquetFile(self._file)
                self._description = read_description(self._parquet.metadata.metadata)
                _require_layout(self._parquet, self._description)
            except BaseException:
                self._file.close()
                raise
        self._last: tuple[int, pa.Array] | None = None

    @classmethod
    def unsaved(
        cls, ids: Iterable[str], columns: Columns, about: Callable[[], About]
    ) -> "ManifestRows":
        """The images of a new manifest, in memory or in a temporary file, until it is closed.

        Parameters
        ----------
        ids : iterable of str
            Sorted, each once; few of them are in memory at a time.
        columns : dict of str to list of (tuple of str or None)
            Columns of a table, in the order of `ids`; may be empty.
        about : callable
            Gives what else the manifest says; called after the last id.

        Raises
        ------
        DiskFullError
            If the disk is full.
        """
        # Closed by the rows. On the disk it has no name, so a killed process leaves nothing.
        file = tempfile.SpooledTemporaryFile(_MOST_IN_MEMORY)  # noqa: SIM115
        try:
            with disk_full_named(_UNSAVED):
                write_manifest_file(file, list(columns), tables_of(ids, columns), about)
                file.flush()
        except BaseException:
            file.close()
            raise
        return cls(_UNSAVED, file)

    def save(self, path: Path) -> None:
        """Copy the file of the manifest, whole or not at all.

        Parameters
        ----------
        path : Path

        Raises
        ------
        DiskFullError
            If the disk is full.
        """
        self._file.seek(0)
        with replacing(path) as beside, beside.open("wb") as copy:
            shutil.copyfileobj(self._file, copy)

    @property
    def about(self) -> About:
        """What the manifest says beside its images and columns."""
        return self._description.about

    @property
    def root(self) -> str:
        """What ids are relative to, as in `Manifest`."""
        return self.about.root

    @property
    def source(self) -> str:
        """The source of the images, as in `Manifest`."""
        return self.about.source

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of the table of labels."""
        return self._description.columns

    @property
    def checksum(self) -> int:
        """CRC-32 of all that the manifest holds."""
        return self._description.checksum

    def __len__(self) -> int:
        return self._description.n_rows

    def ids(self, start: int = 0, stop: int | None = None) -> pa.StringArray:
        """Ids of consecutive images; only the groups that hold them are read.

        Parameters
        ----------
        start, stop : int
            From which row to before which; by default, all.

        Returns
        -------
        StringArray of length stop - start
        """
        start, stop, _ = slice(start, stop).indices(len(self))
        parts = []
        for number in range(start // ROWS_PER_GROUP, -(-stop // ROWS_PER_GROUP)):
            first = number * ROWS_PER_GROUP
            ids = self._ids_of(number)
            parts.append(ids[max(start - first, 0) : stop - first])
        return pa.concat_arrays(parts) if parts else pa.array([], pa.string())

    def ids_between(self, first_id: str, last_id: str) -> pa.StringArray:
        """Ids of the images from one id to another, both included.

        Parameters
        ----------
        first_id, last_id : str
            Whether or not the manifest has them.
        """
        firsts = [group.first_id for group in self._description.groups]
        start = max(bisect_right(firsts, first_id) - 1, 0) * ROWS_PER_GROUP
        ids = self.ids(start, bisect_right(firsts, last_id) * ROWS_PER_GROUP)
        is_between = pc.and_(pc.greater_equal(ids, first_id), pc.less_equal(ids, last_id))
        return ids.filter(is_between)

    def chunks(self, n_rows: int = ROWS_PER_GROUP) -> Iterator[tuple[int, pa.StringArray]]:
        """All ids, so many at a time.

        Parameters
        ----------
        n_rows : int

        Yields
        ------
        start : int
            The row of the first.
        ids : StringArray
        """
        for start in range(0, len(self), n_rows):
            yield start, self.ids(start, start + n_rows)

    def groups(self) -> Iterator[pa.Table]:
        """All rows with the columns of the table of labels, one group at a time.

        Yields
        ------
        Table
            ``id``, then the columns, each a list of strings or null.
        """
        for number in range(len(self._description.groups)):
            yield self._read(number, self._description.schema).rename_columns(["id", *self.columns])

    def read_all(self) -> tuple[list[str], Columns]:
        """All rows as Python's own objects.

        Returns
        -------
        ids : list of str
        columns : dict of str to list of (tuple of str or None)
            Equal cells are one object.
        """
        ids: list[str] = []
        columns: Columns = {name: [] for name in self.columns}
        known: dict[Cell, Cell] = {None: None}
        for group in self.groups():
            # By place: a table may have a column "id", too.
            ids += group[0].to_pylist()
            for place, cells in enumerate(columns.values(), start=1):
                for cell in group[place].to_pylist():
                    key = None if cell is None else tuple(cell)
                    cells.append(known.setdefault(key, key))
        return ids, columns

    def check(self) -> None:
        """Read everything."""
        for _ in self.groups():
            pass

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ids_of(self, number: int) -> pa.Array:
        # Consecutive chunks are often of one group.
        if self._last is None or self._last[0] != number:
            table = self._read(number, pa.schema([self._description.schema.field("id")]))
            self._last = number, table["id"].chunk(0)
        return self._last[1]

    def _read(self, number: int, schema: pa.Schema) -> pa.Table:
        with damage_named(self.path):
            table = read_within(self._parquet, schema, self._limit, groups=[number])
            columns = whole_columns(table)
            groups = self._description.groups
            _require_group(columns, groups[number])
            if number + 1 < len(groups) and columns[0][-1].as_py() >= groups[number + 1].first_id:
                raise ValueError(_NOT_IN_ORDER)
            return pa.Table.from_arrays(columns, schema=schema)


_NOT_IN_ORDER = "its images are not in order, or one is there twice"


def _require_layout(file: pq.ParquetFile, described: Description) -> None:
    if not file.schema_arrow.equals(described.schema):
        raise ValueError("its columns are others than those of a manifest")
    lengths = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
    *full, last = lengths or [ROWS_PER_GROUP]
    if any(length != ROWS_PER_GROUP for length in full) or not 0 < last <= ROWS_PER_GROUP:
        raise ValueError("its rows are in other groups than those of a manifest")
    if len(described.groups) != len(lengths) or described.n_rows != sum(lengths):
        raise ValueError("its description is of other rows")
    if any(later.first_id <= one.first_id for one, later in pairwise(described.groups)):
        raise ValueError(_NOT_IN_ORDER)
    if any(len(group.checksums) != 1 + len(described.columns) for group in described.groups):
        raise ValueError("its description has another number of checksums")


def _require_group(columns: list[pa.Array], described: Group) -> None:
    """Stop unless columns, the ids first, are those of a group."""
    ids = columns[0]
    if ids.null_count:
        raise ValueError("an id is missing")
    if any(column.flatten().null_count for column in columns[1:]):
        raise ValueError("a label is missing")
    in_order = pc.all(pc.less(ids[:-1], ids[1:])).as_py()
    if in_order is False or ids[0].as_py() != described.first_id:
        raise ValueError(_NOT_IN_ORDER)
    # Of the ids alone, only the first is compared.
    for column, checksum in zip(columns, described.checksums, strict=False):
        if column_checksum(column) != checksum:
            raise ValueError("its checksum does not match")
