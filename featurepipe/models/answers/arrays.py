"""The arrays that heads read and return, and blocks of feature columns side by side."""

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.floating]
Scores = NDArray[np.float64]
Probabilities = NDArray[np.float64]
Truth = NDArray[np.bool_]

Rows = NDArray[np.intp]
"""Positions of rows."""

Columns = tuple[tuple[int, int], ...]
"""For each block of features its first column, and the one after its last."""


def side_by_side(X: Features, columns: Columns, rows: Rows | slice = np.s_[:]) -> Features:
    """Select blocks of columns, and some rows of them.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
    columns : tuple of (int, int)
    rows : ndarray of int or slice
        Default: all rows.

    Returns
    -------
    ndarray of shape (n_rows, n_columns)
        A view for a single block of all rows.
    """
    blocks = [X[rows, start:end] for start, end in columns]
    return blocks[0] if len(blocks) == 1 else np.hstack(blocks)


def widths_of(columns: Columns) -> list[int]:
    """Number of features of each block.

    Examples
    --------
    >>> widths_of(((0, 10), (10, 24)))
    [10, 14]
    """
    return [end - start for start, end in columns]
