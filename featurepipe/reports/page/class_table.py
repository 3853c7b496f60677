"""Classes: how well each of them is recognised."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurepipe.reports.attribute_predictions import AttributePredictions
from featurepipe.reports.page.charts import (
    MOST_ROWS,
    Values,
    count_cell,
    name_cell,
    share_cell,
)
from featurepipe.shares import Interval, exact_interval
from featurepipe.words import counted


@dataclass(frozen=True)
class ClassFigures:
    """How well a class, or a label of a set, is recognised.

    Attributes
    ----------
    name : str
    n_images : int
        Images that have it.
    recall : float
        Share of these that are predicted to have it; NaN without any.
    recall_interval : tuple of (float, float)
        95 %, exact for independent images.
    precision : float
        Share of the images predicted to have it that do; NaN without any.
    precision_interval : tuple of (float, float)
    confidence : float
        Mean probability of it, over the images predicted to have it; NaN without any.
    """

    name: str
    n_images: int
    recall: float
    recall_interval: Interval
    precision: float
    precision_interval: Interval
    confidence: float


def class_figures(judged: AttributePredictions, attribute: str) -> list[ClassFigures]:
    """Figures of each class that is true or predicted, in the order of the classes.

    Parameters
    ----------
    judged : AttributePredictions
    attribute : str
        Of a set of labels, one is predicted where its probability is above its threshold.
    """
    predictions = judged.predictions
    labels, probabilities = predictions.labels[attribute], predictions.probabilities(attribute)
    truth = labels.indicator
    if labels.exclusive:
        answers = np.zeros_like(truth)
        answers[np.arange(len(truth)), probabilities.argmax(axis=1)] = True
    else:
        answers = predictions.given(attribute)
    n_true, n_answers = truth.sum(axis=0), answers.sum(axis=0)
    n_right = (truth & answers).sum(axis=0)
    confidence = _ratio(np.where(answers, probabilities, 0).sum(axis=0), n_answers)
    recall, precision = _ratio(n_right, n_true), _ratio(n_right, n_answers)
    return [
        ClassFigures(
            name=labels.classes[k],
            n_images=int(n_true[k]),
            recall=float(recall[k]),
            recall_interval=exact_interval(n_right[k], n_true[k]),
            precision=float(precision[k]),
            precision_interval=exact_interval(n_right[k], n_answers[k]),
            confidence=float(confidence[k]),
        )
        for k in np.flatnonzero(n_true + n_answers)
    ]


def class_values(figures: list[ClassFigures], *, exclusive: bool) -> Values:
    """The figures as a table, the lowest recall first.

    Parameters
    ----------
    figures : list of ClassFigures
    exclusive : bool
    """
    order = np.argsort([of_class.recall for of_class in figures], kind="stable")
    rows = tuple(
        (
            name_cell(of_class.name),
            count_cell(of_class.n_images),
            share_cell(of_class.recall, *of_class.recall_interval),
            share_cell(of_class.precision, *of_class.precision_interval),
            share_cell(of_class.confidence),
        )
        for of_class in (figures[at] for at in order[:MOST_ROWS])
    )
    caption = (
        "Test images; 95 % intervals, exact for independent images. Confidence is the mean of "
        "the predictions of the class."
    )
    if more := len(figures) - len(rows):
        caption += f" {counted(more, 'class', 'classes')} with a higher recall not listed."
    what = "Class" if exclusive else "Label"
    return Values(
        (what, "Images", "Recall", "Precision", "Confidence"), rows, caption, sortable=True
    )


def _ratio(part: NDArray, whole: NDArray) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
