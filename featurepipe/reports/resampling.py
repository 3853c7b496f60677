"""Rows drawn again and again with replacement: the bootstrap.

A resample is described by how often it holds each row. The figures in `featurepipe.metrics` take
such weights and return one number for each resample.
"""

from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float64]
Replicates = NDArray[np.float64]

# Weights of more numbers are drawn again each time: these take 128 MB.
_MOST_KEPT = 2**24


class Resamples:
    """Resamples of the rows that a figure is measured on.

    Parameters
    ----------
    groups : ndarray of shape (n_rows,), int
        Rows with the same number are drawn together.
    n_resamples : int
    seed : int
        The same groups and seed give the same resamples.

    Attributes
    ----------
    unit_of_row : ndarray of shape (n_rows,), intp
        Number of each row's group, from 0.
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

    @property
    def grouped(self) -> bool:
        """Whether any group has several rows."""
        return self.n_units < len(self.unit_of_row)

    @cached_property
    def unit_weights(self) -> Weights:
        """How often each resample holds each group: (n_resamples, n_units)."""
        size = self.n_resamples, self.n_units
        draw = _kept_weights if size[0] * size[1] <= _MOST_KEPT else _unit_weights
        return draw(*size, self.seed)

    @cached_property
    def weights(self) -> Weights:
        """How often each resample holds each row: (n_resamples, n_rows)."""
        return self.unit_weights[:, self.unit_of_row] if self.grouped else self.unit_weights

    def means(self, values: NDArray) -> Replicates:
        """Mean of the rows' values in each resample.

        Parameters
        ----------
        values : ndarray of shape (n_rows,)

        Returns
        -------
        ndarray of shape (n_resamples,), float64
        """
        return self.weights @ values / self.weights.sum(axis=1)

    def sums(self, values: NDArray) -> NDArray[np.float64]:
        """Sum of the values of each group's rows.

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


def _unit_weights(n_resamples: int, n_units: int, seed: int) -> Weights:
    drawn = np.random.default_rng(seed).integers(n_units, size=(n_resamples, n_units))
    cells = drawn + n_units * np.arange(n_resamples)[:, None]
    counts = np.bincount(cells.ravel(), minlength=cells.size)
    weights: Weights = counts.reshape(cells.shape).astype(np.float64)
    weights.setflags(write=False)
    return weights


# The runs of a board mostly have the same number of test images.
_kept_weights = lru_cache(maxsize=2)(_unit_weights)
