"""Outliers: images that are far from all others."""

import numpy as np
from numpy.typing import NDArray

from featurepipe.models.answers.row_chunks import RowChunks
from featurepipe.models.studies.neighbour_search import FEW_ROWS, nearest_others

_N_NEIGHBOURS = 5
_FENCE = 1.5
# Of many rows, so many tell the quartiles.
_N_SAMPLED = 5000


def outliers(rows: RowChunks) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Find rows whose fifth neighbour is unusually far.

    The distance to the k-th neighbour (Ramaswamy et al., 2000), leave-one-out. A distance is
    unusual if it exceeds the third quartile by more than 1.5 times the interquartile range
    (Tukey, 1977). Of more than 20,000 rows, 5,000 tell the quartiles, and only rows that are
    that far from the fifth neighbour among these 5,000 are compared with all others.

    Parameters
    ----------
    rows : RowChunks
        Features of distinct images, float32; two chunks are in memory at a time.

    Returns
    -------
    rows : ndarray of shape (n_outliers,), intp
        Positions, the farthest first.
    distances : ndarray of shape (n_outliers,), float64
        As multiples of the median row's distance, above 1.
    """
    everything = np.arange(len(rows.reader))
    if len(everything) <= _N_NEIGHBOURS:
        return np.empty(0, dtype=np.intp), np.empty(0)
    asked = sampled = everything
    if len(everything) > FEW_ROWS:
        sampled = np.sort(np.random.default_rng(0).choice(everything, _N_SAMPLED, replace=False))
    reach = nearest_others(rows, sampled, everything, _N_NEIGHBOURS)[0][:, -1]
    lower, median, upper = np.quantile(reach, [0.25, 0.5, 0.75])
    fence = upper + _FENCE * (upper - lower)
    if len(sampled) < len(everything):
        # Among all rows, the fifth neighbour is no farther.
        among_sampled = nearest_others(rows, everything, sampled, _N_NEIGHBOURS)[0][:, -1]
        asked = np.flatnonzero(among_sampled > fence)
        reach = nearest_others(rows, asked, everything, _N_NEIGHBOURS)[0][:, -1]
    far = np.flatnonzero(reach > fence)
    far = far[np.argsort(-reach[far], kind="stable")]
    return asked[far], reach[far] / median
