"""A member of a bag that is fitted on a stream of chunks, one after the other.

A row is drawn a Poisson number of times, whose mean is the share of rows that a member draws:
what drawing with replacement comes to where rows are many. The number follows from the member's
seed and the row's place in a pass, so that every pass draws the same, in chunks of any size.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import poisson

from featurepipe.models.heads.estimators.descent import (
    Descent,
    fitting_batch_size,
    largest_eigenvalue,
    mean_squared_length,
)

Floats = NDArray[np.float32]

# A stream whose length is not known goes on with the steps of one that is nearly over: a tenth
# of the longest.
_STEADY = 0.8
# A Philox generator advances by four numbers at a time.
_STRIDE = 4


class StreamMember:
    """One member, and where it is in the stream.

    Parameters
    ----------
    seed : int
    n_copies : ndarray of shape (n_features,), int
        How often each feature is drawn.
    max_samples : float
        Mean number of times that a row is drawn.
    l1_ratio : float
        As in `featurepipe.models.heads.estimators.descent.Problem`, and `alpha` below.
    mean_costs : ndarray of shape (n_outputs,), float32
        Of a row.
    batch_size : int
    n_samples : int or None
        Rows of a pass.
    n_passes : int
    """

    def __init__(
        self,
        seed: int,
        n_copies: NDArray[np.intp],
        max_samples: float,
        l1_ratio: float,
        mean_costs: Floats,
        batch_size: int,
        n_samples: int | None,
        n_passes: int,
    ) -> None:
        self._seed, self._max_samples, self._l1_ratio = seed, max_samples, l1_ratio
        # No row is drawn as often as that.
        self._share_up_to = poisson.cdf(np.arange(20), max_samples)
        self._n_samples, self._n_passes = n_samples, n_passes
        self.features = np.flatnonzero(n_copies)
        self._n_copies = n_copies[self.features].astype(np.float32)
        # Costs are those of a stream of one row, of which this share is drawn at all.
        self._share_drawn = 1 - np.exp(-max_samples)
        n_steps = 1.0
        if n_samples is not None:
            batch_size = fitting_batch_size(batch_size, n_samples * self._share_drawn)
            n_steps = n_passes * n_samples * self._share_drawn / batch_size
        self._descent = Descent(0.0, l1_ratio, self._n_copies, mean_costs, batch_size, n_steps)
        self._n_seen = 0

    @property
    def weights(self) -> Floats:
        """Of the features that were drawn: ndarray of shape (n_outputs, n_drawn)."""
        return self._descent.weights

    def read(self, X: Floats, truth: Floats, costs: Floats, position: int, alpha: float) -> None:
        """Take steps over a chunk.

        Parameters
        ----------
        X : ndarray of shape (n_rows, n_features), float32
            All features.
        truth, costs : ndarray of shape (n_rows, n_outputs), float32
        position : int
            Rows of the stream before these, in all passes; none of the chunk's is of the
            pass after that of its first.
        alpha : float
        """
        row = position if self._n_samples is None else position % self._n_samples
        n_times = self._draw(row, len(X))
        rows = np.flatnonzero(n_times)
        if not len(rows):
            return
        drawn = X[np.ix_(rows, self.features)]
        if row == position:
            self._measure(drawn)
        self._descent.set_penalty(alpha, self._l1_ratio, self._n_copies)
        over = _STEADY
        if self._n_samples is not None:
            over = position / (self._n_samples * self._n_passes)
        self._descent.n_taken = over * self._descent.n_steps
        order = np.random.default_rng([self._seed, position]).permutation(len(rows))
        costs = costs[rows] * (n_times[rows] / self._max_samples).astype(np.float32)[:, None]
        # Mini-batches alike in size, that no row weighs more than others.
        n_batches = -(-len(rows) // self._descent.batch_size)
        self._descent.go_over(
            drawn[order],
            truth[rows][order],
            costs[order],
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
        """Learn from the first pass what bounds the length of steps."""
        self._n_seen += len(drawn)
        share, descent = len(drawn) / self._n_seen, self._descent
        descent.squared_length += share * (mean_squared_length(drawn) - descent.squared_length)
        descent.eigenvalue += share * (largest_eigenvalue(drawn) - descent.eigenvalue)
