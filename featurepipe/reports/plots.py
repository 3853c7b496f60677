"""Plots of a training: losses and accuracies by epoch, as PNG and SVG.

Only Matplotlib's objects are used, so no display is needed and no figure stays open. Importing
this file imports Matplotlib: import it where something is drawn.
"""

import io
import math
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from featurepipe.reports.panels import (
    BEST_STYLE,
    FONT_PT,
    LINE_STYLES,
    NOT_FINITE_STYLE,
    PARTS,
    RING_STYLE,
    Course,
    Panel,
    draw_panel,
    read_course,
    read_panels,
)
from featurepipe.reports.plot_text import LINE_HEIGHT, plain_text, wrap

_PANEL_WIDTH_IN = {1: 4.5, 2: 3.5}
"""By the number of outputs side by side."""

_ROW_IN = 2.15
_ONLY_ROW_IN = 2.8
_TITLE_PT = 11.0
_MOST_IN_ONE_COLUMN = 4
DPI = 110

_STYLED = ("axes", "figure", "font", "grid", "image", "legend", "lines", "mathtext", "patch",
           "path", "savefig", "svg", "text", "xtick", "ytick")  # fmt: skip
_SETTINGS: dict[str, Any] = {
    "font.size": FONT_PT,
    # An SVG names all of them for every text.
    "font.sans-serif": ["DejaVu Sans", "Arial"],
    "svg.fonttype": "none",
    "svg.hashsalt": "featurepipe",
}
_SETTINGS_LOCK = threading.Lock()


def plot_training(history: pd.DataFrame, title: str) -> dict[str, bytes]:
    """Losses and accuracies of a training, epoch by epoch.

    Parameters
    ----------
    history : pandas.DataFrame
        One row for each epoch, at least one: ``epoch`` (int, continuing over the stages),
        ``stage`` (str), ``train_loss`` and ``validation_loss`` (of all outputs together),
        ``best`` (bool; True for the epoch whose weights were kept, if any), and for each output
        ``train_loss:NAME``, ``validation_loss:NAME``, ``train_accuracy:NAME`` and
        ``validation_accuracy:NAME``. Other columns are ignored. Losses are in nats, accuracies
        in [0, 1]. NaN and infinity leave a gap, which is shaded for losses.
    title : str

    Returns
    -------
    dict of str to bytes
        ``training.png`` and ``training.svg``; the same bytes for the same input and version of
        Matplotlib. Text in the SVG stays text. Its lines have ids: ``train-`` and
        ``validation-``, each with ``loss-total``, ``loss-1``, ``accuracy-1``, and so on in the
        order of the outputs. There is no total for exactly one output. Losses have a
        logarithmic axis if they differ by more than a factor of 30. The PNG shows boxes for
        characters that DejaVu Sans lacks, such as Chinese ones.
    """
    with default_settings():
        figure = _draw(read_course(history), read_panels(history), title)
        return {f"training.{kind}": saved_figure(figure, kind) for kind in ("png", "svg")}


@contextmanager
def default_settings() -> Iterator[None]:
    """Use Matplotlib's default style and reproducible SVGs, whatever style is set.

    Some of this can only be set for the whole process. So figures are drawn one at a time, and
    the settings are restored afterwards.
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


def saved_figure(figure: Figure, kind: str) -> bytes:
    """The bytes of a figure's file; the same for the same figure and version of Matplotlib.

    Parameters
    ----------
    figure : Figure
    kind : {"png", "svg"}
    """
    # Without the date and Matplotlib's version.
    metadata = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=DPI, metadata=metadata)
    return file.getvalue()


def _draw(course: Course, panels: list[Panel], title: str) -> Figure:
    has_total = len(panels) % 2
    n_outputs = len(panels) // 2
    n_beside = 1 if n_outputs <= _MOST_IN_ONE_COLUMN else 2
    n_rows = has_total + math.ceil(n_outputs / n_beside)
    panel_in, n_columns = _PANEL_WIDTH_IN[n_beside], 2 * n_beside
    title = wrap(plain_text(title), n_columns * panel_in, _TITLE_PT)
    above_in = LINE_HEIGHT * (_TITLE_PT * (1 + title.count("\n")) + 2 * FONT_PT) / 72
    height_in = above_in + (n_rows * _ROW_IN if n_rows > 1 else _ONLY_ROW_IN)
    engine = ConstrainedLayoutEngine(
        h_pad=0.07, w_pad=0.09, rect=(0, 0, 1, 1 - above_in / height_in)
    )
    figure = Figure((n_columns * panel_in, height_in), layout=engine)
    grid = GridSpec(n_rows, n_columns, figure)
    for cell, panel in enumerate(panels, start=n_columns - 1 if has_total else 0):
        row, column = divmod(cell, n_columns)
        is_total = has_total and row == 0
        axes = figure.add_subplot(grid[0, :] if is_total else grid[row, column])
        width_in = n_columns * panel_in if is_total else panel_in
        draw_panel(axes, course, panel, width_in, stages_named=row == 0)
    _head(figure, title, _legend(course, panels))
    return figure


def _head(figure: Figure, title: str, legend: list[Line2D | Patch]) -> None:
    left, top = 0.1 / figure.get_figwidth(), 1 - 0.06 / figure.get_figheight()
    below = top - (1 + title.count("\n")) * LINE_HEIGHT * _TITLE_PT / 72 / figure.get_figheight()
    figure.text(left, top, title, va="top", fontsize=_TITLE_PT, parse_math=False)
    figure.legend(
        handles=legend, loc="upper left", bbox_to_anchor=(left, below), ncols=len(legend),
        frameon=False, borderaxespad=0, borderpad=0.2,
    )  # fmt: skip


def _legend(course: Course, panels: list[Panel]) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [
        Line2D([], [], label=part, **LINE_STYLES[part]) for part in PARTS
    ]
    if course.best is not None:
        label = f"weights kept: epoch {course.best}"
        handles.append(Line2D([], [], label=label, **RING_STYLE, **BEST_STYLE))
    if any(panel.not_finite.any() for panel in panels):
        handles.append(Patch(label="a loss is not finite", **NOT_FINITE_STYLE))
    return handles
