"""Predictions -> figures for each attribute, with confidence intervals."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hmean

from featurepipe import metrics
from featurepipe.predictions import ALL, COVERAGE, Predictions, Task
from featurepipe.reports.attribute_predictions import AttributePredictions
from featurepipe.reports.intervals import (
    accuracy_interval,
    ece_interval,
    loss_interval,
)
from featurepipe.reports.resampling import Resamples
from featurepipe.shares import Interval, share_interval

_N_BINS = 10
_OVER_CLASSES = ("balanced_accuracy", "macro_f1")

MEASURED = (
    "accuracy",
    *_OVER_CLASSES,
    "top5_accuracy",
    "log_loss",
    "brier",
    "ece",
    "unseen_accuracy",
    "unseen_harmonic_mean",
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
"""Figures with an interval; its ends are named ``_low`` and ``_high``."""

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


def evaluate(predictions: Predictions) -> list[dict[str, Any]]:
    """Figures of a run on its test images, and on combinations that were never trained.

    Each attribute is measured on the images labelled for it, ``"all"`` on the images labelled
    for every attribute. For ``"all"`` an image is right if it is right for every attribute;
    ``log_loss`` is the sum over attributes (that of their joint answer, were they independent);
    ``ece`` compares how often all are right with the product of the answers' probabilities.

    The multi-label figures (from ``subset_accuracy`` on) and a ``macro_f1`` over labels belong
    to attributes that are not exclusive, and to ``"all"`` of a multi-label run, over all labels.
    A label counts as given where its probability is above its threshold.

    ``unseen_harmonic_mean`` is that of ``accuracy`` and ``unseen_accuracy``, by which the
    literature on compositional learning ranks (Xian et al. 2017, Zero-shot learning: the good,
    the bad and the ugly). Its interval has the harmonic means of their ends.

    ``answered`` is the share of images that ``predict`` would not call unknown at its default
    coverage; for ``"all"``, not for any attribute. ``risk_coverage_area`` is the area under the
    error rate of the answered images, from the most familiar image to the last.

    Parameters
    ----------
    predictions : Predictions
        Rows of the parts ``"test"`` and ``"unseen"``; others are ignored.

    Returns
    -------
    list of dict
        One for each attribute and one for ``"all"``, with the keys ``attribute``, ``n_test``,
        ``interval`` and `FIGURES`. A figure that does not apply is NaN, such as balanced
        accuracy and macro F1 of unseen combinations with fewer than two classes. The ends of
        95 % intervals follow their figure; ``interval`` says what was resampled for them:
        ``"images"``, or ``"groups"`` where some images belong together.
    """
    test, unseen = predictions.select("test"), predictions.select("unseen")
    rows = []
    for attribute in [*predictions.labels, ALL]:
        tested, never_trained = (
            AttributePredictions.of(part, attribute) for part in (test, unseen)
        )
        grouped = any(
            Resamples(judged.predictions.groups).grouped for judged in (tested, never_trained)
        )
        rows.append(
            {
                "attribute": attribute,
                "n_test": len(tested),
                "interval": "groups" if grouped else "images",
                **dict.fromkeys(FIGURES, np.nan),
                **_figures(tested, attribute),
                **_unseen_figures(never_trained, attribute),
                **_harmonic_mean(tested, never_trained),
                "n_unseen": len(never_trained),
            }
        )
    return rows


def accuracies(predictions: Predictions) -> dict[str, float]:
    """Accuracy for each attribute and for all together, over all given rows.

    Parameters
    ----------
    predictions : Predictions

    Returns
    -------
    dict of str to float
        By attribute, and ``"all"``; in [0, 1], NaN where no row is labelled.
    """
    right = {name: predictions.correct(name) for name in predictions.labels}
    labelled = {name: labels.labelled for name, labels in predictions.labels.items()}
    right[ALL], labelled[ALL] = (np.all(list(of.values()), axis=0) for of in (right, labelled))
    return {
        name: float(of[labelled[name]].mean()) if labelled[name].any() else np.nan
        for name, of in right.items()
    }


def reliability(predictions: Predictions) -> dict[str, dict[str, Any]]:
    """How well the probabilities of answers match how often they are right.

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
    return {name: _reliability(predictions, name) for name in predictions.labels}


def _reliability(predictions: Predictions, attribute: str) -> dict[str, Any]:
    is_labelled = predictions.labels[attribute].labelled
    labelled = predictions if is_labelled.all() else predictions.take(is_labelled)
    right, confidence = labelled.correct(attribute), labelled.confidence(attribute)
    bins = np.minimum((confidence * _N_BINS).astype(int), _N_BINS - 1)
    return {
        "log_loss": float(labelled.log_losses(attribute).mean()),
        "ece": metrics.ece(right, confidence),
        "bins": [
            {
                "n_images": int((bins == k).sum()),
                "confidence": float(confidence[bins == k].mean()),
                "accuracy": float(right[bins == k].mean()),
            }
            for k in np.unique(bins)
        ],
    }


def _unseen_figures(judged: AttributePredictions, attribute: str) -> dict[str, float]:
    figures = _figures(judged, attribute)
    if attribute != ALL:
        truth = judged.predictions.labels[attribute].indicator
        if truth.any(axis=0).sum() < 2:
            figures = {k: v for k, v in figures.items() if not k.startswith(_OVER_CLASSES)}
    unseen = {f"unseen_{name}": value for name, value in figures.items()}
    return {name: value for name, value in unseen.items() if name in FIGURES}


def _harmonic_mean(
    tested: AttributePredictions, never_trained: AttributePredictions
) -> dict[str, float]:
    if not len(tested) or not len(never_trained):
        return {}
    shares = [
        _accuracy("accuracy", judged.right, Resamples(judged.predictions.groups))
        for judged in (tested, never_trained)
    ]
    return {
        name.replace("accuracy", "unseen_harmonic_mean"): float(
            hmean([of_part[name] for of_part in shares])
        )
        for name in shares[0]
    }


def _figures(judged: AttributePredictions, attribute: str) -> dict[str, float]:
    if not len(judged):
        return {}
    predictions = judged.predictions
    resamples = Resamples(predictions.groups)
    figures = {
        **_accuracy("accuracy", judged.right, resamples),
        **_loss("log_loss", judged.losses, judged.highest_losses, judged.right, resamples),
        **_ece(judged, resamples),
        **_accuracy("answered", judged.image_p_values > 1 - COVERAGE, resamples),
        **_share(
            "risk_coverage_area",
            metrics.risk_coverage_area,
            (judged.right, judged.p_values),
            resamples,
            resamples.n_units,
        ),
    }
    if attribute != ALL and predictions.labels[attribute].exclusive:
        return figures | _class_figures(judged, attribute, resamples)
    if attribute == ALL and predictions.task != Task.MULTI_LABEL:
        return figures
    return figures | _label_figures(predictions, attribute, resamples)


def _class_figures(
    judged: AttributePredictions, attribute: str, resamples: Resamples
) -> dict[str, float]:
    labels = judged.predictions.labels[attribute]
    probabilities = judged.predictions.probabilities(attribute)
    codes, truth = labels.codes, labels.indicator
    predicted = np.eye(len(labels.classes), dtype=bool)[probabilities.argmax(axis=1)]
    n_certain = _n_certain(truth, resamples)
    pair = truth, predicted
    hits = metrics.top_k_hits(codes, probabilities, k=5)
    distances, furthest = (
        metrics.squared_distances(given, probabilities)
        for given in (codes, probabilities.argmin(axis=1))
    )
    return {
        **_share("balanced_accuracy", metrics.balanced_accuracy, pair, resamples, n_certain),
        **_share("macro_f1", metrics.macro_f1, pair, resamples, n_certain),
        **({} if np.isnan(hits).any() else _accuracy("top5_accuracy", hits, resamples)),
        **_loss("brier", distances, furthest, judged.right, resamples),
    }


def _label_figures(
    predictions: Predictions, attribute: str, resamples: Resamples
) -> dict[str, float]:
    names = list(predictions.labels) if attribute == ALL else [attribute]
    truth = np.hstack([predictions.labels[name].indicator for name in names])
    scores = np.hstack([predictions.scores[name] for name in names])
    given = np.hstack([predictions.given(name) for name in names])
    n_certain, n_units = _n_certain(truth, resamples), resamples.n_units
    right = truth == given
    share_right = right.mean(axis=1)
    interval = share_interval(
        share_right.mean(), float(np.var(resamples.means(share_right))), n_units, n_units
    )
    pair = truth, given
    return {
        **_accuracy("subset_accuracy", right.all(axis=1), resamples),
        **_with_ends("label_accuracy", float(share_right.mean()), interval),
        **_share("macro_f1", metrics.macro_f1, pair, resamples, n_certain),
        **_share("micro_f1", metrics.micro_f1, pair, resamples, n_units),
        **_share("map", metrics.mean_average_precision, (truth, scores), resamples, n_certain),
    }


def _accuracy(name: str, right: NDArray, resamples: Resamples) -> dict[str, float]:
    return _with_ends(name, float(right.mean()), accuracy_interval(right, resamples))


def _loss(
    name: str,
    losses: NDArray[np.float64],
    highest: NDArray[np.float64],
    right: NDArray[np.bool_],
    resamples: Resamples,
) -> dict[str, float]:
    interval = loss_interval(losses, highest, right, resamples)
    return _with_ends(name, float(losses.mean()), interval)


def _ece(judged: AttributePredictions, resamples: Resamples) -> dict[str, float]:
    ece = metrics.ece(judged.right, judged.confidence)
    replicates = resamples.replicates(
        lambda weights: metrics.ece(judged.right, judged.confidence, weights=weights)
    )
    return _with_ends("ece", ece, ece_interval(ece, replicates))


def _share(
    name: str,
    figure: metrics.Figure,
    arrays: tuple[NDArray, NDArray],
    resamples: Resamples,
    n_if_certain: float,
) -> dict[str, float]:
    share = figure(*arrays)
    replicates = resamples.replicates(lambda weights: figure(*arrays, weights=weights))
    variance = 0.0 if np.isnan(share) else float(np.nanvar(replicates))
    interval = share_interval(share, variance, resamples.n_units, n_if_certain)
    return _with_ends(name, share, interval)


def _with_ends(name: str, figure: float, interval: Interval) -> dict[str, float]:
    return {name: figure, f"{name}_low": interval[0], f"{name}_high": interval[1]}


def _n_certain(truth: NDArray[np.bool_], resamples: Resamples) -> float:
    """Effective sample size of a mean over classes: the class with few images weighs most."""
    counts = (resamples.sums(truth) > 0).sum(axis=0)
    counts = counts[counts > 0]
    return len(counts) ** 2 / (1 / counts).sum() if len(counts) else 0
