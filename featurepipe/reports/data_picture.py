"""One picture of a set of images: their labels, their sizes, and some of them.

Importing this file imports Matplotlib: import it where something is drawn.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray
from PIL import Image

from featurepipe.reports.plots import DPI, default_settings, saved_figure
from featurepipe.reports.terminal_text import shortened
from featurepipe.words import counted, visible

EXAMPLES_OF_EACH = 4
"""Images that are shown of one kind."""

EXAMPLE_PX = 104
"""Longest side of an image that is shown."""

_N_COLUMNS = 3
_COLUMN_IN = 4.0
_MARGIN_IN = 0.15
_NAME_IN = 1.75
_BAR_IN = 0.175
_PANEL_IN = _COLUMN_IN - 2 * _MARGIN_IN
_IMAGE_IN = _PANEL_IN / EXAMPLES_OF_EACH
_PANEL_TITLE_IN = 0.42
_SIZES_IN = 2.6
_TITLE_IN = 0.5
_CELL_TITLE_IN = 0.25

_FONT_PT = 8.0
_PANEL_TITLE_PT = 9.5
_TITLE_PT = 12.0
_MAX_CELLS = 200
_MAX_BARS = 30
_N_RAREST = 9
_BLUE = "#0072b2"
_FROM_HERE_LOGARITHMIC = 20


@dataclass(frozen=True)
class LabelCounts:
    """How many images have each class.

    Attributes
    ----------
    title : str
    counts : dict of str to int
        By class.
    """

    title: str
    counts: dict[str, int]


@dataclass(frozen=True)
class ImageSizes:
    """Sizes of images.

    Attributes
    ----------
    sizes : ndarray of shape (n_images, 2), intp
        Width and height in pixels, at least one.
    n_unread : int
        Images beside these that cannot be read.
    n_images : int
        All images, of which the others were drawn.
    """

    sizes: NDArray[np.intp]
    n_unread: int
    n_images: int


@dataclass(frozen=True)
class Examples:
    """Some images of one kind.

    Attributes
    ----------
    kind : str
    n_images : int
        How many there are.
    pictures : sequence of (PIL.Image.Image or None)
        At most `EXAMPLES_OF_EACH`; None where an image cannot be read.
    """

    kind: str
    n_images: int
    pictures: Sequence[Image.Image | None]


def draw_data(
    title: str,
    labels: Sequence[LabelCounts],
    sizes: ImageSizes,
    examples_title: str,
    examples: Sequence[Examples],
) -> Image.Image:
    """Draw how the labels are distributed, the sizes, and examples of each kind of image.

    Parameters
    ----------
    title : str
    labels : sequence of LabelCounts
        One panel each; of more than 30 classes the most and the least frequent are drawn.
    sizes : ImageSizes
    examples_title : str
    examples : sequence of Examples

    Returns
    -------
    PIL.Image.Image
        RGB, 1,320 px wide. Names are shown escaped and shortened, never interpreted. Characters
        that DejaVu Sans lacks are boxes.
    """
    bars = [_bars(panel.counts) for panel in labels]
    heights = [_PANEL_TITLE_IN + _BAR_IN * max(1, len(rows)) for rows in bars]
    places = _places([*heights, _PANEL_TITLE_IN + _SIZES_IN])
    above = _TITLE_IN + max(top + height for _, top, height in places) + _MARGIN_IN
    n_rows = -(-len(examples) // _N_COLUMNS)
    cell = _CELL_TITLE_IN + _IMAGE_IN
    height_in = above + (_PANEL_TITLE_IN + n_rows * cell if examples else 0) + _MARGIN_IN
    with default_settings():
        figure = Figure((_N_COLUMNS * _COLUMN_IN, height_in), dpi=DPI)
        page, page_in = _Page(figure, height_in), _N_COLUMNS * _COLUMN_IN - 2 * _MARGIN_IN
        page.write(title, _MARGIN_IN, 0.1, page_in, _TITLE_PT)
        for panel, rows, place in zip(labels, bars, places, strict=False):
            _draw_bars(page, panel.title, rows, place)
        _draw_sizes(page, sizes, places[-1])
        if examples:
            page.write(examples_title, _MARGIN_IN, above + 0.12, page_in, _PANEL_TITLE_PT)
            for number, shown in enumerate(examples):
                row, column = divmod(number, _N_COLUMNS)
                _draw_examples(page, shown, column, above + _PANEL_TITLE_IN + row * cell)
        return Image.open(io.BytesIO(saved_figure(figure, "png"))).convert("RGB")


@dataclass(frozen=True)
class _Page:
    """A figure on which everything is placed in inches from the upper left corner."""

    figure: Figure
    height_in: float

    def fitted(self, text: str, width_in: float, size: float = _FONT_PT) -> str:
        """Text on one line, escaped, and shortened in its middle where it is too wide."""
        renderer = FigureCanvasAgg(self.figure).get_renderer()
        font = FontProperties(size=size, weight=_weight(size))
        text, room = visible(text), width_in * self.figure.dpi
        for n_cells in range(_MAX_CELLS, 0, -1):
            said = shortened(text, n_cells)
            if renderer.get_text_width_height_descent(said, font, ismath=False)[0] <= room:
                break
        return said

    def write(
        self, text: str, left: float, top: float, width: float, size: float = _FONT_PT, **style: Any
    ) -> None:
        self.figure.text(
            left / self.figure.get_figwidth(),
            1 - top / self.height_in,
            self.fitted(text, width, size),
            size=size,
            weight=_weight(size),
            va="top",
            parse_math=False,
            **style,
        )

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        page_in = self.figure.get_figwidth()
        bottom = 1 - (top + height) / self.height_in
        return self.figure.add_axes(
            (left / page_in, bottom, width / page_in, height / self.height_in)
        )


def _weight(size: float) -> str:
    return "bold" if size > _FONT_PT else "normal"


Place = tuple[int, float, float]
"""Column of a panel, its top and its height in inches."""


def _places(heights: Sequence[float]) -> list[Place]:
    """Each panel below the shortest column so far."""
    tops = [0.0] * _N_COLUMNS
    places = []
    for height in heights:
        column = int(np.argmin(tops))
        places.append((column, tops[column], height))
        tops[column] += height + _MARGIN_IN
    return places


def _bars(counts: dict[str, int]) -> list[tuple[str, int | None]]:
    """Names and lengths of bars, the longest first; of very many only those at both ends."""
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rows: list[tuple[str, int | None]] = [*order]
    if len(rows) > _MAX_BARS:
        n_first = _MAX_BARS - _N_RAREST - 1
        between = f"… {len(rows) - n_first - _N_RAREST:,} more"
        rows = [*rows[:n_first], (between, None), *rows[-_N_RAREST:]]
    return rows


def _draw_bars(
    page: _Page, title: str, rows: Sequence[tuple[str, int | None]], place: Place
) -> None:
    column, top, height = place
    left, top = column * _COLUMN_IN + _MARGIN_IN, top + _TITLE_IN
    page.write(title, left, top + 0.12, _PANEL_IN, _PANEL_TITLE_PT)
    axes = page.axes(
        left + _NAME_IN,
        top + _PANEL_TITLE_IN,
        _COLUMN_IN - _NAME_IN - 0.75,
        height - _PANEL_TITLE_IN,
    )
    lengths = [n or 0 for _, n in rows]
    axes.barh(range(len(rows)), lengths, height=0.72, color=_BLUE)
    names = [page.fitted(name, _NAME_IN - 0.1) for name, _ in rows]
    axes.set_yticks(range(len(rows)), names, parse_math=False)
    axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    axes.set_xlim(0, max([*lengths, 1]))
    axes.tick_params(length=0)
    axes.set_xticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    for at, (_, n) in enumerate(rows):
        if n is not None:
            axes.annotate(f"{n:,}", (n, at), xytext=(3, 0), textcoords="offset points", va="center")


def _draw_sizes(page: _Page, sizes: ImageSizes, place: Place) -> None:
    column, top, height = place
    left, top = column * _COLUMN_IN + _MARGIN_IN, top + _TITLE_IN
    page.write(_sizes_title(sizes), left, top + 0.12, _PANEL_IN, _PANEL_TITLE_PT)
    page.write(_sizes_text(sizes), left, top + 0.32, _PANEL_IN, color="0.3")
    axes = page.axes(left + 0.65, top + 0.62, _COLUMN_IN - 1.0, height - 1.05)
    different, n_each = np.unique(sizes.sizes, axis=0, return_counts=True)
    area = 9 + 160 * n_each / n_each.max()
    widths, heights = different.T
    axes.scatter(widths, heights, s=area, color=_BLUE, alpha=0.35, linewidths=0)
    _scale(axes, different)
    axes.set_xlabel("width (px)")
    axes.set_ylabel("height (px)")
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _scale(axes: Axes, sizes: NDArray[np.intp]) -> None:
    """Linear axes, or logarithmic ones if sizes differ much."""
    smallest, largest = sizes.min(axis=0), sizes.max(axis=0)
    room = 1.12
    if (largest > _FROM_HERE_LOGARITHMIC * smallest).any():
        room = 1.5
        axes.set_xscale("log")
        axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8) if room > 1.2 else
                               MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))  # fmt: skip
        axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlim(smallest[0] / room, largest[0] * room)
    axes.set_ylim(smallest[1] / room, largest[1] * room)


def _sizes_title(sizes: ImageSizes) -> str:
    n_tried = len(sizes.sizes) + sizes.n_unread
    if n_tried < sizes.n_images:
        return f"sizes of {n_tried:,} images, drawn from {sizes.n_images:,}"
    return f"sizes of all {counted(sizes.n_images, 'image')}"


def _sizes_text(sizes: ImageSizes) -> str:
    width, height = np.median(sizes.sizes, axis=0)
    n_sizes = len(np.unique(sizes.sizes, axis=0))
    text = f"{counted(n_sizes, 'size')}; median {width:,.0f} × {height:,.0f} px"
    return f"{text}; {sizes.n_unread:,} cannot be read" if sizes.n_unread else text


def _draw_examples(page: _Page, shown: Examples, column: int, top: float) -> None:
    left = column * _COLUMN_IN + _MARGIN_IN
    page.write(shown.kind, left, top + 0.05, _PANEL_IN - 0.7)
    # Apart from the name, which may be written from right to left.
    page.write(f"{shown.n_images:,}", left + _PANEL_IN - 0.1, top + 0.05, 0.6, ha="right")
    for number, picture in enumerate(shown.pictures):
        if picture is None:
            continue
        scale = (_IMAGE_IN - 0.06) / max(picture.size)
        width, height = (scale * pixels for pixels in picture.size)
        place = left + number * _IMAGE_IN, top + _CELL_TITLE_IN
        axes = page.axes(*place, width, height)
        axes.imshow(np.asarray(picture), aspect="auto")
        axes.set_axis_off()
