"""Numbers, names and tables as a terminal shows them."""

import io
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from featurepipe.words import visible

MISSING = "–"
GAP = 2
MIN_WIDTH = 60
_MIN_NAME = 8
# Of private use: it stands for a space while text is wrapped.
_NO_BREAK = "\ue000"

_BYTE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


@dataclass(frozen=True)
class Column:
    r"""A column of a table.

    Attributes
    ----------
    header : str
        Lines are separated by ``\n``.
    cells : sequence of str
        One a row; `table_text` pads them.
    is_name : bool
        Names are aligned on the left, numbers on the right.
    """

    header: str
    cells: Sequence[str]
    is_name: bool = False

    @property
    def width(self) -> int:
        """Characters of the widest cell or line of the header."""
        lines = [*self.header.split("\n"), *self.cells]
        return max(cell_len(line) for line in lines)

    def padded(self, lines: Sequence[str]) -> list[str]:
        """Lines with spaces on the left, if they are no names, up to the column's width."""
        if self.is_name:
            return list(lines)
        return [" " * (self.width - cell_len(line)) + line for line in lines]


def table_width(columns: Sequence[Column]) -> int:
    """Width of a table with these columns side by side."""
    return sum(column.width + GAP for column in columns) - GAP


def table_text(
    columns: Sequence[Column], *, is_terminal: bool = False, bold_rows: Collection[int] = ()
) -> str:
    """A table with one line a row, as wide as `table_width` says.

    Parameters
    ----------
    columns : sequence of Column
        At least one, all of the same length.
    is_terminal : bool
        Whether to add a rule and escape sequences for bold text.
    bold_rows : collection of int
        Positions of the rows to print in bold on a terminal.
    """
    table = Table(
        # The box of a terminal separates columns by one character of its own.
        box=box.SIMPLE_HEAD if is_terminal else None,
        padding=(0, GAP - is_terminal, 0, 0),
        pad_edge=False,
        show_edge=False,
        header_style="bold",
    )
    for column in columns:
        header = "\n".join(column.padded(column.header.split("\n")))
        table.add_column(Text(header), vertical="bottom", no_wrap=True, width=column.width)
    rows = zip(*(column.padded(column.cells) for column in columns), strict=True)
    for position, row in enumerate(rows):
        table.add_row(*map(Text, row), style="bold" if position in bold_rows else None)
    return _rendered(table, table_width(columns), is_terminal)


def fitted(columns: Sequence[Column], width: int) -> list[Column]:
    """The columns with their longest names shortened until all fit side by side."""
    widths = [column.width for column in columns]
    names = [position for position, column in enumerate(columns) if column.is_name]
    while sum(widths) + GAP * (len(widths) - 1) > width:
        longest = max(names, key=lambda position: widths[position])
        if widths[longest] <= _MIN_NAME:
            break
        widths[longest] -= 1
    return [
        replace(column, cells=[shortened(cell, room) for cell in column.cells])
        if column.is_name
        else column
        for column, room in zip(columns, widths, strict=True)
    ]


def heading(text: str, width: int, *, is_terminal: bool = False) -> str:
    """Text wrapped to a width, bold on a terminal."""
    return _rendered(Text(text, "bold"), width, is_terminal)


def paragraph(text: str, width: int, label: str = "") -> str:
    """Text wrapped to a width, beside a label that stands on the first line alone."""
    # A number and its unit stay on one line.
    joined = re.sub(r"(?<=\d) (?=%|ms/image)", _NO_BREAK, text)
    wrapped = _rendered(Text(joined), width - cell_len(label), is_terminal=False)
    lines = wrapped.replace(_NO_BREAK, " ").split("\n")
    beside = [label, *[" " * cell_len(label)] * (len(lines) - 1)]
    return "\n".join(f"{start}{line}".rstrip() for start, line in zip(beside, lines, strict=True))


def shortened(text: str, width: int) -> str:
    """Text that fits a width: where it is longer, its middle is replaced by ``…``.

    Examples
    --------
    >>> shortened("mobilenet_v2-bagged-sgd", 15)
    'mobilen…ged-sgd'
    """
    if cell_len(text) <= width:
        return text
    n_last = (width - 1) // 2
    last = set_cell_size(text[::-1], n_last)[::-1]
    return f"{set_cell_size(text, width - 1 - n_last)}…{last}"


def beginning(text: str, width: int) -> str:
    r"""The beginning of a sentence, on one line that fits a width.

    Examples
    --------
    >>> beginning("an image is\nmissing", 14)
    'an image is m…'
    """
    text = visible(" ".join(text.split()))
    return text if cell_len(text) <= width else f"{set_cell_size(text, width - 1)}…"


def listed(names: Sequence[str], width: int) -> str:
    """As many of the names as fit a width, and how many more there are.

    Examples
    --------
    >>> listed(["black", "blue", "red", "white"], 22)
    'black, blue, … 2 more'
    """
    if not names:
        return "none"
    best, shown = f"{len(names):,}", ""
    for n_shown, name in enumerate(names, start=1):
        shown += (", " if shown else "") + shortened(visible(name), max(width - 12, 12))
        n_more = len(names) - n_shown
        text = f"{shown}, … {n_more:,} more" if n_more else shown
        if cell_len(text) <= width:
            best = text
        elif cell_len(shown) > width:
            break
    return best


def aligned(cells: Iterable[str]) -> list[str]:
    """Numbers padded so that their decimal points, units and intervals line up.

    Examples
    --------
    >>> aligned(["9.5 s", "11 min"])
    [' 9.5 s', '11 min']
    """
    split = [re.fullmatch(rf"({MISSING}|[-\d,]*)(.*)", cell, re.DOTALL) for cell in cells]
    parts = [match.groups() for match in split if match]
    left = max((len(integer) for integer, _ in parts), default=0)
    right = max((len(rest) for _, rest in parts), default=0)
    return [f"{integer:>{left}}{rest:<{right}}" for integer, rest in parts]


def percent(share: Any) -> str:
    """A share of 1 as a percentage.

    Examples
    --------
    >>> percent(0.9653)
    '96.5 %'
    """
    return MISSING if pd.isna(share) else f"{100 * share:.1f} %"


def percent_with_interval(share: Any, low: Any, high: Any) -> str:
    """A share of 1 as a percentage, and its interval where there is one.

    Examples
    --------
    >>> percent_with_interval(0.965, 0.943, 0.979)
    '96.5 % (94.3–97.9)'
    """
    return percent(share) + ("" if pd.isna(low) else f" ({100 * low:.1f}–{100 * high:.1f})")


def figure(value: Any) -> str:
    """A number with 3 significant digits.

    Examples
    --------
    >>> [figure(value) for value in (0.02469, 1.2, 11.84, 12345.6)]
    ['0.0247', '1.20', '11.8', '12,346']
    """
    if pd.isna(value):
        return MISSING
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:#.3g}".rstrip(".")


def count(value: Any) -> str:
    """A whole number with separators of thousands."""
    return MISSING if pd.isna(value) else f"{int(value):,}"


def duration(seconds: Any) -> str:
    """Seconds as a person says them.

    Examples
    --------
    >>> [duration(seconds) for seconds in (0.42, 3.2, 100, 660, 40_000)]
    ['0.4 s', '3 s', '1.7 min', '11 min', '11 h']
    """
    if pd.isna(seconds):
        return MISSING
    if seconds < 1:
        return f"{seconds:.1f} s"
    for size, unit in ((1, "s"), (60, "min"), (3600, "h")):
        amount = seconds / size
        if amount < 90 or unit == "h":
            break
    return f"{amount:.1f} {unit}" if amount < 9.95 and size > 1 else f"{amount:,.0f} {unit}"


def byte_size(n_bytes: Any) -> str:
    """Bytes as a person says them.

    Examples
    --------
    >>> byte_size(2_246_867)
    '2.25 MB'
    """
    if pd.isna(n_bytes):
        return MISSING
    amount = float(n_bytes)
    for unit in _BYTE_UNITS:
        if amount < 999.5 or unit == _BYTE_UNITS[-1]:
            break
        amount /= 1000
    return f"{amount:,.0f} B" if unit == "B" else f"{figure(amount)} {unit}"


def _rendered(renderable: Table | Text, width: int, is_terminal: bool) -> str:
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=is_terminal,
        force_jupyter=False,
        legacy_windows=False,
    )
    with console.capture() as capture:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
