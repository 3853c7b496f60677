"""The arrays that heads read and return, and blocks of feature columns side by side."""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

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


def columns_of_blocks(
    widths: Mapping[str, int], blocks: Mapping[str, Sequence[str]]
) -> dict[str, Columns]:
    """The columns that each attribute's head reads.

    Parameters
    ----------
    widths : mapping of str to int
        Number of features of each block, in the order in which they lie side by side.
    blocks : mapping of str to sequence of str
        Names of the blocks by attribute.

    Examples
    --------
    >>> columns_of_blocks({"grey": 10, "hsv": 14}, {"color": ["hsv"], "kind": ["grey"]})
    {'color': ((10, 24),), 'kind': ((0, 10),)}
    """
    ends = pairwise(accumulate(widths.values(), initial=0))
    columns_of = dict(zip(widths, ends, strict=True))
    return {name: tuple(columns_of[block] for block in read) for name, read in blocks.items()}


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


def unit_blocks(X: Features, columns: Columns) -> NDArray[np.float32]:
    """Features in which the distance of two rows is their angle, and blocks count equally.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features)
    columns : tuple of (int, int)

    Returns
    -------
    ndarray of shape (n_rows, n_selected), float32
        Every block of a row has length 1, unless all of it is 0.
    """
    blocks = [X[:, start:end].astype(np.float32, copy=False) for start, end in columns]
    lengths = [np.linalg.norm(block, axis=1, keepdims=True) for block in blocks]
    tiny = np.finfo(np.float32).tiny
    units = [
        block / np.maximum(length, tiny) for block, length in zip(blocks, lengths, strict=True)
    ]
    return units[0] if len(units) == 1 else np.hstack(units)
