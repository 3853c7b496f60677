"""Charts: a drawing with its heading, its caption, and the table of its values."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from featurepipe.reports.page.svg import Scale, line
from featurepipe.reports.plot_text import shorten, text_width
from featurepipe.reports.terminal_text import count, figure, percent_with_interval
from featurepipe.words import visible

WIDTH, HEIGHT = 340.0, 250.0
"""Pixels of a chart of the usual size."""

SERIES = tuple(f"var(--series-{number})" for number in range(1, 7))
MOST_ROWS = 300
"""Rows that a table shows at most."""

MOST_DRAWN = 6
"""Attributes of a run that charts show at most."""

_TITLE_CHARACTERS = 60


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes
    ----------
    text : str
    value : float or None
        Number to sort by, NaN if it is missing; None for a name.
    """

    text: str
    value: float | None = None


@dataclass(frozen=True)
class Values:
    """A table.

    Attributes
    ----------
    columns : tuple of str
        Headings; the first column has names.
    rows : tuple of tuple of Cell
    caption : str
    sortable : bool
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    sortable: bool = False


@dataclass(frozen=True)
class Chart:
    """A drawing with what surrounds it.

    Attributes
    ----------
    heading : str
    drawing : Markup
    caption : str
    values : Values
        What is drawn, in numbers.
    is_wide : bool
        Whether it keeps its size and scrolls where it does not fit.
    values_heading : str
    """

    heading: str
    drawing: Markup
    caption: str
    values: Values
    is_wide: bool = False
    values_heading: str = "Values"


def name_cell(name: str) -> Cell:
    """A cell with a name."""
    return Cell(visible(name))


def count_cell(number: float) -> Cell:
    """A cell with a whole number."""
    return Cell(count(number), float(number))


def figure_cell(value: float | None) -> Cell:
    """A cell with 3 significant digits; None and NaN are missing."""
    return Cell(figure(value), np.nan if value is None else float(value))


def share_cell(share: float | None, low: float = np.nan, high: float = np.nan) -> Cell:
    """A cell with a percentage, and its interval where there is one."""
    return Cell(percent_with_interval(share, low, high), np.nan if share is None else float(share))


def brief(name: str, n_characters: int = _TITLE_CHARACTERS) -> str:
    """A name as the text beside a pointer shows it: visible, and not too long.

    Parameters
    ----------
    name : str
    n_characters : int
    """
    return shorten(visible(name), n_characters)


def fitting(name: str, width_px: float, size_px: float = 12) -> str:
    """A name shortened in its middle to a width; empty if not even a few characters fit.

    Parameters
    ----------
    name : str
    width_px, size_px : float
        Room, and size of the font.
    """
    name = visible(name)
    wide = text_width(name, size_px)
    if wide <= width_px:
        return name
    n_characters = int(len(name) * width_px / wide)
    return shorten(name, n_characters) if n_characters >= 3 else ""


def named(
    x: float,
    y: float,
    name: str,
    width_px: float,
    *,
    size_px: float = 12,
    anchor: str = "start",
    upwards: bool = False,
) -> Markup:
    """A name, shortened to its room; a pointer shows all of it.

    Parameters
    ----------
    x, y : float
    name : str
    width_px, size_px : float
        Room, and size of the font.
    anchor : {"start", "middle", "end"}
    upwards : bool
        Whether it is turned by 90 degrees.
    """
    shown = fitting(name, width_px, size_px)
    turn = Markup(' transform="rotate(-90 {:g} {:g})"').format(x, y) if upwards else Markup("")
    size = Markup(' style="font-size:{:g}px"').format(size_px) if size_px != 12 else Markup("")
    is_cut = shown != visible(name)
    title = Markup("<title>{}</title>").format(visible(name)) if is_cut else Markup("")
    return Markup('<text x="{:g}" y="{:g}" text-anchor="{}"{}{}>{}{}</text>').format(
        x, y, anchor, turn, size, shown, title
    )


def legend(names: Sequence[tuple[str, str, str]], x: float, y: float, width_px: float) -> Markup:
    """Lines with names, one below the other.

    Parameters
    ----------
    names : sequence of (str, str, str)
        Name, CSS class of its line, and colour.
    x, y, width_px : float
        Middle of the first line at the left, and room.
    """
    parts = []
    for number, (name, css, colour) in enumerate(names):
        at = y + 16 * number
        parts.append(line([(x, at), (x + 22, at)], css=css, colour=colour))
        parts.append(named(x + 28, at + 4, name, width_px - 28))
    return Markup("").join(parts)


def unit_scales(
    *, left: float = 50, top: float = 26, right: float = 22, bottom: float = 42
) -> tuple[Scale, Scale]:
    """Scales of two shares over a chart of the usual size."""
    return (
        Scale(0, 1, left, WIDTH - right),
        Scale(0, 1, HEIGHT - bottom, top),
    )


def share_scale(shares: Sequence[float], start_px: float, end_px: float) -> Scale:
    """A scale that shares fill, within 0 and 1; NaN is ignored.

    Parameters
    ----------
    shares : sequence of float
    start_px, end_px : float
    """
    finite = [share for share in shares if np.isfinite(share)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    margin = max(0.08 * (high - low), 0.01)
    return Scale(max(0.0, low - margin), min(1.0, high + margin), start_px, end_px)


def percent_form(scale: Scale) -> str:
    """Format of percentages along a scale, with decimals if it is short."""
    return "{:.0%}" if scale.high - scale.low >= 0.05 else "{:.1%}"


def thinned(n: int, most: int) -> list[int]:
    """At most so many of `n` positions, evenly, with the first and the last."""
    if n <= most:
        return list(range(n))
    return np.unique(np.linspace(0, n - 1, most).round().astype(int)).tolist()
