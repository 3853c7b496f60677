"""Logistic regressions side by side: losses, gradients and second derivatives.

`PenaltyPath` asks for these at some weights, and `Regressions` answers for rows in memory. Rows
that memory does not hold are answered for by `featurepipe.models.heads.estimators.logistic_stream`,
in a pass for all that ask.
"""

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Floats = NDArray[np.floating]

Result = TypeVar("Result")


class Evaluation(Protocol):
    """What some regressions are at some weights."""

    @property
    def value(self) -> Floats:
        """Mean log-loss of the fitted rows: ndarray of shape (n_problems, 1, 1), float64."""

    @property
    def gradient(self) -> Floats:
        """Of the mean log-loss: ndarray of shape (n_problems, n_outputs, n_axes + 1)."""

    @property
    def between(self) -> Floats:
        """Mean second derivatives between outputs: (n_problems, n_outputs, n_outputs)."""

    @property
    def judged_loss(self) -> float:
        """Mean log-loss of the rows that are held out and judged; NaN if there are none."""


Steps = Generator[Floats, Evaluation, Result]
"""Asks for evaluations, at weights of shape (n_problems, n_outputs, n_axes + 1)."""


class Problems(Protocol):
    """Logistic regressions side by side, as a `PenaltyPath` needs to know them."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of all weights: n_problems, n_outputs, n_axes + 1."""

    @property
    def variances(self) -> Floats:
        """Mean squares along principal axes: ndarray of shape (n_axes + 1,)."""

    def penalty(self, C: float) -> Floats:
        """Factors of ``w^2 / 2``: ndarray of shape (n_problems, 1, n_axes + 1)."""

    def to_axes(self, vectors: Floats) -> Floats:
        """Vectors like weights, along the principal axes."""

    def from_axes(self, vectors: Floats) -> Floats:
        """The inverse of `to_axes`."""


def drive(steps: Steps[Result], evaluate: Callable[[Floats], Evaluation]) -> Result:
    """Answer each question of some steps, and return their result.

    Parameters
    ----------
    steps : generator
    evaluate : callable
    """
    try:
        weights = next(steps)
        while True:
            weights = steps.send(evaluate(weights))
    except StopIteration as end:
        return end.value


def log_losses(scores: Floats, truth: Floats) -> tuple[Floats, Floats]:
    """Log-loss of each row, and the probabilities of its outputs.

    Parameters
    ----------
    scores : ndarray of shape (n_problems, n_outputs, n_rows)
        Overwritten.
    truth : ndarray of shape (n_problems or 1, n_outputs, n_rows)
        1 where a row has an output's class, else 0.

    Returns
    -------
    losses : ndarray of shape (n_problems, n_rows)
    probabilities : ndarray of shape (n_problems, n_outputs, n_rows)
        Of a sigmoid for one output, of a softmax for more.
    """
    if scores.shape[1] == 1:
        return (np.logaddexp(0, scores) - truth * scores)[:, 0], expit(scores)
    highest = scores.max(axis=1)
    losses = highest - np.einsum("pkn,pkn->pn", scores, truth)
    scores -= highest[:, None]
    probabilities = np.exp(scores, out=scores)
    total = probabilities.sum(axis=1)
    losses += np.log(total)
    probabilities /= total[:, None]
    return losses, probabilities


def derivatives_between(probabilities: Floats, shares: Floats) -> Floats:
    """Second derivatives of log-losses between outputs, summed over rows.

    Parameters
    ----------
    probabilities : ndarray of shape (n_problems, n_outputs, n_rows)
    shares : ndarray of shape (n_problems, n_rows)
        How much each row counts.

    Returns
    -------
    ndarray of shape (n_problems, n_outputs, n_outputs)
    """
    weighted = shares[:, None] * probabilities
    between = -weighted @ probabilities.transpose(0, 2, 1)
    np.einsum("pkk->pk", between)[:] += weighted.sum(axis=2)
    return between


@dataclass(frozen=True)
class RowEvaluation:
    """What regressions are at some weights: an `Evaluation` that knows each row.

    Attributes
    ----------
    regressions : Regressions
    losses : ndarray of shape (n_problems, n_rows)
        Log-loss of each row, whether or not the regression is fitted on it.
    probabilities : ndarray of shape (n_problems, n_outputs, n_rows)
    gradient : ndarray of shape (n_problems, n_outputs, n_axes + 1)
        Of the mean loss of the fitted rows.
    """

    regressions: "Regressions"
    losses: Floats
    probabilities: Floats
    gradient: Floats

    @cached_property
    def value(self) -> Floats:
        """Mean log-loss of the fitted rows: ndarray of shape (n_problems, 1, 1), float64."""
        losses = np.sum(self.regressions.shares * self.losses, axis=1, dtype=np.float64)
        return np.reshape(losses, (-1, 1, 1))

    @property
    def between(self) -> Floats:
        """Mean second derivatives between outputs: (n_problems, n_outputs, n_outputs)."""
        return derivatives_between(self.probabilities, self.regressions.shares)

    @property
    def judged_loss(self) -> float:
        """Mean log-loss of the rows that are held out and judged; NaN if there are none."""
        judged = self.regressions.judged
        return float(self.losses[judged].mean(dtype=np.float64)) if judged.any() else math.nan


@dataclass(frozen=True)
class Regressions:
    """Logistic regressions side by side, each on some of the rows: `Problems` in memory.

    With one output a regression is a sigmoid, with more a softmax.

    Attributes
    ----------
    axes : ndarray of shape (n_rows, n_axes + 1)
        Coordinates along the principal axes. The last column is 1, and its weight is the
        intercept.
    truth : ndarray of shape (n_problems or 1, n_outputs, n_rows)
        1 where a row has an output's class, else 0.
    fitted : ndarray of shape (n_problems, n_rows), bool
        Which rows each regression is fitted on.
    """

    axes: Floats
    truth: Floats
    fitted: NDArray[np.bool_]

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of all weights: n_problems, n_outputs, n_axes + 1."""
        return len(self.fitted), self.truth.shape[1], self.axes.shape[1]

    @cached_property
    def variances(self) -> Floats:
        """Mean squares along the axes: ndarray of shape (n_axes + 1,)."""
        return np.square(self.axes).mean(axis=0)

    def to_axes(self, vectors: Floats) -> Floats:
        """The vectors: they lie along the axes."""
        return vectors

    def from_axes(self, vectors: Floats) -> Floats:
        """The vectors: they lie along the axes."""
        return vectors

    @cached_property
    def shares(self) -> Floats:
        """How much a row counts in the mean: ndarray of shape (n_problems, n_rows)."""
        return (self.fitted / self.fitted.sum(axis=1, keepdims=True)).astype(self.axes.dtype)

    def penalty(self, C: float) -> Floats:
        """Factors of ``w^2 / 2``: ndarray of shape (n_problems, 1, n_axes + 1)."""
        return penalty_factors(C, self.fitted.sum(axis=1), self.axes.shape[1], self.axes.dtype)

    def evaluate(self, weights: Floats) -> RowEvaluation:
        """Losses, probabilities and gradient at some weights.

        Parameters
        ----------
        weights : ndarray of shape (n_problems, n_outputs, n_axes + 1)
        """
        # This order of the factors is the faster one where they have few columns.
        scores = np.ascontiguousarray((self.axes @ weights.reshape(-1, weights.shape[2]).T).T)
        losses, probabilities = log_losses(scores.reshape(*weights.shape[:2], -1), self.truth)
        slopes = (probabilities - self.truth) * self.shares[:, None]
        gradient = slopes.reshape(-1, len(self.axes)) @ self.axes
        return RowEvaluation(self, losses, probabilities, gradient.reshape(weights.shape))

    @cached_property
    def judged(self) -> NDArray[np.bool_]:
        """Which losses are of held-out rows: ndarray of shape (n_problems, n_rows), bool.

        Without rows of classes, or of labels, that the regression cannot learn from its rows.
        """
        n_true = (self.truth @ self.fitted[:, :, None].astype(np.float32))[:, :, 0]
        learnable = learnable_outputs(n_true, self.fitted.sum(axis=1))
        return judged_rows(~self.fitted, self.truth, learnable)


def penalty_factors(C: float, n_fitted: NDArray[np.intp], n_weights: int, dtype: Any) -> Floats:
    """Factors of ``w^2 / 2`` in objectives that are means over rows; 0 for the intercept.

    Parameters
    ----------
    C : float
    n_fitted : ndarray of shape (n_problems,), int
        Rows that each problem is fitted on.
    n_weights : int
        Weights of an output, the intercept included.
    dtype : dtype

    Returns
    -------
    ndarray of shape (n_problems, 1, n_weights)
    """
    factors = np.tile(1 / (C * n_fitted[:, None, None]), n_weights)
    factors[:, :, -1] = 0
    return factors.astype(dtype)


def learnable_outputs(n_true: NDArray[Any], n_fitted: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which outputs some of the fitted rows have; of a sigmoid, that others lack too.

    Parameters
    ----------
    n_true : ndarray of shape (n_problems, n_outputs)
        Fitted rows that have an output's class.
    n_fitted : ndarray of shape (n_problems,), int

    Returns
    -------
    ndarray of shape (n_problems, n_outputs), bool
    """
    if n_true.shape[1] == 1:
        return (n_true > 0) & (n_true < n_fitted[:, None])
    return n_true > 0


def judged_rows(
    held_out: NDArray[np.bool_], truth: NDArray[Any], learnable: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Which held-out rows can be judged: those of classes, or labels, that could be learnt.

    Parameters
    ----------
    held_out : ndarray of shape (n_problems, n_rows), bool
    truth : ndarray of shape (n_problems or 1, n_outputs, n_rows)
    learnable : ndarray of shape (n_problems, n_outputs), bool

    Returns
    -------
    ndarray of shape (n_problems, n_rows), bool
    """
    if truth.shape[1] == 1:
        return held_out & learnable
    return held_out & ((truth > 0) & learnable[:, :, None]).any(axis=1)
