"""The course of a training -> its curves, as PNG and SVG.

Matplotlib is used by its objects alone, so that no display is needed and no figure stays open.
Whoever imports this file imports Matplotlib: do so where something is drawn.
"""

import io
import math
import textwrap
import threading
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

_PARTS = ("train", "validation")
_AXIS_LABELS = {"loss": "loss (nats)", "accuracy": "accuracy (share right)"}

# Blue and vermilion of Okabe & Ito (2008), Color universal design; in grey the dashes tell, whose
# gaps are wider than a marker.
_LINES: dict[str, dict[str, Any]] = {
    "train": {"color": "#0072b2", "linestyle": (0, (3, 2.7)), "marker": "o"},
    "validation": {"color": "#d55e00", "linestyle": "-", "marker": "s"},
}
_LINE: dict[str, Any] = {"linewidth": 1.3, "markersize": 3, "markeredgewidth": 0}
_BEST: dict[str, Any] = {"color": "black", "linewidth": 1.1, "linestyle": ":", "zorder": 1.5}
_RING: dict[str, Any] = {"marker": "o", "markerfacecolor": "none", "markersize": 8}
_BORDER: dict[str, Any] = {"color": "0.45", "linewidth": 0.7}
_NOT_FINITE: dict[str, Any] = {"facecolor": "0.88", "edgecolor": "none"}

_PANEL_WIDTH_IN = {1: 4.5, 2: 3.5}
"""By how many outputs lie side by side."""

_ROW_IN = 2.15
_ONLY_ROW_IN = 2.8
_FONT_PT = 8.0
_NAME_PT = 9.0
_TITLE_PT = 11.0
_LINE_HEIGHT = 1.35
_CHARACTER_WIDTH = 0.58
"""Of a character of DejaVu Sans, in parts of its size: its mean, and a little more."""

_MOST_IN_ONE_COLUMN = 4
_MOST_LINES = 2
_MOST_OF_STAGE = 24
_FEW_EPOCHS = 5
_MOST_MARKED = 50
_FROM_HERE_LOGARITHMIC = 30
_DPI = 110

_STYLED = ("axes", "figure", "font", "grid", "image", "legend", "lines", "mathtext", "patch",
           "path", "savefig", "svg", "text", "xtick", "ytick")  # fmt: skip
_SETTINGS: dict[str, Any] = {
    "font.size": _FONT_PT,
    # Named for every text of an SVG, all of them.
    "font.sans-serif": ["DejaVu Sans", "Arial"],
    "svg.fonttype": "none",
    "svg.hashsalt": "featurepipe",
}
_SETTINGS_LOCK = threading.Lock()


@dataclass(frozen=True)
class _Panel:
    """What one pair of axes shows: a measure of one output, or the loss of all together."""

    name: str
    measure: str
    gid: str
    values: dict[str, NDArray[np.float64]]

    @property
    def shown(self) -> dict[str, NDArray[np.float64]]:
        """The parts of which there is anything to draw."""
        return {part: each for part, each in self.values.items() if np.isfinite(each).any()}

    @property
    def not_finite(self) -> NDArray[np.bool_]:
        """Epochs whose loss is no finite number; none where a part has no losses at all."""
        values = np.array(list((self.shown or self.values).values()))
        return np.isnan(values).any(axis=0) & (self.measure == "loss")


@dataclass(frozen=True)
class _Course:
    """What all panels share: the epochs, the first of each stage, and the best one."""

    epochs: NDArray[np.int64]
    stages: tuple[tuple[int, str], ...]
    best: int | None


def plot_training(history: pd.DataFrame, title: str) -> dict[str, bytes]:
    """Losses and accuracies of a training, epoch by epoch.

    Parameters
    ----------
    history : pandas.DataFrame
        One row an epoch, at least one: ``epoch`` (int, counting on over the stages), ``stage``
        (str), ``train_loss`` and ``validation_loss`` (of all outputs together), ``best`` (bool;
        True for the epoch whose weights were kept, if any), and for each output
        ``train_loss:NAME``, ``validation_loss:NAME``, ``train_accuracy:NAME`` and
        ``validation_accuracy:NAME``. Other columns are not looked at. Losses are in nats,
        accuracies in [0, 1]; NaN and infinity leave a gap, and a loss that has one is shaded there.
    title : str

    Returns
    -------
    dict of str to bytes
        ``training.png`` and ``training.svg``; the same bytes for the same input and version of
        Matplotlib. Text of the SVG is text. Its lines have ids: ``train-`` and ``validation-``,
        each with ``loss-total``, ``loss-1``, ``accuracy-1``, and so on in the order of the outputs.
        The total is left out where there is exactly one output. Losses have a logarithmic
        axis where they differ by more than a factor of 30. The PNG shows boxes for characters
        that DejaVu Sans lacks, such as Chinese ones.
    """
    with _own_settings():
        figure = _draw(_course(history), _panels(history), title)
        return {f"training.{kind}": _saved(figure, kind) for kind in ("png", "svg")}


@contextmanager
def _own_settings() -> Iterator[None]:
    """Matplotlib as it comes, whatever style somebody set, and its SVGs reproducible.

    Matplotlib can be told some of this only by settings of the whole process: one figure at a
    time, and afterwards they are what they were.
    """
    usual: dict[Any, Any] = {
        name: value
        for name, value in matplotlib.rcParamsDefault.items()
        if name.split(".")[0] in _STYLED
    }
    settings = usual | _SETTINGS
    with _SETTINGS_LOCK, matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _saved(figure: Figure, kind: str) -> bytes:
    # What would tell the date, or name Matplotlib's version, is left out.
    metadata = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=_DPI, metadata=metadata)
    return file.getvalue()


def _course(history: pd.DataFrame) -> _Course:
    epochs = history["epoch"].to_numpy(np.int64)
    stages = groupby(zip(epochs, history["stage"], strict=True), key=lambda row: row[1])
    begins = tuple((int(next(rows)[0]), _plain(str(stage))) for stage, rows in stages)
    best = epochs[history["best"].to_numpy(bool)]
    return _Course(epochs, begins, int(best[0]) if len(best) else None)


def _panels(history: pd.DataFrame) -> list[_Panel]:
    """The total, unless there is exactly one output, then loss and accuracy of each output."""
    outputs = [
        name.removeprefix("train_loss:")
        for name in map(str, history.columns)
        if name.startswith("train_loss:")
    ]
    total = _Panel("total", "loss", "loss-total", _values(history, "loss"))
    of_outputs = [
        _Panel(output, measure, f"{measure}-{number}", _values(history, f"{measure}:{output}"))
        for number, output in enumerate(outputs, start=1)
        for measure in _AXIS_LABELS
    ]
    return of_outputs if len(outputs) == 1 else [total, *of_outputs]


def _values(history: pd.DataFrame, measure: str) -> dict[str, NDArray[np.float64]]:
    """Of each part, with NaN for whatever is no finite number."""
    values = {part: history[f"{part}_{measure}"].to_numpy(np.float64) for part in _PARTS}
    return {part: np.where(np.isfinite(each), each, np.nan) for part, each in values.items()}


def _draw(course: _Course, panels: list[_Panel], title: str) -> Figure:
    has_total = len(panels) % 2
    n_outputs = len(panels) // 2
    n_beside = 1 if n_outputs <= _MOST_IN_ONE_COLUMN else 2
    n_rows = has_total + math.ceil(n_outputs / n_beside)
    panel_in, n_columns = _PANEL_WIDTH_IN[n_beside], 2 * n_beside
    title = _wrapped(_plain(title), n_columns * panel_in, _TITLE_PT)
    above_in = _LINE_HEIGHT * (_TITLE_PT * (1 + title.count("\n")) + 2 * _FONT_PT) / 72
    height_in = above_in + (n_rows * _ROW_IN if n_rows > 1 else _ONLY_ROW_IN)
    engine = ConstrainedLayoutEngine(
        h_pad=0.07, w_pad=0.09, rect=(0, 0, 1, 1 - above_in / height_in)
    )
    figure = Figure((n_columns * panel_in, height_in), layout=engine)
    grid = GridSpec(n_rows, n_columns, figure)
    for place, panel in enumerate(panels, start=n_columns - 1 if has_total else 0):
        row, column = divmod(place, n_columns)
        is_total = has_total and row == 0
        axes = figure.add_subplot(grid[0, :] if is_total else grid[row, column])
        width_in = n_columns * panel_in if is_total else panel_in
        _draw_panel(axes, course, panel, width_in, stages_named=row == 0)
    _head(figure, title, _legend(course, panels))
    return figure


def _head(figure: Figure, title: str, legend: list[Line2D | Patch]) -> None:
    left, top = 0.1 / figure.get_figwidth(), 1 - 0.06 / figure.get_figheight()
    below = top - (1 + title.count("\n")) * _LINE_HEIGHT * _TITLE_PT / 72 / figure.get_figheight()
    figure.text(left, top, title, va="top", fontsize=_TITLE_PT, parse_math=False)
    figure.legend(
        handles=legend, loc="upper left", bbox_to_anchor=(left, below), ncols=len(legend),
        frameon=False, borderaxespad=0, borderpad=0.2,
    )  # fmt: skip


def _legend(course: _Course, panels: list[_Panel]) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [
        Line2D([], [], label=part, **_LINE, **_LINES[part]) for part in _PARTS
    ]
    if course.best is not None:
        label = f"weights kept: those of epoch {course.best}"
        handles.append(Line2D([], [], label=label, **_RING, **_BEST))
    if any(panel.not_finite.any() for panel in panels):
        handles.append(Patch(label="a loss is no finite number", **_NOT_FINITE))
    return handles


def _draw_panel(
    axes: Axes, course: _Course, panel: _Panel, width_in: float, *, stages_named: bool
) -> None:
    _draw_axes(axes, course, panel)
    _draw_lines(axes, course, panel)
    _shade(axes, course, panel.not_finite)
    _mark_best(axes, course, panel)
    for number, (begin, _) in enumerate(course.stages[1:], start=2):
        axes.axvline(begin - 0.5, gid=f"stage-{number}-{panel.gid}", zorder=1, **_BORDER)
    n_lines = _name_stages(axes, course, 72 * (width_in - 1)) if stages_named else 0
    name = _wrapped(_plain(panel.name), width_in - 0.7, _NAME_PT)
    pad = 4 + n_lines * _LINE_HEIGHT * _FONT_PT
    axes.set_title(name, loc="left", fontsize=_NAME_PT, parse_math=False, pad=pad)


def _draw_axes(axes: Axes, course: _Course, panel: _Panel) -> None:
    axes.set_xlabel("epoch")
    axes.set_ylabel(_AXIS_LABELS[panel.measure])
    axes.set_xlim(course.epochs[0] - 0.5, course.epochs[-1] + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_lines(axes: Axes, course: _Course, panel: _Panel) -> None:
    shown = panel.shown
    for part, values in shown.items():
        (line,) = axes.plot(course.epochs, values, **_LINE, **_LINES[part])
        line.set_gid(f"{part}-{panel.gid}")
        if len(values) <= _FEW_EPOCHS:
            line.set_markersize(5)
        elif len(values) > _MOST_MARKED:
            line.set_markevery(_alone(values))
    if not shown:
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", color="0.3")
        axes.set_yticks([])
        return
    scale = _scale_losses if panel.measure == "loss" else _scale_accuracies
    scale(axes, np.concatenate(list(shown.values())))


def _alone(values: NDArray[np.float64]) -> list[int]:
    """Epochs of which no line is seen, since those before and after have no value."""
    beside = np.pad(np.isfinite(values), 1)
    return [int(place) for place in np.flatnonzero(beside[1:-1] & ~beside[:-2] & ~beside[2:])]


def _scale_losses(axes: Axes, losses: NDArray[np.float64]) -> None:
    low, high = np.nanmin(losses), np.nanmax(losses)
    if not 0 < _FROM_HERE_LOGARITHMIC * low < high:
        return
    axes.set_yscale("log")
    axes.set_ylabel("loss (nats, log scale)")
    # Powers of ten alone would be too few over three decades, and more too many beyond.
    subs = (1.0, 2.0, 5.0) if high < 500 * low else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=7))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))


def _scale_accuracies(axes: Axes, accuracies: NDArray[np.float64]) -> None:
    low, high = np.nanmin(accuracies), np.nanmax(accuracies)
    margin = max(0.06 * (high - low), 0.01)
    # On the very edge half of a line would be hidden.
    axes.set_ylim(max(low - margin, -0.02), min(high + margin, 1.02))


def _shade(axes: Axes, course: _Course, where: NDArray[np.bool_]) -> None:
    for is_meant, rows in groupby(zip(where, course.epochs, strict=True), lambda row: row[0]):
        epochs = [epoch for _, epoch in rows]
        if is_meant:
            axes.axvspan(epochs[0] - 0.5, epochs[-1] + 0.5, zorder=0, **_NOT_FINITE)


def _mark_best(axes: Axes, course: _Course, panel: _Panel) -> None:
    if course.best is None:
        return
    axes.axvline(course.best, gid=f"best-{panel.gid}", **_BEST)
    value = panel.values["validation"][course.epochs == course.best]
    if np.isfinite(value).all():
        axes.plot([course.best], value, color="black", linestyle="none", **_RING)


def _name_stages(axes: Axes, course: _Course, width_pt: float) -> int:
    """Write above the axes what the stages are called; the number of lines this takes."""
    names = [_shortened(name, _MOST_OF_STAGE) for _, name in course.stages]
    begins = [begin - 0.5 for begin, _ in course.stages]
    from_left = np.subtract(begins, begins[0]) / len(course.epochs)
    levels = _levels(from_left, [_width_pt(name, _FONT_PT) + 6 for name in names], width_pt)
    for begin, name, level in zip(begins, names, levels, strict=True):
        height = 2 + level * _LINE_HEIGHT * _FONT_PT
        above: dict[str, Any] = {
            "xy": (begin, 1), "xycoords": axes.get_xaxis_transform(), "textcoords": "offset points",
        }  # fmt: skip
        axes.annotate(name, xytext=(3, height), color="0.25", parse_math=False, **above)
        if begin != begins[0]:
            pole = {"arrowstyle": "-", "shrinkA": 0, "shrinkB": 0, **_BORDER}
            axes.annotate("", xytext=(0, height + _FONT_PT), arrowprops=pole, **above)
    return 1 + max(levels)


def _levels(from_left: NDArray[np.float64], widths_pt: list[float], width_pt: float) -> list[int]:
    """In which line above the axes each stage is named, so that no names overlap.

    A name stands to the right of a pole on its border, and higher than the poles that it would
    cross otherwise: of a heap of short stages the last is named lowest.

    Parameters
    ----------
    from_left : ndarray of shape (n_stages,), float64
        Where each begins, in parts of the width.
    widths_pt : list of float
        Of the names.
    width_pt : float
        Of the axes with the names that stand out to the right.
    """
    # Names that stand out make the axes narrower.
    placed = zip(from_left, widths_pt, strict=True)
    axes_pt = min([width_pt, *((width_pt - name_pt) / at for at, name_pt in placed if at)])
    levels: list[int] = []
    for place in reversed(range(len(widths_pt))):
        end = from_left[place] + widths_pt[place] / axes_pt
        later = zip(from_left[place + 1 :], reversed(levels), strict=True)
        levels.append(1 + max((level for other, level in later if other < end), default=-1))
    return levels[::-1]


def _plain(text: str) -> str:
    """Text without line breaks, and without what XML or UTF-8 does not allow."""
    text = " ".join(text.split())
    return "".join(
        "\ufffd" if unicodedata.category(each) in ("Cc", "Cs") or each in "\ufffe\uffff" else each
        for each in text
    )


def _wrapped(text: str, width_in: float, size_pt: float) -> str:
    """Text in at most two lines, in its middle shortened if need be."""
    character_pt = _width_pt(text, size_pt) / max(1, len(text))
    n_characters = int(72 * width_in / max(1, character_pt))
    # A line may break early, at the end of a word.
    text = _shortened(text, int(0.85 * _MOST_LINES * n_characters))
    return "\n".join(textwrap.wrap(text, n_characters, max_lines=_MOST_LINES, placeholder="…"))


def _shortened(text: str, n_characters: int) -> str:
    half = (n_characters - 1) // 2
    return text if len(text) <= n_characters else f"{text[:half]}…{text[-half:]}"


def _width_pt(text: str, size_pt: float) -> float:
    """About how wide a line is; Chinese characters are twice as wide as others."""
    n = sum(1 + (unicodedata.east_asian_width(each) in "WF") for each in text)
    return n * _CHARACTER_WIDTH * size_pt
