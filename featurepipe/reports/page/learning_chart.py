"""Learning curve: accuracy by number of training images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from featurepipe.reports.page.charts import (
    HEIGHT,
    MOST_DRAWN,
    SERIES,
    WIDTH,
    Chart,
    Values,
    brief,
    count_cell,
    legend,
    name_cell,
    percent_form,
    share_cell,
    share_scale,
)
from featurepipe.reports.page.svg import (
    Scale,
    drawing,
    horizontal_axis,
    line,
    mark,
    vertical_axis,
)
from featurepipe.reports.terminal_text import count, percent
from featurepipe.words import counted

_STYLES = ("line", "line dashed", "line dotted") * 2


def learning_chart(points: Sequence[Mapping[str, Any]]) -> Chart:
    """Accuracy by number of training images, with its standard deviation over the draws.

    Parameters
    ----------
    points : sequence of mapping
        ``n_train``, ``attribute``, ``accuracy``, ``accuracy_sd``; at least one.
    """
    attributes = list(dict.fromkeys(str(point["attribute"]) for point in points))
    drawn = attributes[:MOST_DRAWN]
    counts = [float(point["n_train"]) for point in points]
    ends = [end for point in points for end in (float(point["accuracy"]), *_ends(point))]
    across = _spread(min(counts), max(counts), 54, WIDTH - 22)
    up = share_scale(ends, HEIGHT - 42, 26)
    parts = [
        horizontal_axis(across, up.start_px, "Training images", form="{:,.0f}"),
        vertical_axis(
            up, across.start_px, "Accuracy", form=percent_form(up), grid_to=across.end_px
        ),
    ]
    for number, attribute in enumerate(drawn):
        mine = sorted(
            (point for point in points if point["attribute"] == attribute),
            key=lambda point: point["n_train"],
        )
        parts += _curve_with_ends(mine, across, up, number)
    names = [(name, _STYLES[at], SERIES[at]) for at, name in enumerate(drawn)]
    parts.append(legend(names, 8, HEIGHT + 8, WIDTH - 16))
    last = max(points, key=lambda point: point["n_train"])
    said = (
        f"With {count(last['n_train'])} images, {brief(str(last['attribute']))} is right in "
        f"{percent(last['accuracy'])}"
    )
    caption = (
        "Means over random draws, on training images that were held out; whiskers are one standard "
        "deviation over the draws. The axis is logarithmic."
    )
    if len(attributes) > len(drawn):
        caption += f" The table also has {counted(len(attributes) - len(drawn), 'attribute')} more."
    rows = tuple(
        (
            name_cell(str(point["attribute"])),
            count_cell(point["n_train"]),
            share_cell(point["accuracy"]),
            share_cell(point["accuracy_sd"]),
        )
        for point in points
    )
    return Chart(
        "Learning curve",
        drawing(WIDTH, HEIGHT + 4 + 16 * len(drawn), f"Learning curve. {said}.", parts),
        f"{said}. {caption}",
        Values(("Attribute", "Training images", "Accuracy", "Standard deviation"), rows),
    )


def _spread(low: float, high: float, start_px: float, end_px: float) -> Scale:
    """A logarithmic scale with room at its ends."""
    low, high = max(low, 1.0), max(high, 1.0)
    return Scale(low / 1.15, high * 1.15, start_px, end_px, is_log=True)


def _ends(point: Mapping[str, Any]) -> tuple[float, float]:
    """One standard deviation to either side, within 0 and 1; NaN if it is not known."""
    accuracy, deviation = float(point["accuracy"]), float(point["accuracy_sd"])
    low, high = np.clip([accuracy - deviation, accuracy + deviation], 0, 1)
    return float(low), float(high)


def _curve_with_ends(
    mine: Sequence[Mapping[str, Any]], across: Scale, up: Scale, number: int
) -> list[Markup]:
    colour = SERIES[number]
    points = [(across(point["n_train"]), up(point["accuracy"])) for point in mine]
    parts = [line(points, css=_STYLES[number], colour=colour)] if len(points) > 1 else []
    for point, (x, y) in zip(mine, points, strict=True):
        low, high = _ends(point)
        if np.isfinite([low, high]).all():
            parts.append(line([(x, up(low)), (x, up(high))], css="whisker", colour=colour))
        tip = (
            f"{brief(str(point['attribute']))}, {count(point['n_train'])} images: "
            f"{percent(point['accuracy'])}"
        )
        parts.append(mark(x, y, tip, colour=colour))
    return parts
