"""Precision against recall of the labels of a set, over all thresholds."""

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve

from featurepipe.reports.attribute_predictions import AttributePredictions
from featurepipe.reports.page.charts import (
    HEIGHT,
    MOST_ROWS,
    SERIES,
    WIDTH,
    Chart,
    Values,
    brief,
    count_cell,
    figure_cell,
    legend,
    name_cell,
    share_cell,
    thinned,
    unit_scales,
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
from featurepipe.words import counted

MOST_CURVES = 6
"""Labels that are all drawn; of more, only the best and the worst."""

_MOST_POINTS = 80
_ALL_LABELS = "all labels together"


@dataclass(frozen=True)
class LabelCurve:
    """Precision and recall of one label, or of all together.

    Attributes
    ----------
    label : str
    n_images : int
        Images, or yes-or-no questions, with the label.
    precision, recall : ndarray of shape (n_points,), float64
        By falling threshold, from recall 0.
    average_precision : float
    threshold : float
        The one that is used; NaN for all labels together, which have one each.
    used_precision, used_recall : float
        With the thresholds that are used; the precision is NaN where nothing is predicted.
    """

    label: str
    n_images: int
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    average_precision: float
    threshold: float
    used_precision: float
    used_recall: float


def label_curves(judged: AttributePredictions, attribute: str) -> list[LabelCurve]:
    """Curves of all labels together, and of each label that any image has.

    Parameters
    ----------
    judged : AttributePredictions
    attribute : str
        Of sets of labels.

    Returns
    -------
    list of LabelCurve
        All labels together first; empty if no image has a label.
    """
    predictions = judged.predictions
    labels, scores = predictions.labels[attribute], predictions.scores[attribute]
    truth, given = labels.indicator, predictions.given(attribute)
    if not truth.any():
        return []
    together = _curve(_ALL_LABELS, truth.ravel(), scores.ravel(), given.ravel(), np.nan)
    return [
        together,
        *(
            _curve(
                labels.classes[k],
                truth[:, k],
                scores[:, k],
                given[:, k],
                float(predictions.thresholds[attribute][k]),
            )
            for k in np.flatnonzero(truth.any(axis=0))
        ),
    ]


def precision_recall_chart(curves: list[LabelCurve]) -> Chart:
    """Draw the curves of all labels together and of some of them.

    Parameters
    ----------
    curves : list of LabelCurve
        From `label_curves`, not empty.
    """
    together, *by_label = curves
    drawn = [together, *(by_label if len(by_label) < MOST_CURVES else _ends(by_label))]
    across, up = unit_scales()
    parts = [
        horizontal_axis(across, up.start_px, "Recall", form="{:.0%}", grid_to=up.end_px),
        vertical_axis(up, across.start_px, "Precision", form="{:.0%}", grid_to=across.end_px),
    ]
    colours = [SERIES[number % len(SERIES)] for number in range(len(drawn))]
    styles = ["line", *(["line dashed", "line dotted"] * len(drawn))][: len(drawn)]
    for curve, css, colour in zip(drawn, styles, colours, strict=True):
        kept = thinned(len(curve.recall), _MOST_POINTS)
        points = [(across(curve.recall[at]), up(curve.precision[at])) for at in kept]
        parts += [line(points, css=css, colour=colour), *_used(curve, across, up, colour)]
    names = [
        (f"{brief(curve.label, 24)} (AP {figure(curve.average_precision)})", css, colour)
        for curve, css, colour in zip(drawn, styles, colours, strict=True)
    ]
    below = HEIGHT + 8
    parts.append(legend(names, 8, below, WIDTH - 16))
    said = f"The average precision over all labels together is {figure(together.average_precision)}"
    if by_label:
        worst = _ends(by_label)[-1]
        said += f"; the lowest is {figure(worst.average_precision)}, of {brief(worst.label)}"
    caption = f"{said}. A point marks the threshold in use."
    if len(drawn) < len(curves):
        caption += f" The best and the worst of {counted(by_label, 'label')} are drawn."
    return Chart(
        "Precision and recall",
        drawing(WIDTH, below + 16 * len(drawn), f"Precision against recall. {said}.", parts),
        caption,
        _values(together, by_label),
    )


def _curve(
    label: str,
    truth: NDArray[np.bool_],
    scores: NDArray[np.float64],
    given: NDArray[np.bool_],
    threshold: float,
) -> LabelCurve:
    precision, recall, _ = precision_recall_curve(truth, scores)
    n_right, n_given = (truth & given).sum(), given.sum()
    return LabelCurve(
        label=label,
        n_images=int(truth.sum()),
        precision=precision[::-1],
        recall=recall[::-1],
        average_precision=float(average_precision_score(truth, scores)),
        threshold=threshold,
        used_precision=float(n_right / n_given) if n_given else np.nan,
        used_recall=float(n_right / truth.sum()),
    )


def _ends(by_label: list[LabelCurve]) -> list[LabelCurve]:
    """The best label and the worst."""
    ordered = sorted(by_label, key=lambda curve: -curve.average_precision)
    return [ordered[0], ordered[-1]] if len(ordered) > 1 else ordered


def _used(curve: LabelCurve, across: Scale, up: Scale, colour: str) -> list[Markup]:
    if np.isnan(curve.used_precision):
        return []
    tip = (
        f"{brief(curve.label)}: precision {percent(curve.used_precision)}, recall "
        f"{percent(curve.used_recall)} in use"
    )
    return [mark(across(curve.used_recall), up(curve.used_precision), tip, colour=colour)]


def _values(together: LabelCurve, by_label: list[LabelCurve]) -> Values:
    ordered = sorted(by_label, key=lambda curve: curve.average_precision)
    rows = tuple(
        (
            name_cell(curve.label),
            count_cell(curve.n_images),
            figure_cell(curve.average_precision),
            figure_cell(curve.threshold),
            share_cell(curve.used_precision),
            share_cell(curve.used_recall),
        )
        for curve in [together, *ordered][:MOST_ROWS]
    )
    columns = ("Label", "Images", "Average precision", "Threshold", "Precision", "Recall")
    return Values(columns, rows, sortable=True)
