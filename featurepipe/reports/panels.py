"""Panels: the values that each pair of axes shows of a training, and how they are drawn."""

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from featurepipe.reports.plot_text import (
    LINE_HEIGHT,
    plain_text,
    shorten,
    stack_names,
    text_width,
    wrap,
)

PARTS = ("train", "validation")
FONT_PT = 8.0

# Blue and vermilion of Okabe & Ito (2008), Color universal design. In greyscale the dashes
# distinguish them; their gaps are wider than a marker.
_LINES: dict[str, dict[str, Any]] = {
    "train": {"color": "#0072b2", "linestyle": (0, (3, 2.7)), "marker": "o"},
    "validation": {"color": "#d55e00", "linestyle": "-", "marker": "s"},
}
_LINE: dict[str, Any] = {"linewidth": 1.3, "markersize": 3, "markeredgewidth": 0}
LINE_STYLES = {part: {**_LINE, **style} for part, style in _LINES.items()}
BEST_STYLE: dict[str, Any] = {"color": "black", "linewidth": 1.1, "linestyle": ":", "zorder": 1.5}
RING_STYLE: dict[str, Any] = {"marker": "o", "markerfacecolor": "none", "markersize": 8}
NOT_FINITE_STYLE: dict[str, Any] = {"facecolor": "0.88", "edgecolor": "none"}
_BORDER: dict[str, Any] = {"color": "0.45", "linewidth": 0.7}

_AXIS_LABELS = {"loss": "loss (nats)", "accuracy": "accuracy (share right)"}
_NAME_PT = 9.0
_MOST_OF_STAGE = 24
_FEW_EPOCHS = 5
_MOST_MARKED = 50
_FROM_HERE_LOGARITHMIC = 30


@dataclass(frozen=True)
class Panel:
    """What one pair of axes shows: a measure of one output, or the total loss.

    Attributes
    ----------
    name : str
        Of the output, or ``"total"``.
    measure : {"loss", "accuracy"}
    gid : str
        Id of its lines in an SVG.
    values : dict of str to ndarray of shape (n_epochs,), float64
        For each part; NaN where a value is not finite.
    """

    name: str
    measure: str
    gid: str
    values: dict[str, NDArray[np.float64]]

    @property
    def shown(self) -> dict[str, NDArray[np.float64]]:
        """Values of the parts that have any."""
        return {part: values for part, values in self.values.items() if np.isfinite(values).any()}

    @property
    def not_finite(self) -> NDArray[np.bool_]:
        """Epochs whose loss is not finite; parts without any loss are ignored."""
        values = np.array(list((self.shown or self.values).values()))
        return np.isnan(values).any(axis=0) & (self.measure == "loss")


@dataclass(frozen=True)
class Course:
    """What all panels share: the epochs, the first one and the name of each stage, the best one.

    Attributes
    ----------
    epochs : ndarray of shape (n_epochs,), int64
    stages : tuple of (int, str)
    best : int or None
        None if no weights were kept.
    """

    epochs: NDArray[np.int64]
    stages: tuple[tuple[int, str], ...]
    best: int | None


def read_course(history: pd.DataFrame) -> Course:
    """Read the epochs and stages of a training.

    Parameters
    ----------
    history : pandas.DataFrame
        See `featurepipe.reports.plots.plot_training`.
    """
    epochs = history["epoch"].to_numpy(np.int64)
    stages = groupby(zip(epochs, history["stage"], strict=True), key=lambda row: row[1])
    begins = tuple((int(next(rows)[0]), plain_text(str(stage))) for stage, rows in stages)
    best = epochs[history["best"].to_numpy(bool)]
    return Course(epochs, begins, int(best[0]) if len(best) else None)


def read_panels(history: pd.DataFrame) -> list[Panel]:
    """The total loss, unless there is exactly one output, then loss and accuracy of each output.

    Parameters
    ----------
    history : pandas.DataFrame
        See `featurepipe.reports.plots.plot_training`.
    """
    outputs = [
        name.removeprefix("train_loss:")
        for name in map(str, history.columns)
        if name.startswith("train_loss:")
    ]
    total = Panel("total", "loss", "loss-total", _values(history, "loss"))
    by_output = [
        Panel(output, measure, f"{measure}-{number}", _values(history, f"{measure}:{output}"))
        for number, output in enumerate(outputs, start=1)
        for measure in _AXIS_LABELS
    ]
    return by_output if len(outputs) == 1 else [total, *by_output]


def _values(history: pd.DataFrame, measure: str) -> dict[str, NDArray[np.float64]]:
    """Values of each part, NaN where they are not finite."""
    values = {part: history[f"{part}_{measure}"].to_numpy(np.float64) for part in PARTS}
    return {part: np.where(np.isfinite(of), of, np.nan) for part, of in values.items()}


def draw_panel(
    axes: Axes, course: Course, panel: Panel, width_in: float, *, stages_named: bool
) -> None:
    """Draw a panel.

    Parameters
    ----------
    axes : Axes
    course : Course
    panel : Panel
    width_in : float
        Width of the axes in inches.
    stages_named : bool
        Whether the names of the stages stand above it.
    """
    _draw_axes(axes, course, panel)
    _draw_lines(axes, course, panel)
    _shade(axes, course, panel.not_finite)
    _mark_best(axes, course, panel)
    for number, (begin, _) in enumerate(course.stages[1:], start=2):
        axes.axvline(begin - 0.5, gid=f"stage-{number}-{panel.gid}", zorder=1, **_BORDER)
    n_lines = _name_stages(axes, course, 72 * (width_in - 1)) if stages_named else 0
    name = wrap(plain_text(panel.name), width_in - 0.7, _NAME_PT)
    pad = 4 + n_lines * LINE_HEIGHT * FONT_PT
    axes.set_title(name, loc="left", fontsize=_NAME_PT, parse_math=False, pad=pad)


def _draw_axes(axes: Axes, course: Course, panel: Panel) -> None:
    axes.set_xlabel("epoch")
    axes.set_ylabel(_AXIS_LABELS[panel.measure])
    axes.set_xlim(course.epochs[0] - 0.5, course.epochs[-1] + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_lines(axes: Axes, course: Course, panel: Panel) -> None:
    shown = panel.shown
    for part, values in shown.items():
        (line,) = axes.plot(course.epochs, values, **LINE_STYLES[part])
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
    """Epochs that no line shows, since the epochs before and after have no value."""
    beside = np.pad(np.isfinite(values), 1)
    return np.flatnonzero(beside[1:-1] & ~beside[:-2] & ~beside[2:]).tolist()


def _scale_losses(axes: Axes, losses: NDArray[np.float64]) -> None:
    low, high = np.nanmin(losses), np.nanmax(losses)
    if not 0 < _FROM_HERE_LOGARITHMIC * low < high:
        return
    axes.set_yscale("log")
    axes.set_ylabel("loss (nats, log scale)")
    # Powers of ten alone are too few for less than three decades, and more are too many beyond.
    subs = (1.0, 2.0, 5.0) if high < 500 * low else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=7))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))


def _scale_accuracies(axes: Axes, accuracies: NDArray[np.float64]) -> None:
    low, high = np.nanmin(accuracies), np.nanmax(accuracies)
    margin = max(0.06 * (high - low), 0.01)
    # At the very edge, half of a line would be hidden.
    axes.set_ylim(max(low - margin, -0.02), min(high + margin, 1.02))


def _shade(axes: Axes, course: Course, where: NDArray[np.bool_]) -> None:
    for is_shaded, rows in groupby(zip(where, course.epochs, strict=True), lambda row: row[0]):
        epochs = [epoch for _, epoch in rows]
        if is_shaded:
            axes.axvspan(epochs[0] - 0.5, epochs[-1] + 0.5, zorder=0, **NOT_FINITE_STYLE)


def _mark_best(axes: Axes, course: Course, panel: Panel) -> None:
    if course.best is None:
        return
    axes.axvline(course.best, gid=f"best-{panel.gid}", **BEST_STYLE)
    value = panel.values["validation"][course.epochs == course.best]
    if np.isfinite(value).all():
        axes.plot([course.best], value, color="black", linestyle="none", **RING_STYLE)


def _name_stages(axes: Axes, course: Course, width_pt: float) -> int:
    """Write the names of the stages above the axes; returns the number of lines."""
    names = [shorten(name, _MOST_OF_STAGE) for _, name in course.stages]
    begins = [begin - 0.5 for begin, _ in course.stages]
    from_left = np.subtract(begins, begins[0]) / len(course.epochs)
    levels = stack_names(from_left, [text_width(name, FONT_PT) + 6 for name in names], width_pt)
    for begin, name, level in zip(begins, names, levels, strict=True):
        height = 2 + level * LINE_HEIGHT * FONT_PT
        above: dict[str, Any] = {
            "xy": (begin, 1), "xycoords": axes.get_xaxis_transform(), "textcoords": "offset points",
        }  # fmt: skip
        axes.annotate(name, xytext=(3, height), color="0.25", parse_math=False, **above)
        if begin != begins[0]:
            pole = {"arrowstyle": "-", "shrinkA": 0, "shrinkB": 0, **_BORDER}
            axes.annotate("", xytext=(0, height + FONT_PT), arrowprops=pole, **above)
    return 1 + max(levels)
