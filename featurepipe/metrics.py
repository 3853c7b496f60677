"""Figures of merit: arrays in, numbers out.

`truth` holds the index of each row's class (intp, 0 to n_classes - 1) or, for
sets of labels, the indicator (bool, n x n_classes). Every figure of no rows
is NaN. What is a mean over rows has a function in the plural that gives the rows.
"""

from collections.abc import Callable
from functools import wraps

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics

TruthCodes = NDArray[np.intp]
Indicator = NDArray[np.bool_]
Probabilities = NDArray[np.float64]


def _nan_of_no_rows(figure: Callable[..., float]) -> Callable[..., float]:
    @wraps(figure)
    def of_rows(truth: NDArray, *others: NDArray, **options: int) -> float:
        return float(figure(truth, *others, **options)) if len(truth) else np.nan

    return of_rows


@_nan_of_no_rows
def accuracy(truth: TruthCodes, predicted: TruthCodes) -> float:
    """Share of the rows whose predicted class is the true one.

    Parameters
    ----------
    truth, predicted : ndarray of shape (n_samples,), intp

    Returns
    -------
    float
        In [0, 1].
    """
    return metrics.accuracy_score(truth, predicted)


@_nan_of_no_rows
def balanced_accuracy(truth: TruthCodes, predicted: TruthCodes) -> float:
    """Mean over the classes of the share of their rows that is found.

    Classes without a row are left out.

    Parameters
    ----------
    truth, predicted : ndarray of shape (n_samples,), intp

    Returns
    -------
    float
        In [0, 1].
    """
    classes = np.unique(truth)
    return metrics.recall_score(truth, predicted, labels=classes, average="macro")


@_nan_of_no_rows
def macro_f1(truth: NDArray, predicted: NDArray) -> float:
    """Mean F1 over the classes, ``2 TP / (2 TP + FP + FN)`` each.

    Classes that are neither true nor predicted anywhere are left out.

    Parameters
    ----------
    truth, predicted : ndarray of shape (n_samples,), intp, or (n_samples, n_classes), bool

    Returns
    -------
    float
        In [0, 1]; NaN if no class is true or predicted.
    """
    if truth.shape[1:] == (1,):
        # scikit-learn takes a single label for the two classes yes and no.
        return micro_f1(truth, predicted)
    return metrics.f1_score(truth, predicted, average="macro", zero_division=np.nan)


@_nan_of_no_rows
def top_k_accuracy(truth: TruthCodes, probabilities: Probabilities, *, k: int = 5) -> float:
    """Share of the rows whose true class is among the `k` most probable.

    Parameters
    ----------
    truth : ndarray of shape (n_samples,), intp
    probabilities : ndarray of shape (n_samples, n_classes), float64
    k : int

    Returns
    -------
    float
        In [0, 1]; NaN where there are no more than `k` classes, since every
        answer would be right.
    """
    return top_k_hits(truth, probabilities, k=k).mean()


def top_k_hits(
    truth: TruthCodes, probabilities: Probabilities, *, k: int = 5
) -> NDArray[np.float64]:
    """Whether each row's true class is among the `k` most probable.

    Parameters
    ----------
    truth : ndarray of shape (n_samples,), intp
    probabilities : ndarray of shape (n_samples, n_classes), float64
    k : int

    Returns
    -------
    ndarray of shape (n_samples,), float64
        0 or 1; NaN where there are no more than `k` classes. Of classes that are
        equally probable the later counts first, as in scikit-learn.
    """
    if probabilities.shape[1] <= k:
        return np.full(len(truth), np.nan)
    best = np.argsort(probabilities, axis=1, kind="stable")[:, -k:]
    return (best == truth[:, None]).any(axis=1).astype(np.float64)


@_nan_of_no_rows
def log_loss(truth: TruthCodes, probabilities: Probabilities) -> float:
    """Mean negative natural logarithm of the true class's probability.

    Probabilities are clipped to the machine epsilon of float64 (2.2e-16): a
    class held for impossible costs 36.04, not infinity.

    Parameters
    ----------
    truth : ndarray of shape (n_samples,), intp
    probabilities : ndarray of shape (n_samples, n_classes), float64
        Rows sum to 1.

    Returns
    -------
    float
        In [0, 36.05].
    """
    return log_losses(truth, probabilities).mean()


def log_losses(truth: TruthCodes, probabilities: Probabilities) -> NDArray[np.float64]:
    """Negative natural logarithm of the true class's probability; see `log_loss`.

    Parameters
    ----------
    truth : ndarray of shape (n_samples,), intp
    probabilities : ndarray of shape (n_samples, n_classes), float64

    Returns
    -------
    ndarray of shape (n_samples,), float64
        In [0, 36.05].
    """
    return _surprise(_summing_to_1(probabilities)[np.arange(len(truth)), truth])


@_nan_of_no_rows
def label_set_log_loss(truth: Indicator, probabilities: Probabilities) -> float:
    """Mean negative natural logarithm of the true label set's probability.

    The labels count as independent: the sum over the labels of their binary
    log-losses, clipped as in `log_loss`.

    Parameters
    ----------
    truth : ndarray of shape (n_samples, n_classes), bool
    probabilities : ndarray of shape (n_samples, n_classes), float64
        Each label's own.

    Returns
    -------
    float
        In [0, 36.05 n_classes].
    """
    return label_set_log_losses(truth, probabilities).mean()


def label_set_log_losses(truth: Indicator, probabilities: Probabilities) -> NDArray[np.float64]:
    """Negative natural logarithm of the true label set's probability; see `label_set_log_loss`.

    Parameters
    ----------
    truth : ndarray of shape (n_samples, n_classes), bool
    probabilities : ndarray of shape (n_samples, n_classes), float64

    Returns
    -------
    ndarray of shape (n_samples,), float64
        In [0, 36.05 n_classes].
    """
    return _surprise(np.where(truth, probabilities, 1 - probabilities)).sum(axis=1)


@_nan_of_no_rows
def brier(truth: TruthCodes, probabilities: Probabilities) -> float:
    """Mean over the rows of the summed squared distances from the truth.

    Brier (1950), Verification of forecasts expressed in terms of probability:
    the multi-class sum, not halved for two classes.

    Parameters
    ----------
    truth : ndarray of shape (n_samples,), intp
    probabilities : ndarray of shape (n_samples, n_classes), float64
        Rows sum to 1.

    Returns
    -------
    float
        In [0, 2].
    """
    return squared_distances(truth, probabilities).mean()


def squared_distances(truth: TruthCodes, probabilities: Probabilities) -> NDArray[np.float64]:
    """Summed squared distance of each row's probabilities from the truth; see `brier`.

    Parameters
    ----------
    truth : ndarray of shape (n_samples,), intp
    probabilities : ndarray of shape (n_samples, n_classes), float64

    Returns
    -------
    ndarray of shape (n_samples,), float64
        In [0, 2].
    """
    wanted = np.eye(probabilities.shape[1])[truth]
    return ((_summing_to_1(probabilities) - wanted) ** 2).sum(axis=1)


@_nan_of_no_rows
def ece(correct: NDArray[np.bool_], confidence: NDArray[np.float64], *, n_bins: int = 15) -> float:
    """Expected calibration error of the answers that were given.

    Guo, Pleiss, Sun & Weinberger (2017), On calibration of modern neural
    networks, eq. 3: rows are sorted into equally wide bins by confidence; the
    distance between mean confidence and accuracy of each bin is averaged,
    weighted by the bin's rows. The estimate is biased: upwards for few rows,
    where a bin's accuracy is noise (a perfectly calibrated head on 100 rows
    shows about 0.1), and downwards within a bin, where errors of either sign
    cancel.

    Parameters
    ----------
    correct : ndarray of shape (n_samples,), bool
        Which answers were right.
    confidence : ndarray of shape (n_samples,), float64
        Probability of each given answer, in [0, 1].
    n_bins : int

    Returns
    -------
    float
        In [0, 1].
    """
    return np.abs(calibration_gaps(correct, confidence, n_bins=n_bins).mean(axis=0)).sum()


def calibration_gaps(
    correct: NDArray[np.bool_], confidence: NDArray[np.float64], *, n_bins: int = 15
) -> NDArray[np.float64]:
    """What each row adds to the gap between accuracy and confidence of its bin; see `ece`.

    Parameters
    ----------
    correct : ndarray of shape (n_samples,), bool
    confidence : ndarray of shape (n_samples,), float64
    n_bins : int

    Returns
    -------
    ndarray of shape (n_samples, n_bins), float64
        ``correct - confidence`` in the row's bin, else 0.
    """
    # Bins are open below and closed above, as in the paper; 0 joins the first.
    bins = np.clip(np.ceil(confidence * n_bins).astype(np.intp) - 1, 0, n_bins - 1)
    return np.eye(n_bins)[bins] * (correct - confidence)[:, None]


@_nan_of_no_rows
def subset_accuracy(truth: Indicator, predicted: Indicator) -> float:
    """Share of the rows whose whole set of labels is right.

    Parameters
    ----------
    truth, predicted : ndarray of shape (n_samples, n_classes), bool

    Returns
    -------
    float
        In [0, 1].
    """
    return (truth == predicted).all(axis=1).mean()


@_nan_of_no_rows
def label_accuracy(truth: Indicator, predicted: Indicator) -> float:
    """Share of the single yes-or-no answers that are right: 1 - Hamming loss.

    Parameters
    ----------
    truth, predicted : ndarray of shape (n_samples, n_classes), bool

    Returns
    -------
    float
        In [0, 1].
    """
    return 1 - metrics.hamming_loss(truth, predicted)


@_nan_of_no_rows
def micro_f1(truth: Indicator, predicted: Indicator) -> float:
    """F1 over all yes-or-no answers together, ``2 TP / (2 TP + FP + FN)``.

    Parameters
    ----------
    truth, predicted : ndarray of shape (n_samples, n_classes), bool

    Returns
    -------
    float
        In [0, 1]; NaN if no label is true or predicted.
    """
    return metrics.f1_score(truth.ravel(), predicted.ravel(), zero_division=np.nan)


@_nan_of_no_rows
def mean_average_precision(truth: Indicator, probabilities: Probabilities) -> float:
    """Mean over the labels of their average precision.

    scikit-learn's step-wise, uninterpolated average precision. Labels that no
    row has are left out.

    Parameters
    ----------
    truth : ndarray of shape (n_samples, n_classes), bool
    probabilities : ndarray of shape (n_samples, n_classes), float64
        Only their order within a label counts.

    Returns
    -------
    float
        In [0, 1]; NaN if no row has a label.
    """
    present = np.flatnonzero(truth.any(axis=0))
    if not len(present):
        return np.nan
    return np.mean(
        [metrics.average_precision_score(truth[:, c], probabilities[:, c]) for c in present]
    )


def _surprise(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.abs(np.log(np.clip(probabilities, np.finfo(np.float64).eps, 1)))


def _summing_to_1(probabilities: Probabilities) -> Probabilities:
    # Rows that come of float32 features sum to 1 within its rounding only.
    return probabilities / probabilities.sum(axis=1, keepdims=True)


@_nan_of_no_rows
def risk_coverage_area(correct: NDArray[np.bool_], certainty: NDArray[np.float64]) -> float:
    """Share of wrong answers among the i most certain ones, averaged over all i.

    The area under the risk-coverage curve (AURC) of Geifman & El-Yaniv (2017),
    Selective classification for deep neural networks. Equally certain answers
    count in the mean of all their orders.

    Parameters
    ----------
    correct : ndarray of shape (n_samples,), bool
        Which answers were right.
    certainty : ndarray of shape (n_samples,), float64
        Only its order counts; the least certain are the first to be withheld.

    Returns
    -------
    float
        In [0, 1]; the error rate if certainty says nothing of it.
    """
    return selective_risks(correct, certainty).mean()


def selective_risks(
    correct: NDArray[np.bool_], certainty: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Share of wrong answers among the i most certain ones: the risk-coverage curve.

    Parameters
    ----------
    correct, certainty
        See `risk_coverage_area`.

    Returns
    -------
    ndarray of shape (n_samples,), float64
        At the coverages 1/n_samples, 2/n_samples, … 1.
    """
    _, levels, counts = np.unique(-certainty, return_inverse=True, return_counts=True)
    wrong = np.bincount(levels, weights=~correct, minlength=len(counts)) / np.maximum(counts, 1)
    return np.cumsum(np.repeat(wrong, counts)) / np.arange(1, len(correct) + 1)


@_nan_of_no_rows
def auroc(is_foreign: NDArray[np.bool_], novelty: NDArray[np.float64]) -> float:
    """How often a foreign image is more novel than a known one; ties count half.

    The area under the receiver operating characteristic.

    Parameters
    ----------
    is_foreign : ndarray of shape (n_samples,), bool
    novelty : ndarray of shape (n_samples,), float64
        Only its order counts.

    Returns
    -------
    float
        In [0, 1], 0.5 by chance; NaN if all images are foreign, or none.
    """
    if is_foreign.all() or not is_foreign.any():
        return np.nan
    return metrics.roc_auc_score(is_foreign, novelty)
