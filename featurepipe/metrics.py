"""Figures of merit: arrays in, numbers out.

Truth comes in two forms: *codes*, the index of each row's class (intp, 0 to n_classes - 1), and
an *indicator* (bool, n_rows x n_classes), which also holds sets of labels.

A figure that is a mean over rows has a function that gives the value of each row, such as
`log_losses`. Every other figure takes ``weights`` of shape (n_resamples, n_rows), which say how
often each resample counts each row, and returns one number for each resample. Without weights it
returns the figure of the rows themselves, as a float: NaN if there are no rows.
"""

from collections.abc import Callable
from functools import wraps
from typing import Protocol, overload

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import digamma
from sklearn.metrics import roc_auc_score

Codes = NDArray[np.intp]
Indicator = NDArray[np.bool_]
Probabilities = NDArray[np.float64]
Weights = NDArray[np.float64]
Values = NDArray[np.float64]

N_BINS = 15
"""Bins of confidence in the expected calibration error."""


class Figure(Protocol):
    """A figure of some rows, or of resamples of them."""

    @overload
    def __call__(self, *arrays: NDArray) -> float: ...
    @overload
    def __call__(self, *arrays: NDArray, weights: Weights) -> Values: ...


def _figure(of_resamples: Callable[..., Values]) -> Figure:
    """Let a figure of resamples also take plain rows, which count once each."""

    @wraps(of_resamples)
    def figure(*arrays: NDArray, weights: Weights | None = None) -> float | Values:
        if weights is not None:
            return of_resamples(*arrays, weights=weights)
        n_rows = len(arrays[0])
        return float(of_resamples(*arrays, weights=np.ones((1, n_rows)))[0]) if n_rows else np.nan

    return figure  # type: ignore[return-value]


def log_losses(truth: Codes, probabilities: Probabilities) -> Values:
    """Negative natural logarithm of the true class's probability.

    Probabilities are clipped to the machine epsilon of float64 (2.2e-16): a true class with
    probability 0 costs 36.04, not infinity.

    Parameters
    ----------
    truth : ndarray of shape (n_rows,), intp
    probabilities : ndarray of shape (n_rows, n_classes), float64
        Rows sum to 1.

    Returns
    -------
    ndarray of shape (n_rows,), float64
        In [0, 36.05].
    """
    # Rows computed from float32 features sum to 1 within its rounding only.
    return _surprise(probabilities[np.arange(len(truth)), truth] / probabilities.sum(axis=1))


def label_set_log_losses(truth: Indicator, probabilities: Probabilities) -> Values:
    """Negative natural logarithm of the true label set's probability.

    Labels count as independent: the sum of their binary log-losses, clipped as in `log_losses`.

    Parameters
    ----------
    truth : ndarray of shape (n_rows, n_classes), bool
    probabilities : ndarray of shape (n_rows, n_classes), float64

    Returns
    -------
    ndarray of shape (n_rows,), float64
        In [0, 36.05 n_classes].
    """
    return _surprise(np.where(truth, probabilities, 1 - probabilities)).sum(axis=1)


def squared_distances(truth: Codes, probabilities: Probabilities) -> Values:
    """Summed squared distance of each row's probabilities from the truth; the mean is Brier's.

    Brier (1950), Verification of forecasts expressed in terms of probability: the multi-class
    sum, not halved for two classes.

    Parameters
    ----------
    truth : ndarray of shape (n_rows,), intp
    probabilities : ndarray of shape (n_rows, n_classes), float64
        Rows sum to 1.

    Returns
    -------
    ndarray of shape (n_rows,), float64
        In [0, 2].
    """
    distances = probabilities / probabilities.sum(axis=1, keepdims=True)
    distances[np.arange(len(truth)), truth] -= 1
    return np.square(distances, out=distances).sum(axis=1)


def top_k_hits(truth: Codes, probabilities: Probabilities, *, k: int = 5) -> Values:
    """Whether each row's true class is among the `k` most probable.

    Parameters
    ----------
    truth : ndarray of shape (n_rows,), intp
    probabilities : ndarray of shape (n_rows, n_classes), float64
    k : int

    Returns
    -------
    ndarray of shape (n_rows,), float64
        0 or 1. NaN where there are at most `k` classes, since every row would be a hit. Among
        equally probable classes the later ones count first, as in scikit-learn.
    """
    if probabilities.shape[1] <= k:
        return np.full(len(truth), np.nan)
    best = np.argsort(probabilities, axis=1, kind="stable")[:, -k:]
    return (best == truth[:, None]).any(axis=1).astype(np.float64)


@_figure
def balanced_accuracy(truth: Indicator, predicted: Indicator, *, weights: Weights) -> Values:
    """Mean of the classes' recalls. Classes without a row are left out.

    Parameters
    ----------
    truth, predicted : ndarray of shape (n_rows, n_classes), bool
        One class a row.
    weights : ndarray of shape (n_resamples, n_rows), float64, optional

    Returns
    -------
    float or ndarray of shape (n_resamples,), float64
        In [0, 1].
    """
    return _mean_ratio(weights @ (truth & predicted), weights @ truth)


@_figure
def macro_f1(truth: Indicator, predicted: Indicator, *, weights: Weights) -> Values:
    """Mean of the classes' F1, ``2 TP / (2 TP + FP + FN)``.

    Classes that are neither true nor predicted in any row are left out.

    Parameters
    ----------
    truth, predicted : ndarray of shape (n_rows, n_classes), bool
    weights : ndarray of shape (n_resamples, n_rows), float64, optional

    Returns
    -------
    float or ndarray of shape (n_resamples,), float64
        In [0, 1]; NaN if no class is true or predicted.
    """
    n_right = weights @ (truth & predicted)
    return _mean_ratio(2 * n_right, weights @ truth + weights @ predicted)


@_figure
def micro_f1(truth: Indicator, predicted: Indicator, *, weights: Weights) -> Values:
    """F1 over the yes-or-no answers for all labels together, ``2 TP / (2 TP + FP + FN)``.

    Parameters
    ----------
    truth, predicted : ndarray of shape (n_rows, n_classes), bool
    weights : ndarray of shape (n_resamples, n_rows), float64, optional

    Returns
    -------
    float or ndarray of shape (n_resamples,), float64
        In [0, 1]; NaN if no label is true or predicted.
    """
    n_right = weights @ (truth & predicted).sum(axis=1)
    n_positive = weights @ (truth.sum(axis=1) + predicted.sum(axis=1))
    return _ratio(2 * n_right, n_positive)


@_figure
def mean_average_precision(
    truth: Indicator, probabilities: Probabilities, *, weights: Weights
) -> Values:
    """Mean of the labels' average precision: scikit-learn's step-wise one, not interpolated.

    Labels that no row has are left out.

    Parameters
    ----------
    truth : ndarray of shape (n_rows, n_classes), bool
    probabilities : ndarray of shape (n_rows, n_classes), float64
        Only their order within a label counts.
    weights : ndarray of shape (n_resamples, n_rows), float64, optional

    Returns
    -------
    float or ndarray of shape (n_resamples,), float64
        In [0, 1]; NaN if no row has a label.
    """
    present = np.flatnonzero(truth.any(axis=0))
    by_row = np.ascontiguousarray(weights.T)
    precisions = np.full((len(present), len(weights)), np.nan)
    for number, label in enumerate(present):
        precisions[number] = _average_precision(truth[:, label], probabilities[:, label], by_row)
    # A resample may lack a label.
    return _ratio(np.nansum(precisions, axis=0), (~np.isnan(precisions)).sum(axis=0))


def _average_precision(truth: Indicator, probabilities: Values, weights: Weights) -> Values:
    """Average precision of one label; `weights` has the shape (n_rows, n_resamples)."""
    falling = np.argsort(-probabilities, kind="stable")
    truth, probabilities = truth[falling], probabilities[falling]
    # Precision counts where recall grows: up to the last row that ties with a true one.
    ends = np.unique(np.searchsorted(-probabilities, -probabilities[truth], side="right"))
    starts = np.append(0, ends[:-1])
    n_taken = np.add.reduceat(weights[falling[: ends[-1]]], starts, axis=0).cumsum(axis=0)
    n_true = np.append(0, truth.cumsum()[ends[:-1] - 1])
    gained = np.add.reduceat(weights[falling[truth]], n_true, axis=0)
    n_right = gained.cumsum(axis=0)
    return _ratio((gained * n_right / np.maximum(n_taken, 1)).sum(axis=0), n_right[-1])


@_figure
def ece(correct: NDArray[np.bool_], confidence: Values, *, weights: Weights) -> Values:
    """Expected calibration error of the given answers, in 15 equally wide bins.

    Guo, Pleiss, Sun & Weinberger (2017), On calibration of modern neural networks, eq. 3: rows
    are sorted into bins by confidence, and the distance between mean confidence and accuracy
    of each bin is averaged, weighted by the bin's rows. The estimate is biased upwards for few
    rows, where a bin's accuracy is noise (a perfectly calibrated head on 100 rows shows about
    0.1), and downwards within a bin, where errors of either sign cancel.

    Parameters
    ----------
    correct : ndarray of shape (n_rows,), bool
        Which answers are right.
    confidence : ndarray of shape (n_rows,), float64
        Probability of the given answers, in [0, 1].
    weights : ndarray of shape (n_resamples, n_rows), float64, optional

    Returns
    -------
    float or ndarray of shape (n_resamples,), float64
        In [0, 1].
    """
    # Bins are open below and closed above, as in the paper; 0 joins the first.
    bins = np.clip(np.ceil(confidence * N_BINS).astype(np.intp) - 1, 0, N_BINS - 1)
    # Of a million rows, a column for each bin would take 120 MB.
    places = bins, np.arange(len(bins) + 1)
    gaps = csr_array((correct - confidence, *places), shape=(len(bins), N_BINS))
    return np.abs(weights @ gaps).sum(axis=1) / weights.sum(axis=1)


@_figure
def risk_coverage_area(
    correct: NDArray[np.bool_], certainty: Values, *, weights: Weights
) -> Values:
    """Share of wrong answers among the i most certain ones, averaged over all i.

    The area under the risk-coverage curve (AURC) of Geifman & El-Yaniv (2017), Selective
    classification for deep neural networks. Equally certain answers count in the mean of all
    their orders: of m of them with the error rate r, after N others with E errors, the k-th
    leaves a mean risk of ``(E + k r) / (N + k)``. These add up to
    ``m r + (E - N r) (H(N + m) - H(N))``, where H are the harmonic numbers.

    Parameters
    ----------
    correct : ndarray of shape (n_rows,), bool
        Which answers are right.
    certainty : ndarray of shape (n_rows,), float64
        Only its order counts; the least certain answers are withheld first.
    weights : ndarray of shape (n_resamples, n_rows), float64, optional

    Returns
    -------
    float or ndarray of shape (n_resamples,), float64
        In [0, 1]; the error rate if certainty and correctness are independent.
    """
    levels, level_of_row = np.unique(-certainty, return_inverse=True)
    order = np.argsort(level_of_row, kind="stable")
    starts = np.searchsorted(level_of_row[order], np.arange(len(levels)))
    drawn = weights[:, order]
    n_rows = np.add.reduceat(drawn, starts, axis=1)
    n_wrong = np.add.reduceat(drawn * ~correct[order], starts, axis=1)
    n_after, wrong_after = np.cumsum(n_rows, axis=1), np.cumsum(n_wrong, axis=1)
    n_before, wrong_before = n_after - n_rows, wrong_after - n_wrong
    rate = n_wrong / np.maximum(n_rows, 1)
    harmonic = digamma(n_after + 1) - digamma(n_before + 1)
    risks = n_rows * rate + (wrong_before - n_before * rate) * harmonic
    return risks.sum(axis=1) / n_after[:, -1]


def auroc(is_unrelated: NDArray[np.bool_], novelty: Values) -> float:
    """How often an unrelated image is more novel than a familiar one; ties count half.

    The area under the receiver operating characteristic.

    Parameters
    ----------
    is_unrelated : ndarray of shape (n_rows,), bool
    novelty : ndarray of shape (n_rows,), float64
        Only its order counts.

    Returns
    -------
    float
        In [0, 1], 0.5 by chance; NaN if all images are unrelated, or none.
    """
    if is_unrelated.all() or not is_unrelated.any():
        return np.nan
    return roc_auc_score(is_unrelated, novelty)


def _surprise(probabilities: Probabilities) -> Values:
    return np.abs(np.log(np.clip(probabilities, np.finfo(np.float64).eps, 1)))


def _mean_ratio(parts: Values, wholes: Values) -> Values:
    """Mean of part / whole over the columns; those with a whole of 0 are left out."""
    ratios = np.divide(parts, wholes, out=np.zeros_like(parts), where=wholes > 0)
    return _ratio(ratios.sum(axis=1), (wholes > 0).sum(axis=1))


def _ratio(part: NDArray, whole: NDArray) -> Values:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
