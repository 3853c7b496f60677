"""Mini-batch descent on the logistic regressions of all classes at once.

Nesterov's steps with a proximal L1 part; their length falls along a cosine to 0, and a class's
is no longer than its curvature allows. A whole pass is compiled, and runs without the
interpreter's lock: NumPy's calls on arrays as small as a mini-batch's are so short that
threads would spend their time handing the lock to each other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_MOMENTUM = np.float32(0.9)
# The longest step, over the mean squared length of a row. Of 25 to 50, measured on members of
# seven sets (533 to 1,709 rows, 5 to 46 classes), this one was never more than 15 % above the
# lowest objective, and at most 1 % above that of SGDClassifier where its tolerance stops it.
_LONGEST_STEP = 30.0
# Small sets need small batches: what counts is the number of steps.
_LEAST_STEPS_A_PASS = 25
_CURVATURE_MEMORY = np.float32(0.9)


@dataclass(frozen=True)
class Problem:
    """What is minimised, summed over all outputs.

    ``sum(costs * log_loss) + alpha * (l1_ratio |w|_1 + (1 - l1_ratio)/2 sum(w^2 / n_copies))``
    for the weights w of an output.

    Attributes
    ----------
    X : ndarray of shape (n_rows, n_features), float32
    truth : ndarray of shape (n_rows, n_outputs), float32
        1 where a row has the class, else 0.
    costs : ndarray of shape (n_rows, n_outputs), float32
        What a row's loss counts.
    alpha, l1_ratio : float
    n_copies : ndarray of shape (n_features,), float32
        Equal columns that a feature stands for.
    """

    X: Floats
    truth: Floats
    costs: Floats
    alpha: float
    l1_ratio: float
    n_copies: Floats

    @property
    def largest_eigenvalue(self) -> float:
        """Of the second moment of the features, by power iteration."""
        direction, value = self.X.mean(axis=0), 1.0
        for _ in range(10):
            direction = self.X.T @ (self.X @ direction) / len(self.X)
            value = float(np.linalg.norm(direction)) or 1.0
            direction = direction / value
        return value


class Descent:
    """Weights on their way down.

    Parameters
    ----------
    problem : Problem
    n_passes : int
        After which steps are of length 0.
    batch_size : int
        Rows of a mini-batch, at most; less where a pass would have fewer than 25 steps.

    Attributes
    ----------
    weights : ndarray of shape (n_outputs, n_features), float32
    """

    def __init__(self, problem: Problem, n_passes: int, batch_size: int) -> None:
        self._problem = problem
        n_rows, n_features = problem.X.shape
        self._batch_size = max(1, min(batch_size, n_rows // _LEAST_STEPS_A_PASS))
        self._n_steps, self._n_taken = n_passes * -(-n_rows // self._batch_size), 0
        squared_length = float(np.square(problem.X).sum(axis=1).mean()) or 1.0
        self._longest = np.float32(_LONGEST_STEP / squared_length)
        self._eigenvalue = np.float32(problem.largest_eigenvalue)
        # Before anything is learnt, p (1 - p) is 1/4.
        self._curvature = problem.costs.sum(axis=0) / np.float32(4)
        self._l1 = np.float32(problem.alpha * problem.l1_ratio)
        self._l2 = (problem.alpha * (1 - problem.l1_ratio) / problem.n_copies).astype(np.float32)
        shape = (problem.truth.shape[1], n_features)
        self.weights, self._ahead = np.zeros(shape, np.float32), np.zeros(shape, np.float32)

    def make_pass(self, rng: np.random.Generator) -> None:
        """Go once over all rows, in a random order."""
        order = rng.permutation(len(self._problem.X))
        self._n_taken = _make_pass(
            self._problem.X[order],
            self._problem.truth[order],
            self._problem.costs[order],
            self._batch_size,
            self.weights,
            self._ahead,
            self._curvature,
            self._eigenvalue,
            self._longest,
            self._l1,
            self._l2,
            self._n_taken,
            self._n_steps,
        )


def _compiled(function: Callable[..., int]) -> Callable[..., int]:
    # Not to assume that numbers are finite: exp() overflows where a class is out of question.
    compile_it = partial(
        numba.njit, nogil=True, fastmath={"reassoc", "contract", "arcp", "nsz", "afn"}
    )
    try:
        return compile_it(cache=True)(function)
    except RuntimeError:
        # There is nowhere to keep what is compiled.
        return compile_it()(function)


@_compiled
def _make_pass(
    X: Floats,
    truth: Floats,
    costs: Floats,
    batch_size: int,
    weights: Floats,
    ahead: Floats,
    curvature: Floats,
    eigenvalue: np.float32,
    longest: np.float32,
    l1: np.float32,
    l2: Floats,
    n_taken: int,
    n_steps: int,
) -> int:
    """Steps over all rows; writes `weights`, `ahead` and `curvature`, returns `n_taken`."""
    n_outputs, n_features = weights.shape
    gradient = np.empty((n_outputs, n_features), np.float32)
    one, strongest_l2 = np.float32(1), l2.max()
    for start in range(0, len(X), batch_size):
        batch = X[start : start + batch_size]
        share = np.float32(len(X) / len(batch))
        # Scores, which the slopes of the loss then take the place of.
        slopes = np.dot(batch, ahead.T)
        curvature_now = np.zeros(n_outputs, np.float32)
        for i in range(len(batch)):
            for k in range(n_outputs):
                probability = one / (one + np.exp(-slopes[i, k]))
                cost = costs[start + i, k] * share
                slopes[i, k] = cost * (probability - truth[start + i, k])
                curvature_now[k] += cost * probability * (one - probability)
        np.dot(slopes.T, batch, gradient)
        falling = np.float32((1 + np.cos(np.pi * n_taken / n_steps)) / 2)
        n_taken += 1
        for k in range(n_outputs):
            curvature[k] += (one - _CURVATURE_MEMORY) * (curvature_now[k] - curvature[k])
            allowed = one / (eigenvalue * curvature[k] + strongest_l2)
            length = min(longest, allowed) * falling
            reach = l1 * length
            for j in range(n_features):
                stepped = ahead[k, j] - length * (gradient[k, j] + l2[j] * ahead[k, j])
                stepped -= min(max(stepped, -reach), reach)
                ahead[k, j] = stepped + _MOMENTUM * (stepped - weights[k, j])
                weights[k, j] = stepped
    return n_taken
