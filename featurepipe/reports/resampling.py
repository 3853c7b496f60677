"""Figures of rows that are drawn again and again, with replacement.

A resample is told by how often it holds each row. Figures take such weights, of
shape (n_resamples, n_rows), and give what `featurepipe.metrics` would give for the
rows so often repeated: one number a resample.
"""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma

Weights = NDArray[np.float64]
Replicates = NDArray[np.float64]


class Rows:
    """Rows that a figure is measured on, and their resamples.

    Parameters
    ----------
    groups : ndarray of shape (n_rows,), int
        Rows of one number are drawn together.
    n_resamples : int
    seed : int
        The same groups and seed give the same resamples.

    Attributes
    ----------
    unit_of_row : ndarray of shape (n_rows,), intp
        Groups numbered from 0.
    n_units : int
        Number of groups.
    """

    def __init__(
        self, groups: NDArray[np.integer], *, n_resamples: int = 1000, seed: int = 0
    ) -> None:
        units, self.unit_of_row = np.unique(groups, return_inverse=True)
        self.n_units = len(units)
        self.n_resamples = n_resamples
        self.seed = seed

    def __len__(self) -> int:
        return len(self.unit_of_row)

    @property
    def grouped(self) -> bool:
        """Whether any group has several rows."""
        return self.n_units < len(self)

    @cached_property
    def unit_weights(self) -> Weights:
        """How often each resample holds each group: (n_resamples, n_units)."""
        rng = np.random.default_rng(self.seed)
        drawn = rng.integers(self.n_units, size=(self.n_resamples, self.n_units))
        cells = drawn + self.n_units * np.arange(self.n_resamples)[:, None]
        counts = np.bincount(cells.ravel(), minlength=cells.size)
        return counts.reshape(cells.shape).astype(np.float64)

    @cached_property
    def weights(self) -> Weights:
        """How often each resample holds each row: (n_resamples, n_rows)."""
        return self.unit_weights[:, self.unit_of_row] if self.grouped else self.unit_weights

    def sums(self, values: NDArray) -> NDArray[np.float64]:
        """Sums of the values of each group's rows.

        Parameters
        ----------
        values : ndarray of shape (n_rows,) or (n_rows, n_columns)

        Returns
        -------
        ndarray of shape (n_units,) or (n_units, n_columns), float64
        """
        sums = np.zeros((self.n_units, *values.shape[1:]))
        np.add.at(sums, self.unit_of_row, values)
        return sums


def means(values: NDArray, weights: Weights) -> Replicates:
    """Mean of the rows' values.

    Parameters
    ----------
    values : ndarray of shape (n_rows,)
    weights : ndarray of shape (n_resamples, n_rows)

    Returns
    -------
    ndarray of shape (n_resamples,), float64
    """
    return weights @ values / weights.sum(axis=1)


def balanced_accuracies(truth: NDArray, predicted: NDArray, weights: Weights) -> Replicates:
    """See `featurepipe.metrics.balanced_accuracy`.

    Parameters
    ----------
    truth, predicted : ndarray of shape (n_rows, n_classes), bool
        One class a row.
    weights : ndarray of shape (n_resamples, n_rows)

    Returns
    -------
    ndarray of shape (n_resamples,), float64
    """
    return _mean_ratio(weights @ (truth & predicted), weights @ truth)


def macro_f1s(truth: NDArray, predicted: NDArray, weights: Weights) -> Replicates:
    """See `featurepipe.metrics.macro_f1`.

    Parameters
    ----------
    truth, predicted : ndarray of shape (n_rows, n_classes), bool
    weights : ndarray of shape (n_resamples, n_rows)

    Returns
    -------
    ndarray of shape (n_resamples,), float64
    """
    n_right = weights @ (truth & predicted)
    return _mean_ratio(2 * n_right, weights @ truth + weights @ predicted)


def micro_f1s(truth: NDArray, predicted: NDArray, weights: Weights) -> Replicates:
    """See `featurepipe.metrics.micro_f1`.

    Parameters
    ----------
    truth, predicted : ndarray of shape (n_rows, n_classes), bool
    weights : ndarray of shape (n_resamples, n_rows)

    Returns
    -------
    ndarray of shape (n_resamples,), float64
    """
    n_right = weights @ (truth & predicted).sum(axis=1)
    n_said = weights @ (truth.sum(axis=1) + predicted.sum(axis=1))
    return _ratio(2 * n_right, n_said)


def mean_average_precisions(
    truth: NDArray, probabilities: NDArray[np.float64], weights: Weights
) -> Replicates:
    """See `featurepipe.metrics.mean_average_precision`.

    Parameters
    ----------
    truth : ndarray of shape (n_rows, n_classes), bool
    probabilities : ndarray of shape (n_rows, n_classes), float64
    weights : ndarray of shape (n_resamples, n_rows)

    Returns
    -------
    ndarray of shape (n_resamples,), float64
    """
    present = np.flatnonzero(truth.any(axis=0))
    of_rows = np.ascontiguousarray(weights.T)
    of_labels = np.full((len(present), len(weights)), np.nan)
    for number, label in enumerate(present):
        of_labels[number] = _average_precisions(truth[:, label], probabilities[:, label], of_rows)
    # A resample may lack a label.
    return _ratio(np.nansum(of_labels, axis=0), (~np.isnan(of_labels)).sum(axis=0))


def eces(gaps: NDArray[np.float64], weights: Weights) -> Replicates:
    """See `featurepipe.metrics.ece`.

    Parameters
    ----------
    gaps : ndarray of shape (n_rows, n_bins), float64
        From `featurepipe.metrics.calibration_gaps`.
    weights : ndarray of shape (n_resamples, n_rows)

    Returns
    -------
    ndarray of shape (n_resamples,), float64
    """
    return np.abs(weights @ gaps).sum(axis=1) / weights.sum(axis=1)


def _average_precisions(
    truth: NDArray[np.bool_], probabilities: NDArray[np.float64], weights: NDArray[np.float64]
) -> Replicates:
    """Of one label; `weights` has the shape (n_rows, n_resamples)."""
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


def _mean_ratio(parts: NDArray[np.float64], wholes: NDArray[np.float64]) -> Replicates:
    """Mean over the columns of part / whole, those left out whose whole is 0."""
    ratios = np.divide(parts, wholes, out=np.zeros_like(parts), where=wholes > 0)
    return _ratio(ratios.sum(axis=1), (wholes > 0).sum(axis=1))


def _ratio(part: NDArray, whole: NDArray) -> Replicates:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def risk_coverage_areas(
    correct: NDArray[np.bool_], certainty: NDArray[np.float64], weights: Weights
) -> NDArray[np.float64]:
    """`featurepipe.metrics.risk_coverage_area` of each resample.

    Of m equally certain rows with the error rate r, after N others with E errors, the k-th in
    the mean of all orders leaves a risk of ``(E + k r) / (N + k)``; these add up to
    ``m r + (E - N r) (H(N + m) - H(N))``, H being the harmonic numbers.

    Parameters
    ----------
    correct : ndarray of shape (n_rows,), bool
    certainty : ndarray of shape (n_rows,), float64
    weights : ndarray of shape (n_resamples, n_rows), float64

    Returns
    -------
    ndarray of shape (n_resamples,), float64
    """
    values, tied = np.unique(-certainty, return_inverse=True)
    order = np.argsort(tied, kind="stable")
    starts = np.searchsorted(tied[order], np.arange(len(values)))
    drawn = weights[:, order]
    m = np.add.reduceat(drawn, starts, axis=1)
    errors = np.add.reduceat(drawn * ~correct[order], starts, axis=1)
    n_after, errors_after = np.cumsum(m, axis=1), np.cumsum(errors, axis=1)
    n_before, errors_before = n_after - m, errors_after - errors
    rate = errors / np.maximum(m, 1)
    harmonic = digamma(n_after + 1) - digamma(n_before + 1)
    sums = m * rate + (errors_before - n_before * rate) * harmonic
    return sums.sum(axis=1) / n_after[:, -1]
