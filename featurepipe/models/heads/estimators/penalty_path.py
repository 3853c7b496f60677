"""Logistic regressions side by side, minimised at one penalty after another by L-BFGS.

Rows are coordinates along principal axes, where the second derivatives are close to a matrix that
is easily inverted: those between outputs, averaged over rows, times the variance of each axis, plus
the penalty. L-BFGS corrects it by its last steps, also by those at earlier penalties. Each solution
starts on the line through the two before. It then takes about three evaluations.
"""

import math
from collections import deque
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Floats = NDArray[np.floating]

# The paths of garments (two attributes) and of flowers took 276 evaluations; with 5 remembered
# steps 318, with 20 263.
_MEMORY = 10
# Keeps steps finite where a fit is certain of every row.
_LEAST_CURVATURE = 1e-6


@dataclass(frozen=True)
class Evaluation:
    """What the regressions are at some weights.

    Attributes
    ----------
    losses : ndarray of shape (n_problems, n_rows)
        Log-loss of each row, whether or not the regression is fitted on it.
    probabilities : ndarray of shape (n_problems, n_outputs, n_rows)
    gradient : ndarray of shape (n_problems, n_outputs, n_axes + 1)
        Of the mean loss of the fitted rows.
    """

    losses: Floats
    probabilities: Floats
    gradient: Floats


@dataclass(frozen=True)
class Regressions:
    """Logistic regressions side by side, each on some of the rows.

    With one output a regression is a sigmoid, with more a softmax.

    Attributes
    ----------
    axes : ndarray of shape (n_rows, n_axes + 1)
        Coordinates along the axes. The last column is 1, and its weight is the intercept.
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
    def shares(self) -> Floats:
        """How much a row counts in the mean: ndarray of shape (n_problems, n_rows)."""
        return (self.fitted / self.fitted.sum(axis=1, keepdims=True)).astype(self.axes.dtype)

    def penalty(self, C: float) -> Floats:
        """Factors of ``w^2 / 2``: ndarray of shape (n_problems, 1, n_axes + 1)."""
        factors = np.tile(1 / (C * self.fitted.sum(axis=1)[:, None, None]), self.axes.shape[1])
        factors[:, :, -1] = 0
        return factors.astype(self.axes.dtype)

    def evaluate(self, weights: Floats) -> Evaluation:
        """Losses, probabilities and gradient at some weights.

        Parameters
        ----------
        weights : ndarray of shape (n_problems, n_outputs, n_axes + 1)
        """
        # This order of the factors is the faster one where they have few columns.
        scores = np.ascontiguousarray((self.axes @ weights.reshape(-1, weights.shape[2]).T).T)
        scores = scores.reshape(*weights.shape[:2], -1)
        if weights.shape[1] == 1:
            probabilities = expit(scores)
            losses = (np.logaddexp(0, scores) - self.truth * scores)[:, 0]
        else:
            highest = scores.max(axis=1)
            losses = highest - np.einsum("pkn,pkn->pn", scores, self.truth)
            scores -= highest[:, None]
            probabilities = np.exp(scores, out=scores)
            total = probabilities.sum(axis=1)
            losses += np.log(total)
            probabilities /= total[:, None]
        slopes = (probabilities - self.truth) * self.shares[:, None]
        gradient = slopes.reshape(-1, len(self.axes)) @ self.axes
        return Evaluation(losses, probabilities, gradient.reshape(weights.shape))

    def judged(self) -> NDArray[np.bool_]:
        """Which losses are of held-out rows: ndarray of shape (n_problems, n_rows), bool.

        Without rows of classes, or of labels, that the regression cannot learn from its rows.
        """
        n_true = self.truth @ self.fitted[:, :, None].astype(np.float32)
        if self.truth.shape[1] == 1:
            n_fitted = self.fitted.sum(axis=1)[:, None, None]
            return ~self.fitted & ((n_true > 0) & (n_true < n_fitted))[:, 0]
        return ~self.fitted & ((n_true > 0) & (self.truth > 0)).any(axis=1)


class PenaltyPath:
    """The solutions of regressions at one penalty after another.

    Parameters
    ----------
    regressions : Regressions
    start : ndarray of shape (n_problems, n_outputs, n_axes + 1)

    Attributes
    ----------
    weights : ndarray of shape (n_problems, n_outputs, n_axes + 1)
        The last solutions.
    n_evaluations : int
        How often the regressions were evaluated so far.
    """

    def __init__(self, regressions: Regressions, start: Floats) -> None:
        self._regressions, self._curvature = regressions, _Curvature(regressions)
        self.weights, self._here, self.n_evaluations = start, regressions.evaluate(start), 1
        self._precision = float(np.finfo(start.dtype).eps)
        self._solved: deque[tuple[float, Floats]] = deque(maxlen=2)

    @property
    def losses(self) -> Floats:
        """Log-loss of each row: ndarray of shape (n_problems, n_rows)."""
        return self._here.losses

    def move_to(self, C: float, tol: float, max_iter: int) -> None:
        """Find the solutions for one C.

        The first step continues the line through the last two solutions, over the logarithm of C.

        Parameters
        ----------
        C : float
            Above those of earlier calls.
        tol : float
            A problem is solved if its next step promises to lower the objective by less than
            this share of it, or of 1 if it is lower, or if rounding lets no step lower it.
        max_iter : int
            Most steps.
        """
        self._penalty = self._regressions.penalty(C)
        self._curvature.prepare(self._here.probabilities, self._penalty)
        self._value = self._objective(self.weights, self._here)
        if len(self._solved) == 2:
            (one, before), (two, last) = self._solved
            self._take(math.log(C / two) / math.log(two / one) * (last - before), 0)
        for _ in range(max_iter):
            gradient = self._here.gradient + self._penalty * self.weights
            step = self._curvature.newton_step(gradient)
            gain = -_dots(gradient, step) / 2
            unsolved = gain > tol * np.maximum(self._value, 1)
            if not unsolved.any():
                break
            before = self._value
            self._take(unsolved * step, 0.5)
            if not (self._value < before).any():
                break
        self._solved.append((C, self.weights))

    def _take(self, step: Floats, shorten: float) -> None:
        """Take a step, shortened by this factor wherever it raises the objective."""
        while True:
            weights = self.weights + step
            there = self._regressions.evaluate(weights)
            self.n_evaluations += 1
            value = self._objective(weights, there)
            rises = value > self._value + self._precision * np.maximum(self._value, 1)
            if not rises.any():
                break
            step[rises[:, 0, 0]] *= shorten
        self._curvature.learn(step, there.gradient - self._here.gradient)
        self.weights, self._here, self._value = weights, there, value

    def _objective(self, weights: Floats, at: Evaluation) -> Floats:
        """Mean loss and penalty of each problem: ndarray of shape (n_problems, 1, 1), float64."""
        losses = np.sum(self._regressions.shares * at.losses, axis=1, dtype=np.float64)
        squares = np.sum(self._penalty * np.square(weights), axis=(1, 2), dtype=np.float64)
        return np.reshape(losses + squares / 2, (-1, 1, 1))


class _Curvature:
    """Second derivatives of the objectives, as L-BFGS knows them.

    Its initial matrix is a Kronecker product: the mean second derivatives between outputs times
    the variances of the axes.
    """

    def __init__(self, regressions: Regressions) -> None:
        self._shares = regressions.shares
        self._variances = np.square(regressions.axes).mean(axis=0)
        # Steps, and how the gradients of the mean losses changed. These hold at any penalty.
        self._steps: deque[tuple[Floats, Floats]] = deque(maxlen=_MEMORY)
        self._scale: Floats | float = 1

    def prepare(self, probabilities: Floats, penalty: Floats) -> None:
        """Take the outputs' second derivatives at some probabilities, and another penalty."""
        weighted = self._shares[:, None] * probabilities
        between = -weighted @ probabilities.transpose(0, 2, 1)
        np.einsum("pkk->pk", between)[:] += weighted.sum(axis=2)
        curvatures, self._rotation = np.linalg.eigh(between)
        curvatures = np.maximum(curvatures, _LEAST_CURVATURE)[:, :, None]
        self._penalty, self._diagonal = penalty, curvatures * self._variances + penalty
        self._pairs: deque[tuple[Floats, Floats, Floats]] = deque(maxlen=_MEMORY)
        for step, change in self._steps:
            self._add_pair(step, change)

    def newton_step(self, gradient: Floats) -> Floats:
        """The step of L-BFGS (Nocedal & Wright, Numerical Optimization, algorithm 7.4)."""
        step, shares = -gradient, []
        for s, y, curvature in reversed(self._pairs):
            shares.append(_dots(s, step) / curvature)
            step -= shares[-1] * y
        step = self._scale * self._solve(step)
        for (s, y, curvature), share in zip(self._pairs, reversed(shares), strict=True):
            step += (share - _dots(y, step) / curvature) * s
        return step

    def learn(self, step: Floats, change: Floats) -> None:
        """Learn from a step and the change of the mean loss's gradient; 0 where none was made."""
        length = np.sqrt(_dots(step, step))
        length[length == 0] = 1
        self._steps.append((step / length, change / length))
        _, y, curvature = self._add_pair(*self._steps[-1])
        scale = curvature / _dots(y, self._solve(y))
        self._scale = np.where(np.isfinite(scale), scale, self._scale)

    def _add_pair(self, s: Floats, change: Floats) -> tuple[Floats, Floats, Floats]:
        y = change + self._penalty * s
        curvature = _dots(s, y)
        # An infinite curvature makes the pair of a problem that had been solved count nothing.
        curvature[curvature <= 0] = np.inf
        self._pairs.append((s, y, curvature))
        return self._pairs[-1]

    def _solve(self, right: Floats) -> Floats:
        rotated = self._rotation.transpose(0, 2, 1) @ right
        return self._rotation @ (rotated / self._diagonal)


def _dots(a: Floats, b: Floats) -> Floats:
    """Inner product for each problem: ndarray of shape (n_problems, 1, 1)."""
    return a.reshape(len(a), 1, -1) @ b.reshape(len(b), -1, 1)
