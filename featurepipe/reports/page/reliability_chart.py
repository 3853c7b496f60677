"""Reliability: how often answers of some confidence are right, before and after calibration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from featurepipe.reports.page.charts import (
    HEIGHT,
    SERIES,
    WIDTH,
    Cell,
    Chart,
    Values,
    count_cell,
    legend,
    share_cell,
    unit_scales,
)
from featurepipe.reports.page.svg import (
    drawing,
    horizontal_axis,
    line,
    mark,
    vertical_axis,
)
from featurepipe.reports.terminal_text import count, figure, percent

_BINS = 10
_LARGEST_PX, _SMALLEST_PX = 7.0, 2.5


@dataclass(frozen=True)
class Curve:
    """Reliability of one set of probabilities.

    Attributes
    ----------
    name : str
    ece : float
        Expected calibration error; NaN if not measured.
    n_images : tuple of int
        Of each bin that has any.
    confidence, accuracy : tuple of float
        Their means.
    """

    name: str
    ece: float
    n_images: tuple[int, ...]
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]


def reliability_curves(
    uncalibrated: Mapping[str, Any], calibrated: Mapping[str, Any]
) -> tuple[Curve, Curve]:
    """The curves before and after calibration.

    Parameters
    ----------
    uncalibrated, calibrated : mapping of str to Any
        Of one attribute; see `featurepipe.reports.figures.reliability`.
    """
    return _curve("before calibration", uncalibrated), _curve("after calibration", calibrated)


def reliability_chart(curves: Sequence[Curve]) -> Chart:
    """Draw reliability curves; the area of a point grows with its images.

    Parameters
    ----------
    curves : sequence of Curve
        From `reliability_curves`.
    """
    before, after = curves
    across, up = unit_scales()
    styles = (("line dashed", SERIES[1]), ("line", SERIES[0]))
    most = max((n for curve in curves for n in curve.n_images), default=1)
    parts = [
        horizontal_axis(across, up.start_px, "Confidence", form="{:.0%}", grid_to=up.end_px),
        vertical_axis(up, across.start_px, "Answers that are right", form="{:.0%}"),
        line([(across(0), up(0)), (across(1), up(1))], css="axis dashed"),
    ]
    for curve, (css, colour) in zip(curves, styles, strict=True):
        points = [(across(x), up(y)) for x, y in zip(curve.confidence, curve.accuracy, strict=True)]
        if len(points) > 1:
            parts.append(line(points, css=css, colour=colour))
        parts += _marks(curve, points, most, colour)
    names = [(curve.name, css, colour) for curve, (css, colour) in zip(curves, styles, strict=True)]
    parts.append(legend(names, 8, HEIGHT + 8, WIDTH - 16))
    said = (
        f"The expected calibration error is {figure(before.ece)} before calibration and "
        f"{figure(after.ece)} after."
    )
    return Chart(
        "Reliability",
        drawing(WIDTH, HEIGHT + 36, f"Reliability of the answers. {said}", parts),
        f"{said} Measured on training images, out of fold. On the dashed diagonal, confidence "
        "equals accuracy; larger points have more images.",
        _values(before, after),
    )


def _curve(name: str, reliability: Mapping[str, Any]) -> Curve:
    bins = reliability["bins"]
    ece = reliability["ece"]
    return Curve(
        name,
        np.nan if ece is None else float(ece),
        tuple(int(bin_["n_images"]) for bin_ in bins),
        tuple(float(bin_["confidence"]) for bin_ in bins),
        tuple(float(bin_["accuracy"]) for bin_ in bins),
    )


def _marks(
    curve: Curve, points: Sequence[tuple[float, float]], most: int, colour: str
) -> list[Markup]:
    return [
        mark(
            x,
            y,
            f"{curve.name}: {count(n)} images, confidence {percent(confidence)}, "
            f"{percent(accuracy)} right",
            radius=round(max(_SMALLEST_PX, _LARGEST_PX * np.sqrt(n / most)), 1),
            colour=colour,
        )
        for (x, y), n, confidence, accuracy in zip(
            points, curve.n_images, curve.confidence, curve.accuracy, strict=True
        )
    ]


def _values(before: Curve, after: Curve) -> Values:
    """One row a bin; both curves have a place in it."""
    by_bin = [
        {
            min(int(confidence * _BINS), _BINS - 1): (n, confidence, accuracy)
            for n, confidence, accuracy in zip(
                curve.n_images, curve.confidence, curve.accuracy, strict=True
            )
        }
        for curve in (before, after)
    ]
    rows = []
    for number in sorted({*by_bin[0], *by_bin[1]}):
        cells = [Cell(f"{10 * number}–{10 * number + 10} %")]
        for of_curve in by_bin:
            n, _, accuracy = of_curve.get(number, (0, np.nan, np.nan))
            cells += [count_cell(n), share_cell(accuracy)]
        rows.append(tuple(cells))
    columns = ("Confidence", "Images before", "Right before", "Images after", "Right after")
    return Values(columns, tuple(rows))
