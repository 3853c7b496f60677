"""CosineNeighbours: nearest neighbours by cosine, whose votes are weighted by similarity.

The protocol of DINO's and DINOv2's evaluation of frozen features: each of the k = 10, 20, 100 or
200 nearest rows votes for its class with weight ``exp(cosine / 0.07)``.
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

    The number of neighbours is the one with the lowest log-loss on the training rows, each
    predicted by its neighbours in other groups. One more vote, as heavy as the nearest
    neighbour's, is shared by all classes: no class is impossible, and their order stays.

    Parameters
    ----------
    n_neighbors : sequence of int
        Numbers to choose from. Numbers above the number of rows mean all rows.
    temperature : float
        A neighbour's vote is ``exp(cosine / temperature)``.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        For sets of labels, their column numbers.
    n_neighbors_ : int
        The larger one at equal losses; the smallest if all rows are in one group.
    losses_ : ndarray of shape (len(n_neighbors),), float64
        Mean log-loss of the training rows for each number; for sets, over rows and labels.
    directions_ : ndarray of shape (n_samples, n_features), float32
        Training rows scaled to length 1. They make up the size of a saved model.
    truth_ : ndarray of shape (n_samples, n_outputs), float32
        1 where a training row has the output's class, else 0. One output for two classes.
    n_features_in_ : int
    """

    def __init__(
        self, n_neighbors: Sequence[int] = (10, 20, 100, 200), *, temperature: float = 0.07
    ) -> None:
        self.n_neighbors = n_neighbors
        self.temperature = temperature

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Keep the rows, and choose the number of neighbours.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Finite; converted to float32.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Classes, or an indicator of sets of labels.
        groups : array-like of shape (n_samples,), int, optional
            While the number is chosen, rows of a group do not vote for each other. Default:
            every row is a group.

        Raises
        ------
        ValueError
            If a parameter is out of its range, or `X` and `y` cannot be used.
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
        """Logarithm of the classes' shares of the votes; log-odds for two classes or labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) for two classes, else (n_samples, n_outputs), float32
            Finite.
        """
        shares = self._shares(X)
        if self.kind_ == "classes":
            return np.log(shares)
        scores = np.log(shares) - np.log1p(-shares)
        return scores.ravel() if self.kind_ == "binary" else scores

    def predict_proba(self, X: ArrayLike) -> Floats:
        """Shares of the votes, as probabilities.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float32
            In (0, 1).
        """
        shares = self._shares(X)
        return np.hstack([1 - shares, shares]) if self.kind_ == "binary" else shares

    def nearest(self, X: ArrayLike, n: int) -> tuple[NDArray[np.intp], Floats]:
        """The nearest training rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        n : int
            How many; fewer if there are fewer.

        Returns
        -------
        rows : ndarray of shape (n_samples, n), intp
            Positions among the rows that were fitted on, the nearest first.
        cosines : ndarray of shape (n_samples, n), float32
        """
        cosines = self._directions(X) @ self.directions_.T
        rows = np.argsort(-cosines, axis=1, kind="stable")[:, :n]
        return rows, np.take_along_axis(cosines, rows, axis=1)

    def _directions(self, X: ArrayLike) -> Floats:
        check_is_fitted(self)
        return normalize(validate_data(self, X, dtype=np.float32, reset=False))

    def _shares(self, X: ArrayLike) -> Floats:
        directions = self._directions(X)
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
        """Shares of the outputs among the nearest rows, for each number of neighbours.

        A row with a cosine of -inf has no vote.
        """
        n_most = min(max(numbers), cosines.shape[1])
        nearest = np.argpartition(-cosines, n_most - 1, axis=1)[:, :n_most]
        order = np.argsort(-np.take_along_axis(cosines, nearest, axis=1), axis=1, kind="stable")
        nearest = np.take_along_axis(nearest, order, axis=1)
        near = np.take_along_axis(cosines, nearest, axis=1).astype(np.float64)
        with np.errstate(invalid="ignore"):
            votes = np.nan_to_num(np.exp((near - near[:, :1]) / self.temperature))
        n_sides = self.truth_.shape[1] if self.kind_ == "classes" else 2
        truth = self.truth_[nearest]
        for number in numbers:
            for_outputs = np.einsum("nk,nko->no", votes[:, :number], truth[:, :number])
            total = votes[:, :number].sum(axis=1, keepdims=True)
            yield (for_outputs + 1 / n_sides) / (total + 1)

    def _losses_without(self, groups: NDArray[np.generic]) -> NDArray[np.float64]:
        """Mean log-loss of the training rows, predicted by neighbours in other groups."""
        if len(np.unique(groups)) < 2:
            return np.full(len(self.n_neighbors), np.nan)
        losses = np.zeros(len(self.n_neighbors))
        for rows in self._chunks(len(groups)):
            cosines = self.directions_[rows] @ self.directions_.T
            cosines[groups[rows][:, None] == groups] = -np.inf
            truth = self.truth_[rows] > 0
            for number, shares in enumerate(self._votes(cosines, self.n_neighbors)):
                if self.kind_ == "classes":
                    losses[number] -= np.log(shares[truth]).sum()
                else:
                    losses[number] -= np.log(np.where(truth, shares, 1 - shares)).sum()
        return losses / (len(groups) if self.kind_ == "classes" else self.truth_.size)
