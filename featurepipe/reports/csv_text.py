"""Tables as CSV that keeps every name, or that a spreadsheet may open."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurepipe.files import replacing

if TYPE_CHECKING:
    import pandas as pd

# A spreadsheet takes a cell that begins with one of these for a formula.
_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")


def csv_text(table: "pd.DataFrame", float_format: str, *, spreadsheet_safe: bool = False) -> str:
    """A table as CSV: UTF-8, separated by commas, lines ended by a newline.

    Parameters
    ----------
    table : pandas.DataFrame
    float_format : str
        Such as ``"%.6g"``.
    spreadsheet_safe : bool
        Whether to put an apostrophe before each text that a spreadsheet would take for a formula.
    """
    if spreadsheet_safe:
        table = table.map(_not_a_formula)
    lines = _Lines()
    table.to_csv(lines, index=False, float_format=float_format, lineterminator="\r\n")
    return lines.getvalue()


def write_csv(
    table: "pd.DataFrame", path: Path, float_format: str, *, spreadsheet_safe: bool = False
) -> None:
    """Write a table as `csv_text`, completely or not at all.

    Parameters
    ----------
    table : pandas.DataFrame
    path : Path
    float_format, spreadsheet_safe
        As in `csv_text`.

    Raises
    ------
    DiskFullError
        If the disk is full.
    """
    text = csv_text(table, float_format, spreadsheet_safe=spreadsheet_safe)
    with replacing(path) as beside:
        beside.write_text(text, "utf-8", "surrogateescape", newline="\n")


class _Lines(io.StringIO):
    # Python's csv quotes a carriage return within a cell only where lines end in one.
    def write(self, line: str, /) -> int:
        return super().write(line.removesuffix("\r\n") + "\n")


def _not_a_formula(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA_SIGNS) else cell
