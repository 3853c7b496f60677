"""Risk against coverage: how many answers are wrong if the strangest images get none."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurepipe.metrics import risk_coverage_area
from featurepipe.predictions import COVERAGE
from featurepipe.reports.attribute_predictions import AttributePredictions
from featurepipe.reports.page.charts import (
    HEIGHT,
    SERIES,
    WIDTH,
    Chart,
    Values,
    share_cell,
    thinned,
)
from featurepipe.reports.page.svg import (
    Scale,
    drawing,
    horizontal_axis,
    line,
    mark,
    vertical_axis,
)
from featurepipe.reports.terminal_text import figure, percent

_MOST_POINTS = 150
_LISTED = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


@dataclass(frozen=True)
class RiskCurve:
    """Error rates of the images that are answered, by how many of them are.

    Attributes
    ----------
    coverage, risk : ndarray of shape (n_points,), float64
        Share of images that are answered, ascending, and how many of these answers are wrong;
        one point for each p-value.
    area : float
        See `featurepipe.metrics.risk_coverage_area`.
    default : tuple of (float, float) or None
        Coverage and risk where ``predict`` stops answering by default; None if it answers no
        image.
    """

    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]
    area: float
    default: tuple[float, float] | None


def risk_curve(judged: AttributePredictions) -> RiskCurve | None:
    """Withhold answers by their p-values, the lowest first.

    Parameters
    ----------
    judged : AttributePredictions

    Returns
    -------
    RiskCurve or None
        None if all p-values are equal, so that they decide nothing.
    """
    levels, counts = np.unique(-judged.p_values, return_counts=True)
    if len(levels) < 2:
        return None
    n_wrong = np.bincount(
        np.searchsorted(levels, -judged.p_values), ~judged.right, minlength=len(levels)
    )
    n_answered = counts.cumsum()
    answered = judged.image_p_values > 1 - COVERAGE
    default = (
        (float(answered.mean()), float((~judged.right[answered]).mean()))
        if answered.any()
        else None
    )
    return RiskCurve(
        coverage=n_answered / len(judged),
        risk=n_wrong.cumsum() / n_answered,
        area=risk_coverage_area(judged.right, judged.p_values),
        default=default,
    )


def risk_chart(curve: RiskCurve) -> Chart:
    """Draw a curve of risk against coverage.

    Parameters
    ----------
    curve : RiskCurve
    """
    # A few of the most familiar images say little: one error of ten is a risk of 10 %.
    shown = np.flatnonzero(curve.coverage >= 0.05)
    kept = shown[thinned(len(shown), _MOST_POINTS)]
    most = max(float(curve.risk[kept].max()), curve.default[1] if curve.default else 0, 0.01)
    across = Scale(0, 1, 54, WIDTH - 22)
    up = Scale(0, 1.1 * most, HEIGHT - 42, 26)
    form = "{:.0%}" if most >= 0.05 else "{:.1%}"
    parts = [
        horizontal_axis(across, up.start_px, "Images answered", form="{:.0%}"),
        vertical_axis(
            up, across.start_px, "Answers that are wrong", form=form, grid_to=across.end_px
        ),
        line([(across(curve.coverage[at]), up(curve.risk[at])) for at in kept], colour=SERIES[0]),
    ]
    said = f"If every image is answered, {percent(curve.risk[-1])} of the answers are wrong"
    if curve.default is not None:
        coverage, risk = curve.default
        tip = f"Default coverage: {percent(coverage)} answered, {percent(risk)} of these wrong"
        parts.append(mark(across(coverage), up(risk), tip, radius=5, colour=SERIES[1]))
        said += (
            f"; at the default coverage, {percent(coverage)} of the images are answered and "
            f"{percent(risk)} of these answers are wrong"
        )
    return Chart(
        "Risk and coverage",
        drawing(WIDTH, HEIGHT, f"Risk against coverage. {said}.", parts),
        f"{said} (the point). The images least like the training images are withheld first. The "
        f"area under the curve is {figure(curve.area)}."
        if curve.default
        else f"{said}. No image is answered at the default coverage.",
        _values(curve),
    )


def _values(curve: RiskCurve) -> Values:
    rows = []
    for wanted in _LISTED:
        at = min(int(np.searchsorted(curve.coverage, wanted - 1e-9)), len(curve.coverage) - 1)
        rows.append((share_cell(curve.coverage[at]), share_cell(curve.risk[at])))
    return Values(("Images answered", "Answers wrong"), tuple(dict.fromkeys(rows)))
