"""When not to answer: images unlike the training rows, and answers that are in doubt."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

# Of the distances measured in benchmarks/rejection.py this one was the best, or level
# with it; a larger bank was no better.
N_NEIGHBOURS = 5
MAX_BANK = 1000

_CHUNK = 1024

Features = NDArray[np.floating]


@dataclass(frozen=True)
class Rejector:
    """Says how much an image is like the training rows of one head.

    Two signs speak against an image: its distance from training rows in the
    features that the head reads, and a low confidence of the head. Each is
    ranked among those of the training rows, measured without the row's group
    and out of fold; the worse rank counts, and is ranked in its turn.

    Attributes
    ----------
    ends : ndarray of shape (n_blocks,), intp
        The column after the last one of each block of features.
    bank : ndarray of shape (n_bank, n_features), float16
        Training rows, at most `MAX_BANK`, each block of length 1.
    distances, confidences, ranks : ndarray of shape (n_train,), float64
        Those of the training rows, rising.
    """

    ends: NDArray[np.intp]
    bank: NDArray[np.float16]
    distances: NDArray[np.float64]
    confidences: NDArray[np.float64]
    ranks: NDArray[np.float64]

    def novelty(self, X: Features) -> NDArray[np.float64]:
        """Distance from the 5th nearest row of the bank.

        Sun, Ming, Zhu & Li (2022), Out-of-distribution detection with deep
        nearest neighbors: Euclidean, on features of length 1; here each block
        has that length.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,), float64
            In [0, 2 sqrt(n_blocks)], to the precision of float16.
        """
        return _neighbour_distances(_unit_blocks(X, self.ends), self.bank)

    def p_values(self, X: Features, confidence: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of images like the training rows that look at least as strange.

        A conformal p-value (Bates, Candès, Lei, Romano & Sesia 2023, Testing
        for outliers with conformal p-values): among images like the training
        rows at most a share p has one of p or less. Of foreign images nothing
        is promised.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)
            What the head reads.
        confidence : ndarray of shape (n_samples,), float64
            Probability of the head's answer; see
            `featurepipe.predictions.answer_confidence`.

        Returns
        -------
        ndarray of shape (n_samples,), float64
            In (0, 1]. An image may be answered at a coverage of c if it has more
            than 1 - c.
        """
        n = len(self.distances)
        n_as_far = n - np.searchsorted(self.distances, self.novelty(X), side="left")
        n_as_unsure = np.searchsorted(self.confidences, confidence, side="right")
        ranks = (1 + np.minimum(n_as_far, n_as_unsure)) / (n + 1)
        return (1 + np.searchsorted(self.ranks, ranks, side="right")) / (n + 1)


def fit_rejector(
    X: Features,
    truth: NDArray[np.bool_],
    groups: NDArray[np.intp],
    confidence: NDArray[np.float64],
    *,
    widths: Sequence[int] = (),
    seed: int = 0,
) -> Rejector:
    """Learn how far from each other, and how sure of, training rows are.

    Parameters
    ----------
    X : ndarray of shape (n_train, n_features)
        What the head reads, finite.
    truth : ndarray of shape (n_train, n_classes), bool
        Which classes each row has: rare ones have as many rows in the bank as
        frequent ones, while they last.
    groups : ndarray of shape (n_train,), intp
        Distances within a group do not count: rows of one group are never on
        both sides of the split either.
    confidence : ndarray of shape (n_train,), float64
        Probability of the answer, out of fold.
    widths : sequence of int
        Numbers of features of the blocks that lie side by side; none: one block.
    seed : int
        Random state of the draw of the bank.

    Returns
    -------
    Rejector
    """
    ends = np.cumsum(widths or [X.shape[1]]).astype(np.intp)
    rows = _draw_bank(truth, seed)
    bank = _unit_blocks(X[rows], ends).astype(np.float16)
    distances = _neighbour_distances(_unit_blocks(X, ends), bank, groups, groups[rows])
    n_as_far = rankdata(-distances, method="max")
    n_as_unsure = rankdata(confidence, method="max")
    ranks = np.minimum(n_as_far, n_as_unsure) / len(X)
    return Rejector(ends, bank, np.sort(distances), np.sort(confidence), np.sort(ranks))


def _draw_bank(truth: NDArray[np.bool_], seed: int) -> NDArray[np.intp]:
    kinds = np.column_stack([truth, ~truth.any(axis=1)])
    weights = (kinds / np.maximum(kinds.sum(axis=0), 1)).max(axis=1)
    drawn = np.random.default_rng(seed).choice(
        len(truth), min(MAX_BANK, len(truth)), replace=False, p=weights / weights.sum()
    )
    return np.sort(drawn)


def _unit_blocks(X: Features, ends: NDArray[np.intp]) -> NDArray[np.float32]:
    """Rows of which each block has the length 1, or 0 if there is nothing in it."""
    blocks = np.split(X.astype(np.float32), ends[:-1], axis=1)
    lengths = [np.linalg.norm(block, axis=1, keepdims=True) for block in blocks]
    tiny = np.finfo(np.float32).tiny
    return np.hstack(
        [block / np.maximum(length, tiny) for block, length in zip(blocks, lengths, strict=True)]
    )


def _neighbour_distances(
    units: NDArray[np.float32],
    bank: NDArray[np.float16],
    groups: NDArray[np.intp] | None = None,
    bank_groups: NDArray[np.intp] | None = None,
) -> NDArray[np.float64]:
    """Distance from the 5th nearest row of the bank that is not of the same group."""
    neighbours = bank.astype(np.float32)
    squares = np.square(neighbours).sum(axis=1)
    kth = min(N_NEIGHBOURS, len(bank)) - 1
    distances = np.empty(len(units))
    for start in range(0, len(units), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        rows = units[chunk]
        squared = np.square(rows).sum(axis=1)[:, None] + squares - 2 * rows @ neighbours.T
        if groups is not None and bank_groups is not None:
            squared[groups[chunk, None] == bank_groups] = np.inf
        distances[chunk] = np.partition(squared, kth, axis=1)[:, kth]
    return np.sqrt(np.maximum(distances, 0))
