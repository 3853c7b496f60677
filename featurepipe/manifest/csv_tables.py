"""Reads CSV files as spreadsheets and other programs write them."""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from io import TextIOWrapper
from itertools import chain
from typing import IO, TextIO

from featurepipe.errors import ManifestError
from featurepipe.image_types import looks_like_image
from featurepipe.manifest.cells import Cell, Columns, cell_of

_MAX_LINE = 2**24
_QUOTED = re.compile('"[^"]*"')
# At a tie, the first one counts.
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}


def read_csv(file: IO[bytes], name: str) -> tuple[Columns, list[str]]:
    """Read a CSV file in UTF-8 or Windows-1252, with commas, semicolons or tabs between cells.

    Parameters
    ----------
    file : binary file
    name : str
        What messages call it.

    Returns
    -------
    columns : dict of str to list of (tuple of str or None)
    findings : list of str
        How it was read, unless as UTF-8 with commas.

    Raises
    ------
    ManifestError
        If its first line holds data.
    ValueError, csv.Error
        If it cannot be read.
    """
    try:
        columns, separator = _read(file, "utf-8-sig", name)
    except UnicodeDecodeError:
        file.seek(0)
        columns, separator = _read_as_excel_writes(file, name)
        findings = [
            f"Reading {name} as Windows-1252, because it is not UTF-8, for example "
            f"{_first_not_ascii(columns)!r}. If that looks wrong, save the table as UTF-8"
        ]
    else:
        findings = []
    if separator != ",":
        findings.append(f"Reading {name} with {_SEPARATORS[separator]} between cells")
    return columns, findings


def require_distinct(names: Sequence[str]) -> None:
    """Refuse a header in which two columns have the same name.

    Parameters
    ----------
    names : sequence of str

    Raises
    ------
    ValueError
    """
    twice = [name for name, count in Counter(names).items() if name and count > 1]
    if twice:
        raise ValueError(f"two columns are named {twice[0]!r}")


def data_as_header(name: str, image: str) -> ManifestError:
    """The error for a table whose first line is not a header.

    Parameters
    ----------
    name : str
        The table.
    image : str
        Cell of the first line that names an image.
    """
    return ManifestError(
        f"The first line of {name} is not a header: it names the image {image!r}. Add a first line "
        "with the names of the columns, such as path,label."
    )


def _read_as_excel_writes(file: IO[bytes], name: str) -> tuple[Columns, str]:
    try:
        return _read(file, "cp1252", name)
    except UnicodeDecodeError as error:
        raise ValueError("it is neither UTF-8 nor Windows-1252 text") from error


def _read(file: IO[bytes], encoding: str, name: str) -> tuple[Columns, str]:
    text = TextIOWrapper(file, encoding=encoding, newline="")
    try:
        lines = _lines(text)
        first = next(lines, "")
        separator = max(_SEPARATORS, key=_QUOTED.sub("", first).count)
        reader = csv.reader(chain([first], lines), delimiter=separator, strict=True)
        header = [cell.strip() for cell in next(reader, [])]
        for cell in filter(looks_like_image, header):
            raise data_as_header(name, cell)
        require_distinct(header)
        columns: list[list[Cell]] = [[] for _ in header]
        # There are far fewer classes than rows: equal cells are one object.
        known: dict[Cell, Cell] = {}
        for row in filter(None, reader):
            if len(row) != len(header):
                raise ValueError(
                    f"line {reader.line_num} has {len(row)} cells, the header has {len(header)}"
                )
            for cells, value in zip(columns, row, strict=True):
                read = cell_of(value)
                cells.append(known.setdefault(read, read))
    finally:
        # The file is read again if the encoding is another one.
        text.detach()
    # pandas writes its index as a column without a name.
    return {name: columns[k] for k, name in enumerate(header) if name}, separator


def _lines(text: TextIO) -> Iterator[str]:
    while line := text.readline(_MAX_LINE):
        if len(line) == _MAX_LINE:
            raise ValueError(f"it has a line of more than {_MAX_LINE:,} characters")
        if "\0" in line:
            raise ValueError("it is not text in UTF-8")
        yield line


def _first_not_ascii(columns: Columns) -> str:
    cells = chain.from_iterable(columns.values())
    texts = chain(columns, (text for cell in cells for text in cell or ()))
    return next((text for text in texts if not text.isascii()), "")
