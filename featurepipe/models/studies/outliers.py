"""Outliers: images that are far from all others."""

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

_N_NEIGHBOURS = 5
_FENCE = 1.5


def outliers(X: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Find rows whose fifth neighbour is unusually far.

    The distance to the k-th neighbour (Ramaswamy et al., 2000), leave-one-out. A distance is
    unusual if it exceeds the third quartile by more than 1.5 times the interquartile range
    (Tukey, 1977).

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features), float32
        Features of distinct images.

    Returns
    -------
    rows : ndarray of shape (n_outliers,), intp
        Positions, the farthest first.
    distances : ndarray of shape (n_outliers,), float64
        As multiples of the median row's distance, above 1.
    """
    if len(X) <= _N_NEIGHBOURS:
        return np.empty(0, dtype=np.intp), np.empty(0)
    nearest = NearestNeighbors(n_neighbors=_N_NEIGHBOURS, algorithm="brute").fit(X)
    reach = nearest.kneighbors()[0][:, -1]
    lower, median, upper = np.quantile(reach, [0.25, 0.5, 0.75])
    rows = np.flatnonzero(reach > upper + _FENCE * (upper - lower))
    rows = rows[np.argsort(-reach[rows], kind="stable")]
    return rows, reach[rows] / median
