"""A member of a bag that is fitted on a stream of chunks, one after the other.

A row is drawn a Poisson number of times, whose mean is the share of rows that a member draws:
what drawing with replacement amounts to for many rows. The number follows from the member's seed
and the row's position in a pass, so every pass draws the same rows, in chunks of any size.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import poisson

from featurepipe.models.heads.estimators.bagged_sgd import BaggedSGDClassifier
from featurepipe.models.heads.estimators.descent import (
    Descent,
    fitting_batch_size,
    largest_eigenvalue,
    mean_squared_length,
)

Floats = NDArray[np.float32]

# A Philox generator advances by four numbers at a time.
_STRIDE = 4


class StreamMember:
    """One member of a bag, and how far it is in the stream.

    Parameters
    ----------
    bag : BaggedSGDClassifier
        Its parameters.
    seed : int
    n_copies : ndarray of shape (n_features,), int
        How often each feature is drawn.
    mean_costs : ndarray of shape (n_outputs,), float32
        Mean cost of a row.
    n_samples : int
        Rows of a pass.

    Attributes
    ----------
    features : ndarray of shape (n_drawn,), intp
        The features that were drawn.
    """

    def __init__(
        self,
        bag: BaggedSGDClassifier,
        seed: int,
        n_copies: NDArray[np.intp],
        mean_costs: Floats,
        n_samples: int,
    ) -> None:
        self._seed, self._max_samples, self._n_samples = seed, bag.max_samples, n_samples
        self._n_to_read = n_samples * bag.max_iter
        # No row is drawn 20 times.
        self._share_up_to = poisson.cdf(np.arange(20), bag.max_samples)
        # Costs are those of a stream of one row, of which this share is drawn at all.
        self._share_drawn = 1 - np.exp(-bag.max_samples)
        self.features = np.flatnonzero(n_copies)
        batch_size = fitting_batch_size(bag.batch_size, n_samples * self._share_drawn)
        self._descent = Descent(
            bag.alpha,
            bag.l1_ratio,
            n_copies[self.features].astype(np.float32),
            mean_costs,
            batch_size,
            n_steps=self._n_to_read * self._share_drawn / batch_size,
        )
        self._n_measured = 0

    @property
    def weights(self) -> Floats:
        """Weights of the drawn features: ndarray of shape (n_outputs, n_drawn)."""
        return self._descent.weights

    def read(self, X: Floats, truth: Floats, costs: Floats, n_read: int) -> None:
        """Take steps over a chunk.

        Parameters
        ----------
        X : ndarray of shape (n_rows, n_features), float32
            All features.
        truth, costs : ndarray of shape (n_rows, n_outputs), float32
        n_read : int
            Rows of the stream before this chunk, in all passes. The chunk does not span two
            passes.
        """
        row = n_read % self._n_samples
        n_times = self._draw(row, len(X))
        rows = np.flatnonzero(n_times)
        if not len(rows):
            return
        rows = np.random.default_rng([self._seed, n_read]).permutation(rows)
        # Faster than both at once.
        drawn = X[rows].take(self.features, axis=1)
        if row == n_read:
            self._measure(drawn)
        self._descent.n_taken = n_read / self._n_to_read * self._descent.n_steps
        costs = costs[rows] * (n_times[rows] / self._max_samples).astype(np.float32)[:, None]
        # Mini-batches of about equal size, so that no row weighs more than others.
        n_batches = -(-len(rows) // self._descent.batch_size)
        self._descent.go_over(
            drawn,
            truth[rows],
            costs,
            n_rows=self._share_drawn,
            batch_size=-(-len(rows) // n_batches),
        )

    def _draw(self, row: int, n_rows: int) -> NDArray[np.intp]:
        """How often each row of the pass is drawn, from `row` on."""
        generator = np.random.Philox(key=self._seed)
        generator.advance(row // _STRIDE)
        before = row % _STRIDE
        uniform = np.random.Generator(generator).random(before + n_rows)[before:]
        return np.searchsorted(self._share_up_to, uniform)

    def _measure(self, drawn: Floats) -> None:
        """Learn the limits of the step length in the first pass."""
        self._n_measured += len(drawn)
        share, descent = len(drawn) / self._n_measured, self._descent
        descent.squared_length += share * (mean_squared_length(drawn) - descent.squared_length)
        descent.eigenvalue += share * (largest_eigenvalue(drawn) - descent.eigenvalue)
