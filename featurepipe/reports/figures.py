"""Predictions -> figures for each attribute, and how sure they are."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurepipe import metrics
from featurepipe.predictions import ALL, COVERAGE, Predictions, answer_confidence
from featurepipe.reports import resampling
from featurepipe.reports.intervals import (
    Interval,
    accuracy_interval,
    ece_interval,
    loss_interval,
    share_interval,
)
from featurepipe.reports.resampling import Rows

_N_BINS = 10
_OF_CLASSES = ("balanced_accuracy", "macro_f1")

MEASURED = (
    "accuracy",
    *_OF_CLASSES,
    "top5_accuracy",
    "log_loss",
    "brier",
    "ece",
    "unseen_accuracy",
    "unseen_balanced_accuracy",
    "unseen_macro_f1",
    "unseen_log_loss",
    "subset_accuracy",
    "label_accuracy",
    "micro_f1",
    "map",
    "answered",
    "unseen_answered",
    "risk_coverage_area",
)
"""Figures that have an interval, whose ends are named ``_low`` and ``_high``."""

FIGURES = tuple(
    column
    for name in MEASURED
    for column in (
        *(["n_unseen"] if name == "unseen_accuracy" else []),
        name,
        f"{name}_low",
        f"{name}_high",
    )
)


@dataclass(frozen=True)
class Answers:
    """How good the answers to one attribute are, image by image.

    Attributes
    ----------
    predictions : Predictions
        The images that are labelled for it.
    right : ndarray of shape (n_images,), bool
    losses : ndarray of shape (n_images,), float64
        Negative logarithm of the probability of the truth.
    confidence : ndarray of shape (n_images,), float64
        Probability of the answer that was given.
    p_values : ndarray of shape (n_images,), float64
        How much the image is like those trained on.
    """

    predictions: Predictions
    right: NDArray[np.bool_]
    losses: NDArray[np.float64]
    confidence: NDArray[np.float64]
    p_values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.right)


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
        ``attribute``, ``n_test``, ``interval`` and `FIGURES`; NaN where a figure
        does not apply.

        Each attribute is measured on the images that are labelled for it,
        ``"all"`` on those that are labelled for every attribute: there an
        answer is right if every attribute's is; ``log_loss`` is the sum of the
        attributes' (that of their joint answer, were they independent), and
        ``ece`` compares how often all are right with the product of the
        answers' probabilities.

        The ends of 95 % intervals follow their figure. ``interval`` says what
        they show the chance of: which ``"images"`` were drawn, or, where some
        belong together, which ``"groups"``.

        The multi-label figures (from ``subset_accuracy`` on) and a ``macro_f1``
        over labels belong to attributes that are not exclusive, and to ``"all"``
        of a multi-label run, over all labels. They take a label for given where
        its probability is above its threshold.

        ``answered`` is the share of images that ``predict`` would not call unknown
        at its usual coverage, where each attribute has its own; the
        ``risk_coverage_area`` is that under the error rate of those that are
        answered, from the most familiar image to the last.

        Of unseen combinations, balanced accuracy and macro F1 are left empty
        where they are of fewer than two classes.
    """
    test, unseen = predictions.select("test"), predictions.select("unseen")
    rows = []
    for attribute in [*predictions.labels, ALL]:
        row: dict[str, Any] = dict.fromkeys(FIGURES, np.nan)
        seen_answers, unseen_answers = answers_to(test, attribute), answers_to(unseen, attribute)
        grouped = any(
            Rows(each.predictions.groups).grouped for each in (seen_answers, unseen_answers)
        )
        row |= _figures(seen_answers, attribute) | _unseen_figures(unseen_answers, attribute)
        rows.append(
            {
                "attribute": attribute,
                "n_test": len(seen_answers),
                "interval": "groups" if grouped else "images",
                **row,
                "n_unseen": len(unseen_answers),
            }
        )
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
    right = {name: answers_to(predictions, name).right for name in [*predictions.labels, ALL]}
    return {name: float(rows.mean()) if len(rows) else np.nan for name, rows in right.items()}


def reliability(predictions: Predictions) -> dict[str, dict[str, Any]]:
    """How far the probabilities of answers can be taken at their word.

    Parameters
    ----------
    predictions : Predictions

    Returns
    -------
    dict of str to dict
        For each attribute ``log_loss``, ``ece`` and ``bins``: of ten equally wide bins of
        confidence the ``n_images``, their mean ``confidence`` and their ``accuracy``. JSON
        values; bins without images are left out.
    """
    return {name: _reliability(answers_to(predictions, name)) for name in predictions.labels}


def _reliability(answers: Answers) -> dict[str, Any]:
    bins = np.minimum((answers.confidence * _N_BINS).astype(int), _N_BINS - 1)
    return {
        "log_loss": float(answers.losses.mean()),
        "ece": float(metrics.ece(answers.right, answers.confidence)),
        "bins": [
            {
                "n_images": int((bins == k).sum()),
                "confidence": float(answers.confidence[bins == k].mean()),
                "accuracy": float(answers.right[bins == k].mean()),
            }
            for k in np.unique(bins)
        ],
    }


def answers_to(predictions: Predictions, attribute: str) -> Answers:
    """How good the answers to one attribute are, on the images labelled for it.

    Parameters
    ----------
    predictions : Predictions
    attribute : str
        Or ``"all"``; see `evaluate`.

    Returns
    -------
    Answers
    """
    attributes = list(predictions.labels) if attribute == ALL else [attribute]
    labelled = predictions.take(
        np.all([predictions.labels[each].labelled for each in attributes], axis=0)
    )
    return Answers(
        predictions=labelled,
        right=np.all([labelled.correct(each) for each in attributes], axis=0),
        losses=np.sum([_log_losses(labelled, each) for each in attributes], axis=0),
        confidence=np.prod([_confidence(labelled, each) for each in attributes], axis=0),
        p_values=np.min([labelled.p_values[each] for each in attributes], axis=0),
    )


def _unseen_figures(answers: Answers, attribute: str) -> dict[str, float]:
    figures = _figures(answers, attribute)
    if attribute != ALL:
        truth = answers.predictions.labels[attribute].indicator
        if truth.any(axis=0).sum() < 2:
            figures = {k: v for k, v in figures.items() if not k.startswith(_OF_CLASSES)}
    unseen = {f"unseen_{name}": value for name, value in figures.items()}
    return {name: value for name, value in unseen.items() if name in FIGURES}


def _figures(answers: Answers, attribute: str) -> dict[str, float]:
    if not len(answers):
        return {}
    rows = Rows(answers.predictions.groups)
    gaps = metrics.calibration_gaps(answers.right, answers.confidence)
    ece = metrics.ece(answers.right, answers.confidence)
    figures = {
        **_accuracy("accuracy", answers.right, rows),
        **_loss("log_loss", answers.losses, rows),
        **_named("ece", ece, ece_interval(ece, resampling.eces(gaps, rows.weights))),
        **_accuracy("answered", answers.p_values > 1 - COVERAGE, rows),
    }
    area = metrics.risk_coverage_area(answers.right, answers.p_values)
    replicates = resampling.risk_coverage_areas(answers.right, answers.p_values, rows.weights)
    figures |= _named("risk_coverage_area", area, share_interval(area, replicates, rows.n_units))
    predictions = answers.predictions
    if attribute != ALL and predictions.labels[attribute].exclusive:
        return figures | _class_figures(predictions, attribute, rows)
    if attribute == ALL and predictions.task != "multi-label":
        return figures
    attributes = list(predictions.labels) if attribute == ALL else [attribute]
    truth = np.hstack([predictions.labels[each].indicator for each in attributes])
    scores = np.hstack([predictions.scores[each] for each in attributes])
    given = np.hstack([predictions.given(each) for each in attributes])
    return figures | _label_figures(truth, given, scores, rows)


def _class_figures(predictions: Predictions, attribute: str, rows: Rows) -> dict[str, float]:
    labels, probabilities = predictions.labels[attribute], predictions.probabilities(attribute)
    codes, predicted = labels.codes, probabilities.argmax(axis=1)
    truth, answered = labels.indicator, np.eye(len(labels.classes), dtype=bool)[predicted]
    n_certain = _n_certain(truth, rows)
    balanced = metrics.balanced_accuracy(codes, predicted)
    balanced_replicates = resampling.balanced_accuracies(truth, answered, rows.weights)
    f1 = metrics.macro_f1(codes, predicted)
    f1_replicates = resampling.macro_f1s(truth, answered, rows.weights)
    hits = metrics.top_k_hits(codes, probabilities, k=5)
    return {
        **_named(
            "balanced_accuracy", balanced, share_interval(balanced, balanced_replicates, n_certain)
        ),
        **_named("macro_f1", f1, share_interval(f1, f1_replicates, n_certain)),
        **({} if np.isnan(hits).any() else _accuracy("top5_accuracy", hits, rows)),
        **_loss("brier", metrics.squared_distances(codes, probabilities), rows),
    }


def _label_figures(
    truth: NDArray[np.bool_], predicted: NDArray[np.bool_], scores: NDArray[np.float64], rows: Rows
) -> dict[str, float]:
    weights = rows.weights
    n_certain = _n_certain(truth, rows)
    shares = {
        "macro_f1": (
            metrics.macro_f1(truth, predicted),
            resampling.macro_f1s(truth, predicted, weights),
            n_certain,
        ),
        "label_accuracy": (
            metrics.label_accuracy(truth, predicted),
            resampling.means((truth == predicted).mean(axis=1), weights),
            rows.n_units,
        ),
        "micro_f1": (
            metrics.micro_f1(truth, predicted),
            resampling.micro_f1s(truth, predicted, weights),
            rows.n_units,
        ),
        "map": (
            metrics.mean_average_precision(truth, scores),
            resampling.mean_average_precisions(truth, scores, weights),
            n_certain,
        ),
    }
    figures = _accuracy("subset_accuracy", (truth == predicted).all(axis=1), rows)
    for name, (share, replicates, n_if_certain) in shares.items():
        figures |= _named(name, share, share_interval(share, replicates, n_if_certain))
    return figures


def _accuracy(name: str, right: NDArray, rows: Rows) -> dict[str, float]:
    return _named(name, float(right.mean()), accuracy_interval(right, rows))


def _loss(name: str, losses: NDArray[np.float64], rows: Rows) -> dict[str, float]:
    return _named(name, float(losses.mean()), loss_interval(losses, rows))


def _named(name: str, figure: float, interval: Interval) -> dict[str, float]:
    return {name: figure, f"{name}_low": interval[0], f"{name}_high": interval[1]}


def _n_certain(truth: NDArray[np.bool_], rows: Rows) -> float:
    """How many answers a mean over classes is worth: that of few images weighs most."""
    counts = (rows.sums(truth) > 0).sum(axis=0)
    counts = counts[counts > 0]
    return len(counts) ** 2 / (1 / counts).sum() if len(counts) else 0


def _log_losses(predictions: Predictions, attribute: str) -> NDArray[np.float64]:
    labels, probabilities = predictions.labels[attribute], predictions.probabilities(attribute)
    if labels.exclusive:
        return metrics.log_losses(labels.codes, probabilities)
    return metrics.label_set_log_losses(labels.indicator, probabilities)


def _confidence(predictions: Predictions, attribute: str) -> NDArray[np.float64]:
    return answer_confidence(
        predictions.probabilities(attribute),
        predictions.thresholds[attribute],
        exclusive=predictions.labels[attribute].exclusive,
    )
