"""StreamedProblems: logistic regressions on rows that a pass reads block by block."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featurepipe.models.heads.estimators.regressions import (
    Floats,
    derivatives_between,
    judged_rows,
    learnable_outputs,
    log_losses,
    penalty_factors,
)

if TYPE_CHECKING:
    from featurepipe.models.heads.estimators.logistic_stream import LogisticStream

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Preparation:
    """What regressions read: columns of the rows, scaled and shifted, and their principal axes.

    Attributes
    ----------
    columns : ndarray of shape (n_read,), intp
        Columns of the rows that some head of the question keeps.
    scales, shifts : ndarray of shape (n_read,), float64
        A column x is prepared as ``scale x + shift``; both are 0 where this head does not keep it.
    axes : ndarray of shape (n_read, n_read), float32
        Principal axes of prepared rows, one a column.
    variances : ndarray of shape (n_read + 1,), float32
        Along the axes; 1 for the intercept.
    """

    columns: Rows
    scales: NDArray[np.float64]
    shifts: NDArray[np.float64]
    axes: NDArray[np.float32]
    variances: NDArray[np.float32]

    @cached_property
    def kept(self) -> NDArray[np.float32]:
        """1 for the weights that the head has, else 0: ndarray of shape (n_read + 1,)."""
        return np.append(self.scales != 0, True).astype(np.float32)

    def raw_weights(self, weights: Floats, centre: NDArray[np.float64]) -> tuple[Floats, Floats]:
        """Weights of centred columns of the rows, from weights of prepared features.

        Parameters
        ----------
        weights : ndarray of shape (n_outputs, n_read + 1)
        centre : ndarray of shape (n_columns,), float64

        Returns
        -------
        weights : ndarray of shape (n_outputs, n_columns), float32
        intercepts : ndarray of shape (n_outputs,), float32
        """
        of_columns, exact = np.zeros((len(weights), len(centre))), weights.astype(np.float64)
        of_columns[:, self.columns] = exact[:, :-1] * self.scales
        intercepts = exact[:, -1] + exact[:, :-1] @ self._means(centre)
        return of_columns.astype(np.float32), intercepts.astype(np.float32)

    def prepared_gradient(self, gradient: Floats, centre: NDArray[np.float64]) -> Floats:
        """The gradient by weights of prepared features, from that by `raw_weights`.

        Parameters
        ----------
        gradient : ndarray of shape (n_outputs, n_columns + 1)
        centre : ndarray of shape (n_columns,), float64
        """
        of_intercepts = gradient[:, -1:]
        of_weights = gradient[:, self.columns] * self.scales + of_intercepts * self._means(centre)
        return np.hstack([of_weights, of_intercepts]).astype(np.float32)

    def _means(self, centre: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.scales * centre[self.columns] + self.shifts


@dataclass
class PassEvaluation:
    """What regressions are at some weights: an `Evaluation`, summed over blocks of rows.

    Attributes
    ----------
    value, gradient, between
        See `Evaluation`; sums until the pass has ended, then means.
    judged_loss : float
        Likewise.
    n_judged : int
    """

    value: Floats
    gradient: Floats
    between: Floats
    judged_loss: float = 0.0
    n_judged: int = 0

    def add(self, other: "PassEvaluation") -> None:
        """Add the sums over another block."""
        self.value += other.value
        self.gradient += other.gradient
        self.between += other.between
        self.judged_loss += other.judged_loss
        self.n_judged += other.n_judged


@dataclass(frozen=True)
class StreamedProblems:
    """Logistic regressions on some of the rows that a pass reads.

    Attributes
    ----------
    stream : LogisticStream
    fitted : ndarray of shape (n_folds, n_rows of the question), bool
        Which rows the regressions of each fold are fitted on.
    n_true : ndarray of shape (n_folds, n_outputs), float
        How many of them have each output's class.
    """

    stream: "LogisticStream"
    fitted: NDArray[np.bool_]
    n_true: Floats

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of all weights: n_problems, n_outputs, n_read + 1."""
        n_folds, n_outputs = self.n_true.shape
        side_by_side = (n_folds, n_outputs) if self._is_softmax else (n_folds * n_outputs, 1)
        return *side_by_side, len(self.stream.preparation.variances)

    @property
    def variances(self) -> Floats:
        """Mean squares along principal axes: ndarray of shape (n_read + 1,)."""
        return self.stream.preparation.variances

    def penalty(self, C: float) -> Floats:
        """Factors of ``w^2 / 2``: ndarray of shape (n_problems, 1, n_read + 1)."""
        return penalty_factors(C, self.n_fitted, self.shape[2], np.float32)

    def to_axes(self, vectors: Floats) -> Floats:
        """Vectors like weights, along the principal axes."""
        preparation = self.stream.preparation
        kept = vectors * preparation.kept
        return np.concatenate([kept[..., :-1] @ preparation.axes, kept[..., -1:]], axis=-1)

    def from_axes(self, vectors: Floats) -> Floats:
        """The inverse of `to_axes`."""
        preparation = self.stream.preparation
        of_weights = vectors[..., :-1] @ preparation.axes.T
        return np.concatenate([of_weights, vectors[..., -1:]], axis=-1) * preparation.kept

    @cached_property
    def n_fitted(self) -> Rows:
        """Rows that each problem is fitted on: ndarray of shape (n_problems,)."""
        return np.repeat(self.fitted.sum(axis=1), self._n_repeats)

    @cached_property
    def learnable(self) -> NDArray[np.bool_]:
        """What `learnable_outputs` says: ndarray of shape (n_problems, n_outputs), bool."""
        return learnable_outputs(self.n_true.reshape(self.shape[:2]), self.n_fitted)

    def evaluate(self, scores: Floats, rows: Rows) -> tuple[PassEvaluation, Floats]:
        """Sums over a block of rows, without the gradient.

        Parameters
        ----------
        scores : ndarray of shape (n_problems * n_outputs, n_block), float32
        rows : ndarray of shape (n_block,), intp
            Which training rows they are.

        Returns
        -------
        sums : PassEvaluation
        slopes : ndarray like `scores`
            Derivatives of the summed losses of the fitted rows.
        """
        stream, (n_problems, n_outputs, _) = self.stream, self.shape
        positions = stream.position[rows]
        chosen = (positions >= 0) & stream.is_fitted_on[positions]
        positions = positions[chosen]
        truth = self._of_problems(stream.truth_of(positions))
        fitted = np.repeat(self.fitted[:, positions], self._n_repeats, axis=0)
        losses, probabilities = log_losses(
            scores[:, chosen].reshape(n_problems, n_outputs, -1), truth
        )
        counted = fitted.astype(np.float32)
        judged = losses[judged_rows(~fitted, truth, self.learnable)]
        slopes = np.zeros_like(scores)
        slopes[:, chosen] = ((probabilities - truth) * counted[:, None]).reshape(len(scores), -1)
        sums = PassEvaluation(
            np.reshape(np.sum(counted * losses, axis=1, dtype=np.float64), (-1, 1, 1)),
            np.empty(0),
            derivatives_between(probabilities, counted).astype(np.float64),
            float(judged.sum(dtype=np.float64)),
            judged.size,
        )
        return sums, slopes

    def means(self, sums: PassEvaluation, centre: NDArray[np.float64]) -> PassEvaluation:
        """What the sums of a whole pass say.

        Parameters
        ----------
        sums : PassEvaluation
            Its gradient is by weights of centred columns.
        centre : ndarray of shape (n_columns,), float64
        """
        n_fitted = self.n_fitted[:, None, None]
        gradient = self.stream.preparation.prepared_gradient(sums.gradient, centre)
        return PassEvaluation(
            sums.value / n_fitted,
            (gradient.reshape(self.shape) / n_fitted).astype(np.float32),
            (sums.between / n_fitted).astype(np.float32),
            sums.judged_loss / sums.n_judged if sums.n_judged else np.nan,
            sums.n_judged,
        )

    @property
    def _is_softmax(self) -> bool:
        return self.stream.model.kind_ == "classes"

    @property
    def _n_repeats(self) -> int:
        """Problems of a fold."""
        return 1 if self._is_softmax else self.n_true.shape[1]

    def _of_problems(self, truth: Floats) -> Floats:
        """Truth of shape (n_problems or 1, n_outputs, n_rows), from that of all outputs."""
        return (
            truth[None] if self._is_softmax else np.tile(truth[:, None], (len(self.fitted), 1, 1))
        )
