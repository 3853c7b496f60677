"""The course of a training: losses and accuracies, epoch by epoch."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from featurepipe.reports.page.charts import (
    HEIGHT,
    MOST_DRAWN,
    SERIES,
    WIDTH,
    Cell,
    Chart,
    Values,
    brief,
    count_cell,
    figure_cell,
    legend,
    named,
    percent_form,
    share_cell,
    share_scale,
    thinned,
)
from featurepipe.reports.page.svg import (
    Scale,
    drawing,
    horizontal_axis,
    line,
    mark,
    text,
    vertical_axis,
)
from featurepipe.reports.terminal_text import figure, percent
from featurepipe.words import counted

_MOST_EPOCHS = 60
_FROM_HERE_LOGARITHMIC = 30


def training_charts(history: pd.DataFrame) -> list[Chart]:
    """The loss of a training, and the accuracy of each output, epoch by epoch.

    Parameters
    ----------
    history : pandas.DataFrame
        See `featurepipe.reports.plots.plot_training`.
    """
    if not len(history):
        return []
    outputs = [
        str(name).removeprefix("train_accuracy:")
        for name in history.columns
        if str(name).startswith("train_accuracy:")
    ]
    losses = _course_chart(history, "loss", "Training loss", "Loss (nats)")
    return [
        losses,
        *(
            _course_chart(
                history, f"accuracy:{name}", f"Training accuracy: {brief(name, 40)}", "Accuracy"
            )
            for name in outputs[:MOST_DRAWN]
        ),
    ]


def _course_chart(history: pd.DataFrame, measure: str, heading: str, axis: str) -> Chart:
    epochs = history["epoch"].to_numpy(np.float64)
    by_part = {part: _finite(history[f"{part}_{measure}"]) for part in ("train", "validation")}
    across = Scale(epochs[0] - 0.5, epochs[-1] + 0.5, 54, WIDTH - 22)
    up = _value_scale(np.concatenate(list(by_part.values())), is_share=measure != "loss")
    form = percent_form(up) if measure != "loss" else "{:.3g}"
    parts = [
        _epoch_axis(across, up, epochs),
        vertical_axis(up, across.start_px, axis, form=form, grid_to=across.end_px),
        *_stages(history, across, up),
    ]
    styles = {"train": ("line dashed", SERIES[0]), "validation": ("line", SERIES[1])}
    for part, values in by_part.items():
        css, colour = styles[part]
        parts += _lines(epochs, values, across, up, css, colour)
    parts += _kept(history, by_part["validation"], across, up)
    names = [(part, *styles[part]) for part in by_part]
    parts.append(legend(names, 8, HEIGHT + 8, WIDTH - 16))
    said = _course_in_words(history, by_part["validation"], is_share=measure != "loss")
    return Chart(
        heading,
        drawing(WIDTH, HEIGHT + 36, f"{heading}. {said}", parts),
        said,
        _course_values(history, by_part, is_share=measure != "loss"),
    )


def _finite(column: pd.Series) -> NDArray[np.float64]:
    values = column.to_numpy(np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def _value_scale(values: NDArray[np.float64], *, is_share: bool) -> Scale:
    ends = HEIGHT - 42, 26.0
    finite = values[np.isfinite(values)]
    if is_share or not len(finite):
        return share_scale(finite.tolist(), *ends)
    low, high = float(finite.min()), float(finite.max())
    if 0 < _FROM_HERE_LOGARITHMIC * low < high:
        return Scale(low / 1.2, high * 1.2, *ends, is_log=True)
    margin = 0.06 * (high - low) or max(abs(high), 1.0) * 0.1
    return Scale(low - margin, high + margin, *ends)


def _epoch_axis(across: Scale, up: Scale, epochs: NDArray[np.float64]) -> Markup:
    """An axis whose ticks are whole epochs."""
    if len(epochs) > 5:
        return horizontal_axis(across, up.start_px, "Epoch")
    y, middle = up.start_px, (across.start_px + across.end_px) / 2
    return Markup("").join(
        [
            line([(across.start_px, y), (across.end_px, y)], css="axis"),
            *(
                text(across(epoch), y + 16, f"{epoch:.0f}", anchor="middle", css="quiet")
                for epoch in epochs
            ),
            text(middle, y + 34, "Epoch", anchor="middle"),
        ]
    )


def _stages(history: pd.DataFrame, across: Scale, up: Scale) -> list[Markup]:
    """The name of each stage, above a line where it begins."""
    stages = history["stage"].astype(str).to_numpy()
    starts = [0, *(np.flatnonzero(stages[1:] != stages[:-1]) + 1)]
    if len(starts) < 2:
        return []
    epochs = history["epoch"].to_numpy(np.float64)
    begins = [across(epochs[at] - 0.5) for at in starts]
    parts = []
    for at, x, end in zip(starts, begins, [*begins[1:], across.end_px], strict=True):
        if at:
            parts.append(line([(x, up.start_px), (x, up.end_px)], css="axis dotted"))
        parts.append(named(x + 4, up.end_px + 9, stages[at], end - x - 8, size_px=10))
    return parts


def _lines(
    epochs: NDArray[np.float64],
    values: NDArray[np.float64],
    across: Scale,
    up: Scale,
    css: str,
    colour: str,
) -> list[Markup]:
    """Lines with gaps where a value is not finite; a value alone becomes a point."""
    finite = np.isfinite(values)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], finite, [False]]).astype(int)))
    parts = []
    for start, end in edges.reshape(-1, 2):
        points = [(across(epochs[at]), up(values[at])) for at in range(start, end)]
        if len(points) == 1:
            parts.append(mark(*points[0], "", radius=2.5, colour=colour))
        else:
            parts.append(line(points, css=css, colour=colour))
    return parts


def _best(history: pd.DataFrame) -> int | None:
    best = np.flatnonzero(history["best"].to_numpy(bool))
    return int(best[0]) if len(best) else None


def _kept(
    history: pd.DataFrame, validation: NDArray[np.float64], across: Scale, up: Scale
) -> list[Markup]:
    best = _best(history)
    if best is None or not np.isfinite(validation[best]):
        return []
    epoch = int(history["epoch"].iloc[best])
    return [
        mark(
            across(epoch), up(validation[best]), f"Epoch {epoch}: kept", colour=SERIES[1], radius=5
        )
    ]


def _course_in_words(
    history: pd.DataFrame, validation: NDArray[np.float64], *, is_share: bool
) -> str:
    said = f"{counted(len(history), 'epoch')}."
    best = _best(history)
    if best is None:
        said += " No weights were kept."
    else:
        value = percent(validation[best]) if is_share else figure(validation[best])
        epoch = int(history["epoch"].iloc[best])
        said += f" The weights of epoch {epoch} were kept (the point): {value} in validation."
    if n_lost := int((~np.isfinite(validation)).sum()):
        said += f" No finite value in validation in {counted(n_lost, 'epoch')}."
    return said


def _course_values(
    history: pd.DataFrame, by_part: Mapping[str, NDArray[np.float64]], *, is_share: bool
) -> Values:
    cell = share_cell if is_share else figure_cell
    kept = thinned(len(history), _MOST_EPOCHS)
    rows = tuple(
        (
            count_cell(history["epoch"].iloc[at]),
            Cell(brief(str(history["stage"].iloc[at]))),
            *(cell(values[at]) for values in by_part.values()),
        )
        for at in kept
    )
    caption = f"{len(kept)} of {len(history)} epochs." if len(kept) < len(history) else ""
    return Values(("Epoch", "Stage", "Train", "Validation"), rows, caption)
