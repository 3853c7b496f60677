"""When not to answer: images unlike the training images, and uncertain answers."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from featurepipe.models.answers.arrays import Columns, Features, unit_blocks

# Of the distances measured in benchmarks/rejection.py this one was the best or close to it; a
# larger bank was no better.
N_NEIGHBOURS = 5
MAX_BANK = 1000

_CHUNK = 1024
_FEW_ROWS = 4


@dataclass(frozen=True)
class Rejector:
    """Measures how similar an image is to the training rows of one head.

    An image looks strange if it is far from the training rows in the features that the head
    reads, or if the head's confidence is low. Both are ranked among those of the training
    rows, measured without the row's group and out of fold. The worse rank counts.

    Attributes
    ----------
    ends : ndarray of shape (n_blocks,), intp
        The column after the last one of each block of features.
    bank : ndarray of shape (n_bank, n_features), float16
        Training rows, at most `MAX_BANK`, each block of length 1.
    distances, confidences : ndarray of shape (n_train,), float64
        Of the training rows, ascending.
    ranks : ndarray of shape (n_train,), intp
        The worse rank of each training row, from 1 (the strangest), ascending.
    group_size : float
        See `conformal_p_values`.
    """

    ends: NDArray[np.intp]
    bank: NDArray[np.float16]
    distances: NDArray[np.float64]
    confidences: NDArray[np.float64]
    ranks: NDArray[np.intp]
    group_size: float

    def novelty(self, X: Features) -> NDArray[np.float64]:
        """Distance from the 5th nearest row of the bank.

        Sun, Ming, Zhu & Li (2022), Out-of-distribution detection with deep nearest
        neighbors: Euclidean, on features of length 1. Here each block has that length.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,), float64
            In [0, 2 sqrt(n_blocks)], to the precision of float16.
        """
        return _neighbour_distances(unit_blocks(X, _columns(self.ends, X.shape[1])), self._ready)

    @cached_property
    def _ready(self) -> "_ReadyBank":
        return _ReadyBank.of(self.bank)

    def __getstate__(self) -> dict[str, Any]:
        # What is saved does not depend on what was asked before.
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def p_values(self, X: Features, confidence: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of images like the training rows that look at least as strange.

        A conformal p-value (Bates, Candès, Lei, Romano & Sesia 2023, Testing for outliers
        with conformal p-values): among images like the training rows at most a share p has
        a p-value of p or less. There is no guarantee for unrelated images.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)
            What the head reads.
        confidence : ndarray of shape (n_samples,), float64
            Probability of the head's answer; see
            `featurepipe.probabilities.answer_confidence`.

        Returns
        -------
        ndarray of shape (n_samples,), float64
            In (0, 1]. At a coverage of c, images with a p-value above 1 - c get an answer.
        """
        return self.p_values_at(self.novelty(X), confidence)

    def p_values_at(
        self, distances: NDArray[np.float64], confidence: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The same of images whose `novelty` is known.

        Parameters
        ----------
        distances, confidence : ndarray of shape (n_samples,), float64
        """
        return self._p_values(1 + self._n_as_strange(distances, confidence))

    def _n_as_strange(
        self, distances: NDArray[np.float64], confidence: NDArray[np.float64]
    ) -> NDArray[np.intp]:
        """Number of training rows that are as far, or as uncertain if these are fewer."""
        n_as_far = len(self.distances) - np.searchsorted(self.distances, distances, side="left")
        n_as_unsure = np.searchsorted(self.confidences, confidence, side="right")
        return np.minimum(n_as_far, n_as_unsure)

    def _p_values(self, ranks: NDArray[np.intp]) -> NDArray[np.float64]:
        return conformal_p_values(self.ranks, ranks, self.group_size)


class _ReadyBank(NamedTuple):
    """A bank in the precision of the computation, with the squared lengths of its rows."""

    rows: NDArray[np.float32]
    squares: NDArray[np.float32]

    @classmethod
    def of(cls, bank: NDArray[np.float16]) -> Self:
        rows = bank.astype(np.float32)
        return cls(rows, np.square(rows).sum(axis=1))


class FittedRejector(NamedTuple):
    """A rejector, and what it says of the rows that it was fitted with.

    Attributes
    ----------
    rejector : Rejector
    p_values : ndarray of shape (n_rows,), float64
        As `Rejector.p_values`, without the row's group and out of fold.
    """

    rejector: Rejector
    p_values: NDArray[np.float64]


def conformal_p_values(
    known: NDArray[np.intp] | NDArray[np.float64],
    ranks: NDArray[np.intp] | NDArray[np.float64],
    group_size: float,
) -> NDArray[np.float64]:
    """Share of images like the known ones whose worst rank is at least as low.

    A new image takes its worst rank from a known image, which falls behind. So of the n + 1
    images, the new one included, as many are at least as low as there are known ones. Images
    of one group are alike: then the new image counts as a whole group of new ones.

    Parameters
    ----------
    known : ndarray of shape (n,)
        The worst of several ranks of each known image, ascending; 1 is the strangest. Or
        p-values, which follow from ranks.
    ranks : ndarray of shape (n_samples,)
        The same of new images.
    group_size : float
        How many of the known images are in the group of one of them, on average; 1 if none
        belong together.

    Returns
    -------
    ndarray of shape (n_samples,), float64
        In (0, 1].

    Examples
    --------
    Nine images, each with the worse of its ranks by distance and by confidence:

    >>> known = np.array([1, 1, 2, 3, 3, 5, 5, 6, 8])
    >>> conformal_p_values(known, np.array([1, 2, 10]), 1)
    array([0.2, 0.3, 0.9])
    """
    n_up_to = np.maximum(np.searchsorted(known, ranks, side="right"), 1)
    return (n_up_to + group_size - 1) / (len(known) + group_size)


def mean_group_size(groups: NDArray[np.intp]) -> float:
    """How many rows are in the group of a row, on average.

    Parameters
    ----------
    groups : ndarray of shape (n_rows,), intp

    Examples
    --------
    >>> mean_group_size(np.array([0, 0, 0, 1]))
    2.5
    """
    sizes = np.unique(groups, return_counts=True)[1]
    return float(np.square(sizes).sum() / sizes.sum())


def fit_rejector(
    X: Features,
    truth: NDArray[np.bool_],
    groups: NDArray[np.intp],
    confidence: NDArray[np.float64],
    *,
    labelled: NDArray[np.bool_] | None = None,
    widths: Sequence[int] = (),
    seed: int = 0,
) -> FittedRejector:
    """Learn the distances between training rows, and the confidence of their answers.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features)
        What the head reads, finite.
    truth : ndarray of shape (n_rows, n_classes), bool
        Which classes each row has. Rare classes get as many rows in the bank as frequent
        ones, as far as they have them.
    groups : ndarray of shape (n_rows,), intp
        Distances within a group do not count: rows of a group are never on both sides of the
        split either.
    confidence : ndarray of shape (n_rows,), float64
        Probability of the answer, out of fold.
    labelled : ndarray of shape (n_rows,), bool, optional
        The rows to learn from; the others only get p-values. Default: all.
    widths : sequence of int
        Numbers of features of the blocks that lie side by side; empty for one block.
    seed : int
        Random state of the draw of the bank.

    Returns
    -------
    FittedRejector
    """
    labelled = np.ones(len(X), bool) if labelled is None else labelled
    ends = np.cumsum(widths or [X.shape[1]]).astype(np.intp)
    units = unit_blocks(X, _columns(ends, X.shape[1]))
    banked = np.flatnonzero(labelled)[_draw_bank(truth[labelled], seed)]
    bank = units[banked].astype(np.float16)
    distances = _neighbour_distances(units, _ReadyBank.of(bank), groups, groups[banked])
    learnt = np.sort(distances[labelled]), np.sort(confidence[labelled])
    group_size = mean_group_size(groups[labelled])
    rejector = Rejector(ends, bank, *learnt, np.empty(0, np.intp), group_size)
    # A row that was learnt from is among those that are as strange as itself.
    ranks = rejector._n_as_strange(distances, confidence) + ~labelled
    rejector = replace(rejector, ranks=np.sort(ranks[labelled]))
    return FittedRejector(rejector, rejector._p_values(ranks))


def _draw_bank(truth: NDArray[np.bool_], seed: int) -> NDArray[np.intp]:
    kinds = np.column_stack([truth, ~truth.any(axis=1)])
    weights = (kinds / np.maximum(kinds.sum(axis=0), 1)).max(axis=1)
    drawn = np.random.default_rng(seed).choice(
        len(truth), min(MAX_BANK, len(truth)), replace=False, p=weights / weights.sum()
    )
    return np.sort(drawn)


def _columns(ends: NDArray[np.intp], n_features: int) -> Columns:
    """The blocks; together all features, so that heads of another width than the bank fail."""
    return tuple(pairwise([0, *ends[:-1].tolist(), n_features]))


def _products(rows: NDArray[np.float32], bank: NDArray[np.float32]) -> NDArray[np.float32]:
    if len(rows) > _FEW_ROWS:
        return rows @ bank.T
    # By one thread: those of a matrix product go on spinning, beside the next image's network.
    return np.einsum("ij,kj->ik", rows, bank)


def _neighbour_distances(
    units: NDArray[np.float32],
    bank: _ReadyBank,
    groups: NDArray[np.intp] | None = None,
    bank_groups: NDArray[np.intp] | None = None,
) -> NDArray[np.float64]:
    """Distance from the 5th nearest row of the bank outside the row's group."""
    kth = min(N_NEIGHBOURS, len(bank.rows)) - 1
    distances = np.empty(len(units))
    for start in range(0, len(units), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        rows = units[chunk]
        products = _products(rows, bank.rows)
        squared = np.square(rows).sum(axis=1)[:, None] + bank.squares - 2 * products
        if groups is not None and bank_groups is not None:
            squared[groups[chunk, None] == bank_groups] = np.inf
        distances[chunk] = np.partition(squared, kth, axis=1)[:, kth]
    return np.sqrt(np.maximum(distances, 0))
