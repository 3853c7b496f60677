"""Logistic regressions side by side, minimised at one penalty after another by L-BFGS.

Rows are coordinates along principal axes, where the second derivatives are close to a matrix that
is easily inverted: those between outputs, averaged over rows, times the variance of each axis, plus
the penalty. L-BFGS corrects it by its last steps, also by those at earlier penalties. Each solution
starts on the line through the two before. It then takes about three evaluations.

A path does not evaluate its regressions: it asks for that, so that one pass over rows that memory
does not hold can answer several paths.
"""

import math
from collections import deque

import numpy as np

from featurepipe.models.heads.estimators.regressions import Evaluation, Floats, Problems, Steps

# The paths of garments (two attributes) and of flowers took 276 evaluations; with 5 remembered
# steps 318, with 20 263.
_MEMORY = 10
# Keeps steps finite where a fit is certain of every row.
_LEAST_CURVATURE = 1e-6


class PenaltyPath:
    """The solutions of regressions at one penalty after another.

    Parameters
    ----------
    problems : Problems
    start : ndarray of shape (n_problems, n_outputs, n_axes + 1)

    Attributes
    ----------
    weights : ndarray of shape (n_problems, n_outputs, n_axes + 1)
        The last solutions.
    judged_loss : float
        Of the last evaluation.
    n_evaluations : int
        How often the regressions were evaluated so far.
    """

    def __init__(self, problems: Problems, start: Floats) -> None:
        self._problems, self._curvature = problems, _Curvature(problems)
        self._here: Evaluation | None = None
        self.weights, self.judged_loss, self.n_evaluations = start, math.nan, 0
        self._precision = float(np.finfo(start.dtype).eps)
        self._solved: deque[tuple[float, Floats]] = deque(maxlen=2)

    def move_to(self, C: float, tol: float, max_iter: int) -> Steps[None]:
        """Find the solutions for one C.

        The first step continues the line through the last two solutions, over the logarithm of C.

        Parameters
        ----------
        C : float
            Another one than in the call before.
        tol : float
            A problem is solved if its next step promises to lower the objective by less than
            this share of it, or of 1 if it is lower, or if rounding lets no step lower it.
        max_iter : int
            Most steps.
        """
        if self._here is None:
            self._here = yield from self._evaluate(self.weights)
        self._penalty = self._problems.penalty(C)
        self._curvature.prepare(self._here.between, self._penalty)
        self._value = self._objective(self.weights, self._here)
        if len(self._solved) == 2:
            (one, before), (two, last) = self._solved
            yield from self._take(math.log(C / two) / math.log(two / one) * (last - before), 0)
        for _ in range(max_iter):
            gradient = self._here.gradient + self._penalty * self.weights
            step = self._curvature.newton_step(gradient)
            gain = -_dots(gradient, step) / 2
            unsolved = gain > tol * np.maximum(self._value, 1)
            if not unsolved.any():
                break
            before = self._value
            yield from self._take(unsolved * step, 0.5)
            if not (self._value < before).any():
                break
        self._solved.append((C, self.weights))
        self.judged_loss = self._here.judged_loss

    def _evaluate(self, weights: Floats) -> Steps[Evaluation]:
        self.n_evaluations += 1
        return (yield weights)

    def _take(self, step: Floats, shorten: float) -> Steps[None]:
        """Take a step, shortened by this factor wherever it raises the objective."""
        assert self._here is not None
        while True:
            weights = self.weights + step
            there = yield from self._evaluate(weights)
            value = self._objective(weights, there)
            rises = value > self._value + self._precision * np.maximum(self._value, 1)
            if not rises.any():
                break
            step[rises[:, 0, 0]] *= shorten
        self._curvature.learn(step, there.gradient - self._here.gradient)
        self.weights, self._here, self._value = weights, there, value

    def _objective(self, weights: Floats, at: Evaluation) -> Floats:
        """Mean loss and penalty of each problem: ndarray of shape (n_problems, 1, 1), float64."""
        squares = np.sum(self._penalty * np.square(weights), axis=(1, 2), dtype=np.float64)
        return at.value + np.reshape(squares / 2, (-1, 1, 1))


class _Curvature:
    """Second derivatives of the objectives, as L-BFGS knows them.

    Its initial matrix is a Kronecker product: the mean second derivatives between outputs times
    the variances of the axes.
    """

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        # Steps, and how the gradients of the mean losses changed. These hold at any penalty.
        self._steps: deque[tuple[Floats, Floats]] = deque(maxlen=_MEMORY)
        self._scale: Floats | float = 1

    def prepare(self, between: Floats, penalty: Floats) -> None:
        """Take the outputs' second derivatives, and another penalty."""
        curvatures, self._rotation = np.linalg.eigh(between)
        curvatures = np.maximum(curvatures, _LEAST_CURVATURE)[:, :, None]
        self._penalty = penalty
        self._diagonal = curvatures * self._problems.variances + penalty
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
        rotated = self._problems.to_axes(self._rotation.transpose(0, 2, 1) @ right)
        return self._rotation @ self._problems.from_axes(rotated / self._diagonal)


def _dots(a: Floats, b: Floats) -> Floats:
    """Inner product for each problem: ndarray of shape (n_problems, 1, 1)."""
    return a.reshape(len(a), 1, -1) @ b.reshape(len(b), -1, 1)
