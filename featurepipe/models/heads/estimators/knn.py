"""CosineNeighbours: nearest neighbours by cosine that vote by their similarity.

The protocol of DINO's and DINOv2's evaluation of frozen features: of k = 10, 20, 100 or 200
nearest rows each votes for its class with weight ``exp(cosine / 0.07)``.
"""

from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.preprocessing import normalize
from sklearn.utils.validation import check_is_fitted, validate_data

from featurepipe.models.heads.estimators.classifier import HeadClassifier

Floats = NDArray[np.float32]

_CHUNK_BYTES = 64 * 2**20


class CosineNeighbours(HeadClassifier):
    """Nearest neighbours by cosine, their votes weighted by similarity.

    The number of neighbours has the lowest log-loss of the training rows, each by its
    neighbours outside of its own group. To the votes one more is added, as much as the nearest
    neighbour's, that all classes share: no class is impossible, and none overtakes another.

    Parameters
    ----------
    n_neighbors : sequence of int
        Numbers to choose from; those above the number of rows count as all rows.
    temperature : float
        A neighbour's vote is ``exp(cosine / temperature)``.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Of sets of labels, their column numbers.
    n_neighbors_ : int
        At equal losses the larger; the smallest where all rows are of one group.
    losses_ : ndarray of shape (len(n_neighbors),), float64
        Mean log-loss of the training rows, for each number; of sets, of rows and labels.
    directions_ : ndarray of shape (n_samples, n_features), float32
        Training rows of length 1: what a stored model weighs, 4 bytes a number.
    truth_ : ndarray of shape (n_samples, n_outputs), float32
        1 where a training row has the output's class, else 0; one output for two classes.
    n_features_in_ : int
    """

    def __init__(
        self, n_neighbors: Sequence[int] = (10, 20, 100, 200), *, temperature: float = 0.07
    ) -> None:
        self.n_neighbors = n_neighbors
        self.temperature = temperature

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Keep the rows, and choose how many neighbours vote.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Finite; computed with in float32.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Classes, or an indicator of sets of labels.
        groups : array-like of shape (n_samples,), int, optional
            No row is judged by those of its group; default: each is its own.

        Raises
        ------
        ValueError
            If a parameter is out of its range, or `X` and `y` are of no use.
        """
        if min(self.n_neighbors, default=0) < 1 or not self.temperature > 0:
            raise ValueError(
                f"n_neighbors is {self.n_neighbors} and temperature {self.temperature}, expected "
                "numbers of 1 or more and a temperature above 0."
            )
        features, targets = validate_data(self, X, y, dtype=np.float32, multi_output=True)
        self.truth_ = self._learn_classes(np.asarray(targets))
        self.directions_ = normalize(features)
        groups = np.arange(len(features)) if groups is None else np.asarray(groups)
        self.losses_ = self._losses_without(groups)
        numbers = np.asarray(self.n_neighbors)
        lowest = self.losses_ <= np.nanmin(self.losses_, initial=np.inf)
        self.n_neighbors_ = int(numbers[lowest].max() if lowest.any() else numbers.min())
        return self

    def decision_function(self, X: ArrayLike) -> Floats:
        """Logarithm of the classes' shares of the votes; of two classes or a label, log-odds.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) for two classes, else (n_samples, n_outputs), float32
            Finite.
        """
        shares = self._shares(X)
        if self._kind == "classes":
            return np.log(shares)
        scores = np.log(shares) - np.log1p(-shares)
        return scores.ravel() if self._kind == "binary" else scores

    def predict_proba(self, X: ArrayLike) -> Floats:
        """Shares of the votes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float32
            In (0, 1).
        """
        shares = self._shares(X)
        return np.hstack([1 - shares, shares]) if self._kind == "binary" else shares

    def _shares(self, X: ArrayLike) -> Floats:
        check_is_fitted(self)
        directions = normalize(validate_data(self, X, dtype=np.float32, reset=False))
        shares = np.empty((len(directions), self.truth_.shape[1]), np.float32)
        for rows in self._chunks(len(directions)):
            cosines = directions[rows] @ self.directions_.T
            shares[rows] = next(self._votes(cosines, [self.n_neighbors_]))
        return shares

    def _chunks(self, n_rows: int) -> Iterator[slice]:
        n_rows_kept, n_outputs = self.truth_.shape
        bytes_a_row = 4 * n_rows_kept + 4 * n_outputs * min(max(self.n_neighbors), n_rows_kept)
        size = max(1, _CHUNK_BYTES // bytes_a_row)
        return (slice(start, start + size) for start in range(0, n_rows, size))

    def _votes(self, cosines: Floats, numbers: Sequence[int]) -> Iterator[NDArray[np.float64]]:
        """Shares of the outputs among so many of the nearest, for each of `numbers`.

        A cosine of -inf is of a row that has no vote.
        """
        n_most = min(max(numbers), cosines.shape[1])
        nearest = np.argpartition(-cosines, n_most - 1, axis=1)[:, :n_most]
        order = np.argsort(-np.take_along_axis(cosines, nearest, axis=1), axis=1, kind="stable")
        nearest = np.take_along_axis(nearest, order, axis=1)
        near = np.take_along_axis(cosines, nearest, axis=1).astype(np.float64)
        with np.errstate(invalid="ignore"):
            votes = np.nan_to_num(np.exp((near - near[:, :1]) / self.temperature))
        n_sides = self.truth_.shape[1] if self._kind == "classes" else 2
        truth = self.truth_[nearest]
        for number in numbers:
            of_outputs = np.einsum("nk,nko->no", votes[:, :number], truth[:, :number])
            total = votes[:, :number].sum(axis=1, keepdims=True)
            yield (of_outputs + 1 / n_sides) / (total + 1)

    def _losses_without(self, groups: NDArray[np.generic]) -> NDArray[np.float64]:
        """Mean log-loss of the training rows by neighbours of other groups."""
        if len(np.unique(groups)) < 2:
            return np.full(len(self.n_neighbors), np.nan)
        losses = np.zeros(len(self.n_neighbors))
        for rows in self._chunks(len(groups)):
            cosines = self.directions_[rows] @ self.directions_.T
            cosines[groups[rows][:, None] == groups] = -np.inf
            truth = self.truth_[rows] > 0
            for number, shares in enumerate(self._votes(cosines, self.n_neighbors)):
                if self._kind == "classes":
                    losses[number] -= np.log(shares[truth]).sum()
                else:
                    losses[number] -= np.log(np.where(truth, shares, 1 - shares)).sum()
        return losses / (len(groups) if self._kind == "classes" else self.truth_.size)
