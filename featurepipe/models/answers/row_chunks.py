"""Rows of features that are read when they are needed, all at once or in chunks."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from featurepipe.models.answers.arrays import Features, Probabilities, Rows
from featurepipe.models.answers.head import Head
from featurepipe.models.answers.head_model import HeadModel


class RowReader(Protocol):
    """Features of rows that are read when they are needed."""

    @property
    def n_features(self) -> int:
        """Features of a row."""

    def __len__(self) -> int:
        """Number of rows."""

    def read(self, rows: Rows) -> Features:
        """Read some rows, in any order: ndarray of shape (n, n_features)."""


@dataclass(frozen=True)
class ArrayRows:
    """A `RowReader` of features in memory.

    Attributes
    ----------
    X : ndarray of shape (n_rows, n_features)
    """

    X: Features

    @property
    def n_features(self) -> int:
        """Features of a row."""
        return self.X.shape[1]

    def __len__(self) -> int:
        return len(self.X)

    def read(self, rows: Rows) -> Features:
        """Some rows: ndarray of shape (n, n_features)."""
        return self.X[rows]


@dataclass(frozen=True)
class RowChunks:
    """Rows of which only so many are in memory at a time.

    Attributes
    ----------
    reader : RowReader
    chunk_rows : int
        Most rows that are read at once.
    """

    reader: RowReader
    chunk_rows: int

    @classmethod
    def in_memory(cls, X: Features) -> "RowChunks":
        """Features that are all in memory: one chunk.

        Parameters
        ----------
        X : ndarray of shape (n_rows, n_features)
        """
        return cls(ArrayRows(X), len(X))

    def rows_of_answers(self, n_classes: int) -> int:
        """Rows whose scores, and as much again, take as much memory as a chunk does.

        Parameters
        ----------
        n_classes : int
        """
        n_rows = len(self.reader)
        if self.chunk_rows >= n_rows:
            return n_rows
        # Scores are float64, features float32.
        return min(n_rows, self.chunk_rows * max(1, self.reader.n_features // (4 * n_classes)))

    def predict_proba(self, head: Head, rows: Rows) -> Probabilities:
        """Probabilities that a head gives to some rows.

        Parameters
        ----------
        head : Head
        rows : ndarray of shape (n,), intp

        Returns
        -------
        ndarray of shape (n, n_classes), float64
        """
        probabilities = np.empty((len(rows), len(head.known.constant)))
        for chunk in self._chunks_of(len(rows)):
            probabilities[chunk] = head.predict_proba(self.reader.read(rows[chunk]))
        return probabilities

    def predict(
        self, model: HeadModel
    ) -> tuple[dict[str, Probabilities], dict[str, Probabilities], float]:
        """`HeadModel.predict` and `HeadModel.p_values` of every row.

        Parameters
        ----------
        model : HeadModel

        Returns
        -------
        scores : dict of str to ndarray of shape (n_rows, n_classes), float64
        p_values : dict of str to ndarray of shape (n_rows,), float64
        seconds : float
            Time that the heads took, without reading.
        """
        n_rows = len(self.reader)
        scores = {name: np.empty((n_rows, len(names))) for name, names in model.classes.items()}
        p_values = {name: np.empty(n_rows) for name in model.classes}
        seconds = 0.0
        for chunk in self._chunks_of(n_rows):
            X = self.reader.read(np.arange(n_rows)[chunk])
            started = time.perf_counter()
            chunk_scores = model.predict(X)
            chunk_p_values = model.p_values(X, chunk_scores)
            for name in scores:
                scores[name][chunk] = chunk_scores[name]
                p_values[name][chunk] = chunk_p_values[name]
            seconds += time.perf_counter() - started
        return scores, p_values, seconds

    def _chunks_of(self, n_rows: int) -> Iterator[slice]:
        return (
            slice(start, start + self.chunk_rows) for start in range(0, n_rows, self.chunk_rows)
        )
