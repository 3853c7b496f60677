"""95 % confidence intervals of figures.

The method for each figure was chosen by simulation (`benchmarks/intervals.py`), with as few as 30
images and accuracies from 0.5 to 1: bootstrap percentiles, which many tools report, contain the
log-loss of a good head in far fewer cases than 95 %, since they know only of errors that were seen.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from featurepipe.reports.resampling import Replicates, Resamples
from featurepipe.shares import ENDS, NOTHING, Interval, exact_interval, share_interval


def accuracy_interval(right: NDArray[np.bool_], resamples: Resamples) -> Interval:
    """Interval of the share of rows that are right.

    `exact_interval` where every group is a single row, else `share_interval`.

    Parameters
    ----------
    right : ndarray of shape (n_rows,), bool
    resamples : Resamples

    Returns
    -------
    low, high : float
        In [0, 1]; NaN without rows.
    """
    if not resamples.grouped:
        return exact_interval(right.sum(), len(right))
    n_units = resamples.n_units
    return share_interval(right.mean(), float(np.var(resamples.means(right))), n_units, n_units)


def loss_interval(
    losses: NDArray[np.float64],
    highest: NDArray[np.float64],
    right: NDArray[np.bool_],
    resamples: Resamples,
) -> Interval:
    """Interval of the mean of the rows' losses, which allows for errors that were not seen.

    A few wrong answers cause most of a loss. The upper end is therefore that of the rows and
    half a wrong answer more, the lower end that of the rows with half of their costliest
    answer less, each by Student's t for the mean's logarithm. Where all errors cost the same,
    that is close to the exact interval of their expected number (Garwood 1936): 0 to 3.5 where
    none was seen (exactly 3.7), 1.3 to 11.0 for four (1.1 to 10.2), 16.5 to 37.5 for 25 (16.2
    to 36.9). The wrong answer that is added costs as much as the average of those seen and of
    one more, in which the truth is what the head believes least.

    Parameters
    ----------
    losses : ndarray of shape (n_rows,), float64
        Not negative.
    highest : ndarray of shape (n_rows,), float64
        The loss of each row if its truth were what the head believes least.
    right : ndarray of shape (n_rows,), bool
        Which answers are right.
    resamples : Resamples

    Returns
    -------
    low, high : float
        Between 0 and the largest of `highest`; NaN for fewer than two groups.
    """
    if resamples.n_units < 2:
        return NOTHING
    sums, sizes = resamples.sums(losses), resamples.sums(np.ones(len(losses)))
    wrong = resamples.sums(~right) > 0
    cost = np.append(sums[wrong], resamples.sums(highest).mean()).mean()
    less = sums.copy()
    less[sums.argmax()] /= 2
    quantile = stats.t.ppf(ENDS[1], resamples.n_units - 1)
    low = _log_end(less, sizes, -quantile)
    high = _log_end(np.append(sums, cost / 2), np.append(sizes, sizes.mean()), quantile)
    return low, min(high, float(highest.max()))


def ece_interval(ece: float, replicates: Replicates) -> Interval:
    """Interval of the expected calibration error, by the reversed percentile bootstrap.

    Resampling biases an ECE upwards by about as much as drawing the rows did. Reversed
    percentiles (Davison & Hinkley 1997, Bootstrap methods and their application, section
    5.2) subtract that bias twice: the interval is bias-corrected and may exclude the point
    estimate. In simulations with 100 to 2,000 rows they covered an ECE of 0.04 or more in 87
    to 96 % of cases, but that of a nearly perfectly calibrated head in only 45 to 60 %: the
    interval then lies too high.

    Parameters
    ----------
    ece : float
    replicates : ndarray of shape (n_resamples,), float64

    Returns
    -------
    low, high : float
        In [0, 1]; NaN if `ece` is.
    """
    if np.isnan(ece):
        return NOTHING
    low, high = np.clip(2 * ece - np.quantile(replicates, ENDS[::-1]), 0, 1)
    return float(low), float(high)


def repeats_interval(figures: NDArray[np.float64], n_train: float, n_test: float) -> Interval:
    """Interval of a figure's mean over repeated splits of the same images.

    The corrected resampled t of Nadeau & Bengio (2003), Inference for the generalization
    error. Splits overlap, so the plain standard error of their mean is far too small; the
    correction adds ``n_test / n_train`` of the variance to its square. In simulations with a
    nearest-mean classifier on 200 and 1,000 images and 3 to 10 splits, it covered the expected
    accuracy for such a training set in 94 to 96 % of cases, the plain one in 74 to 92 %.

    Parameters
    ----------
    figures : ndarray of shape (n_splits,), float64
    n_train, n_test : float
        Images of each split.

    Returns
    -------
    low, high : float
        NaN for fewer than two splits.
    """
    n_splits = len(figures)
    if n_splits < 2:
        return NOTHING
    error = np.std(figures, ddof=1) * np.sqrt(1 / n_splits + n_test / n_train)
    reach = stats.t.ppf(ENDS[1], n_splits - 1) * error
    return float(np.mean(figures) - reach), float(np.mean(figures) + reach)


def _log_end(sums: NDArray[np.float64], sizes: NDArray[np.float64], quantile: float) -> float:
    """Mean over rows, moved by standard errors (over groups) of its logarithm."""
    n, mean = len(sums), sums.sum() / sizes.sum()
    if mean == 0:
        return 0.0
    variance = n / (n - 1) * ((sums - mean * sizes) ** 2).sum() / sizes.sum() ** 2
    return float(mean * np.exp(quantile * np.sqrt(variance) / mean))
