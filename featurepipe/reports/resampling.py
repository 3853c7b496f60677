"""Rows drawn again and again with replacement: the bootstrap.

A resample is described by how often it holds each row. The figures in `featurepipe.metrics` take
such weights and return one number for each resample.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float64]
Replicates = NDArray[np.float64]

# Weights of more numbers, which take 128 MB, are drawn again each time, so many at once.
_MOST_KEPT, _MOST_AT_ONCE = 2**24, 2**20


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

    def unit_blocks(self) -> Iterator[Weights]:
        """How often each resample holds each group, for some resamples after the other.

        Yields
        ------
        ndarray of shape (n_some, n_units), float64
            All resamples at once if they have few numbers.
        """
        if self.n_resamples * self.n_units <= _MOST_KEPT:
            yield _kept_weights(self.n_resamples, self.n_units, self.seed)
            return
        random, n_left = np.random.default_rng(self.seed), self.n_resamples
        while n_left:
            n_some = min(n_left, max(1, _MOST_AT_ONCE // self.n_units))
            yield _draw_weights(random, n_some, self.n_units)
            n_left -= n_some

    def replicates(self, figure: Callable[[Weights], Replicates]) -> Replicates:
        """A figure of each resample.

        Parameters
        ----------
        figure : callable
            Given how often some resamples hold each row, of shape (n_some, n_rows), returns
            their figures, of shape (n_some,).

        Returns
        -------
        ndarray of shape (n_resamples,), float64
        """
        return np.concatenate(
            [
                figure(weights[:, self.unit_of_row] if self.grouped else weights)
                for weights in self.unit_blocks()
            ]
        )

    def means(self, values: NDArray) -> Replicates:
        """Mean of the rows' values in each resample.

        Parameters
        ----------
        values : ndarray of shape (n_rows,)

        Returns
        -------
        ndarray of shape (n_resamples,), float64
        """
        return self.replicates(lambda weights: weights @ values / weights.sum(axis=1))

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


def _draw_weights(random: np.random.Generator, n_resamples: int, n_units: int) -> Weights:
    drawn = random.integers(n_units, size=(n_resamples, n_units))
    cells = drawn + n_units * np.arange(n_resamples)[:, None]
    counts = np.bincount(cells.ravel(), minlength=cells.size)
    weights: Weights = counts.reshape(cells.shape).astype(np.float64)
    weights.setflags(write=False)
    return weights


# The runs of a board mostly have the same number of test images.
@lru_cache(maxsize=2)
def _kept_weights(n_resamples: int, n_units: int, seed: int) -> Weights:
    return _draw_weights(np.random.default_rng(seed), n_resamples, n_units)
