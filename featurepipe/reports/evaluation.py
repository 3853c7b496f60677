"""Predictions -> figures for each attribute."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurepipe import metrics
from featurepipe.predictions import ALL, Predictions, answer_confidence
from featurepipe.reports.intervals import wilson_interval

FIGURES = (
    "n_test",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "balanced_accuracy",
    "macro_f1",
    "top5_accuracy",
    "log_loss",
    "brier",
    "ece",
    "n_unseen",
    "unseen_accuracy",
    "unseen_accuracy_low",
    "unseen_accuracy_high",
    "subset_accuracy",
    "label_accuracy",
    "micro_f1",
    "map",
)


def evaluate(predictions: Predictions) -> list[dict[str, Any]]:
    """Figures of a run on its test rows, and on combinations never trained.

    Parameters
    ----------
    predictions : Predictions
        Rows of the parts ``"test"`` and ``"unseen"``; others are left out.

    Returns
    -------
    list of dict
        One for each attribute and one for ``"all"``, with the keys
        ``attribute`` and `FIGURES`; NaN where a figure does not apply.

        Each attribute is measured on the images that are labelled for it,
        ``"all"`` on those that are labelled for every attribute: there an
        answer is right if every attribute's is; ``log_loss`` is the sum of the
        attributes' (that of their joint answer, were they independent), and
        ``ece`` compares how often all are right with the product of the
        answers' probabilities. ``accuracy_low`` and ``accuracy_high`` are the
        ends of the 95 % Wilson interval.

        The multi-label figures (from ``subset_accuracy`` on) belong to
        attributes that are not exclusive, and to ``"all"`` of a multi-label
        run, over all labels. They take a label for given where its probability
        is above its threshold.
    """
    test, unseen = predictions.select("test"), predictions.select("unseen")
    rows = []
    for attribute in [*predictions.labels, ALL]:
        row = dict.fromkeys(FIGURES, np.nan)
        row |= _shares(test, attribute, "n_test", "accuracy")
        row |= _shares(unseen, attribute, "n_unseen", "unseen_accuracy")
        row |= _joint_figures(test) if attribute == ALL else _figures(test, attribute)
        rows.append({"attribute": attribute, **row})
    return rows


def accuracies(predictions: Predictions) -> dict[str, float]:
    """Accuracy of each attribute and of all together, over all rows given.

    Parameters
    ----------
    predictions : Predictions

    Returns
    -------
    dict of str to float
        By attribute, and ``"all"``; in [0, 1], NaN where no row is labelled.
    """
    shares = {
        attribute: _shares(predictions, attribute, "n", "accuracy")
        for attribute in [*predictions.labels, ALL]
    }
    return {attribute: share["accuracy"] for attribute, share in shares.items()}


def _shares(predictions: Predictions, attribute: str, n_name: str, name: str) -> dict[str, float]:
    attributes = list(predictions.labels) if attribute == ALL else [attribute]
    labelled = _labelled(predictions, attributes)
    correct = np.all([predictions.correct(each) for each in attributes], axis=0)[labelled]
    n_right, n = int(correct.sum()), len(correct)
    low, high = wilson_interval(n_right, n)
    accuracy = n_right / n if n else np.nan
    return {n_name: n, name: accuracy, f"{name}_low": low, f"{name}_high": high}


def _figures(predictions: Predictions, attribute: str) -> dict[str, float]:
    labelled = predictions.take(_labelled(predictions, [attribute]))
    labels, probabilities = labelled.labels[attribute], labelled.probabilities(attribute)
    calibration = {
        "log_loss": _log_loss(labelled, attribute),
        "ece": metrics.ece(labelled.correct(attribute), _confidence(labelled, attribute)),
    }
    if not labels.exclusive:
        given = labelled.given(attribute)
        macro_f1 = metrics.macro_f1(labels.indicator, given)
        label_figures = _label_figures(labels.indicator, given, probabilities)
        return calibration | label_figures | {"macro_f1": macro_f1}
    predicted = probabilities.argmax(axis=1)
    return calibration | {
        "balanced_accuracy": metrics.balanced_accuracy(labels.codes, predicted),
        "macro_f1": metrics.macro_f1(labels.codes, predicted),
        "top5_accuracy": metrics.top_k_accuracy(labels.codes, probabilities, k=5),
        "brier": metrics.brier(labels.codes, probabilities),
    }


def _joint_figures(predictions: Predictions) -> dict[str, float]:
    attributes = list(predictions.labels)
    labelled = predictions.take(_labelled(predictions, attributes))
    correct = np.all([labelled.correct(each) for each in attributes], axis=0)
    confidence = np.prod([_confidence(labelled, each) for each in attributes], axis=0)
    figures = {
        "log_loss": sum(_log_loss(labelled, each) for each in attributes),
        "ece": metrics.ece(correct, confidence),
    }
    if predictions.task == "multi-label":
        truth = np.hstack([labelled.labels[each].indicator for each in attributes])
        given = np.hstack([labelled.given(each) for each in attributes])
        scores = np.hstack([labelled.scores[each] for each in attributes])
        figures |= _label_figures(truth, given, scores)
    return figures


def _label_figures(
    truth: NDArray[np.bool_], predicted: NDArray[np.bool_], scores: NDArray[np.float64]
) -> dict[str, float]:
    return {
        "subset_accuracy": metrics.subset_accuracy(truth, predicted),
        "label_accuracy": metrics.label_accuracy(truth, predicted),
        "micro_f1": metrics.micro_f1(truth, predicted),
        "map": metrics.mean_average_precision(truth, scores),
    }


def _log_loss(predictions: Predictions, attribute: str) -> float:
    labels, probabilities = predictions.labels[attribute], predictions.probabilities(attribute)
    if labels.exclusive:
        return metrics.log_loss(labels.codes, probabilities)
    return metrics.label_set_log_loss(labels.indicator, probabilities)


def _confidence(predictions: Predictions, attribute: str) -> NDArray[np.float64]:
    return answer_confidence(
        predictions.probabilities(attribute),
        predictions.thresholds[attribute],
        exclusive=predictions.labels[attribute].exclusive,
    )


def _labelled(predictions: Predictions, attributes: list[str]) -> NDArray[np.bool_]:
    return np.all([predictions.labels[each].labelled for each in attributes], axis=0)
