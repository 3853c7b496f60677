"""The variance of a mean over rows that belong to groups."""

import numpy as np
from numpy.typing import NDArray


def variance_of_mean(values: NDArray[np.float64], groups: NDArray[np.intp]) -> float:
    """Estimate the variance of a mean over independent groups.

    Linearised, as in surveys of clusters: the squared sums of the groups' residuals, over the
    squared number of rows.

    Parameters
    ----------
    values : ndarray of shape (n_rows,), float64
    groups : ndarray of shape (n_rows,), intp
    """
    group_of_row = np.unique(groups, return_inverse=True)[1].reshape(-1)
    sums = np.bincount(group_of_row, weights=values - values.mean())
    return float((sums**2).sum() / len(values) ** 2)
