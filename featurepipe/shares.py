"""95 % confidence intervals of shares, such as an accuracy."""

import numpy as np
from scipy import stats

Interval = tuple[float, float]

LEVEL = 0.95
ENDS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
NOTHING = (np.nan, np.nan)


def exact_interval(n_right: float, n: float) -> Interval:
    """Confidence interval of a share, such as an accuracy.

    Clopper & Pearson (1934), The use of confidence or fiducial limits illustrated in the case
    of the binomial. It contains the true share in at least 95 % of cases, whatever that is.
    Wilson's interval is narrower, but one wrong answer among 30 excludes an accuracy of 99.5 %,
    which gives such an answer in 14 % of cases.

    Parameters
    ----------
    n_right, n : float
        Number of right answers, and of all answers; fractions of effective sample sizes, too.

    Returns
    -------
    low, high : float
        In [0, 1]; NaN if `n` is 0.

    Examples
    --------
    >>> [round(end, 3) for end in exact_interval(920, 1000)]
    [0.901, 0.936]
    """
    if n == 0:
        return NOTHING
    low = stats.beta.ppf(ENDS[0], n_right, n - n_right + 1) if n_right > 0 else 0.0
    high = stats.beta.ppf(ENDS[1], n_right + 1, n - n_right) if n_right < n else 1.0
    return float(low), float(high)


def share_interval(share: float, variance: float, n_units: int, n_if_certain: float) -> Interval:
    """Interval of a figure in [0, 1], such as an F1, from its variance.

    `exact_interval` with the effective sample size ``share (1 - share) / variance``, made
    smaller for few groups by the squared ratio of the normal to Student's t quantile (Korn &
    Graubard 1998, Confidence intervals for proportions with small expected number of
    positive counts estimated from survey data).

    Parameters
    ----------
    share : float
    variance : float
        The squared standard error of the share.
    n_units : int
        Independent groups that the share is made of.
    n_if_certain : float
        The effective sample size to use where nothing varies, as when all answers are right.

    Returns
    -------
    low, high : float
        In [0, 1]; NaN for fewer than two groups.
    """
    if np.isnan(share) or min(n_units, n_if_certain) < 2:
        return NOTHING
    # Below: rounding, not variation.
    varies = variance > 1e-12 and 0 < share < 1
    n = float(share * (1 - share) / variance) if varies else n_if_certain
    n *= (stats.norm.ppf(ENDS[1]) / stats.t.ppf(ENDS[1], n_units - 1)) ** 2
    return exact_interval(n * share, n)
