"""How sure a figure is."""

import numpy as np
from scipy.stats import binomtest


def wilson_interval(n_right: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Confidence interval of a share, such as an accuracy.

    Wilson (1927), Probable inference, the law of succession, and statistical
    inference; without continuity correction. Unlike the normal approximation it
    stays within [0, 1] and says something where all or none are right.

    Parameters
    ----------
    n_right, n : int
        Right answers, and all of them.
    level : float
        Share of such intervals that hold the true value, in (0, 1).

    Returns
    -------
    low, high : float
        In [0, 1]; NaN if `n` is 0.

    Examples
    --------
    >>> [round(end, 3) for end in wilson_interval(920, 1000)]
    [0.902, 0.935]
    """
    if n == 0:
        return np.nan, np.nan
    interval = binomtest(int(n_right), int(n)).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)
