"""LogisticStream: a `LogisticSweep` that is fitted by passes over rows that memory does not hold.

It asks for the losses and gradients of its regressions at some weights; a pass over the rows
answers all streams that ask. The objective, the inner folds and the steps are those of
`LogisticSweep`. Weights are of prepared features; steps are taken along the principal axes of a
sample of rows, which change how many passes it takes, not where they end. Instead of all values of
C, from the strongest penalty on, it tries those around the C that a sample chose, until those on
both sides have a higher log-loss.
"""

from collections.abc import Callable, Generator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featurepipe.models.heads.estimators.logistic import C_WITHOUT_FOLDS, LogisticSweep
from featurepipe.models.heads.estimators.penalty_path import PenaltyPath
from featurepipe.models.heads.estimators.regressions import Evaluation, Floats, Result, Steps
from featurepipe.models.heads.estimators.streamed_problems import Preparation, StreamedProblems

Rows = NDArray[np.intp]

# While values of C are compared. On 20,000 drawn rows of 256 features, 10 times less precise steps
# took a fifth fewer passes and chose the same C; 1,000 times less precise ones did not always.
_JUDGING_TOL = 10


Question = tuple[StreamedProblems, Floats]
Questions = Generator[Question, Evaluation, Result]
"""Asks for evaluations of problems at weights."""


class LogisticStream:
    """Fits a `LogisticSweep` by asking for evaluations.

    Parameters
    ----------
    model : LogisticSweep
        It gets what `LogisticSweep.fit` gives it, but for ``losses_`` at the values of C that are
        not tried.
    classes : ndarray of shape (n_classes,), intp
        All classes, ascending, or the column numbers of the labels.
    label_sets : bool
        Whether targets are an indicator of sets of labels.
    position : ndarray of shape (n_train,), intp
        Position of each training row among the question's rows, or -1.
    is_fitted_on : ndarray of shape (n_rows of the question,), bool
    targets_of : callable
        Positions among the question's rows -> targets, as `LogisticSweep.fit` takes them.
    groups : ndarray of shape (n_rows of the question,), int

    Attributes
    ----------
    model, position, is_fitted_on
        As the parameters.
    preparation : Preparation
        Set it before `fit`.
    """

    preparation: Preparation

    def __init__(
        self,
        model: LogisticSweep,
        classes: Rows,
        position: Rows,
        is_fitted_on: NDArray[np.bool_],
        targets_of: Callable[[Rows], ArrayLike],
        groups: Rows,
        *,
        label_sets: bool,
    ) -> None:
        model.learn_classes(classes, label_sets=label_sets)
        self.model, self.position, self.is_fitted_on = model, position, is_fitted_on
        self._targets_of, self._groups = targets_of, groups

    def truth_of(self, positions: Rows) -> Floats:
        """1 where a row has an output's class, else 0.

        Parameters
        ----------
        positions : ndarray of shape (n,), intp
            Among the question's rows.

        Returns
        -------
        ndarray of shape (n_outputs, n), float32
        """
        return self.model.truth_of(np.asarray(self._targets_of(positions))).T

    def fit(self, number: int, start: Floats) -> Questions[None]:
        """Choose C on inner folds, then fit all rows.

        Parameters
        ----------
        number : int
            Which value of C to try first.
        start : ndarray of shape (n_outputs, n_read + 1), float32
            Weights to start from.
        """
        model, rows = self.model, np.flatnonzero(self.is_fitted_on)
        truth = self.truth_of(rows)
        model.C_, model.losses_ = C_WITHOUT_FOLDS, np.full(len(model.Cs), np.nan)
        folds = self._problems(rows, truth, model.draw_folds(truth, self._groups[rows]))
        if self._can_judge(folds, rows, truth):
            start = yield from self._choose(folds, number, start)
        everything = self._problems(rows, truth, np.ones((1, len(rows)), bool))
        del truth, folds
        path = PenaltyPath(everything, start.reshape(everything.shape))
        yield from _asking(everything, model.finish(path))
        self._keep(path.weights.reshape(start.shape))

    def _problems(self, rows: Rows, truth: Floats, fitted: NDArray[np.bool_]) -> StreamedProblems:
        of_question = np.zeros((len(fitted), len(self.is_fitted_on)), bool)
        of_question[:, rows] = fitted
        return StreamedProblems(self, of_question, np.stack([truth @ fold for fold in fitted]))

    def _can_judge(self, folds: StreamedProblems, rows: Rows, truth: Floats) -> bool:
        if folds.fitted[:, rows].all():
            return False
        of_folds = zip(
            folds.fitted[:, rows], folds.learnable.reshape(folds.n_true.shape), strict=True
        )
        if self.model.kind_ == "classes":
            return any(
                (truth[:, ~fitted].any(axis=1) & learnable).any() for fitted, learnable in of_folds
            )
        return any(not fitted.all() and learnable.any() for fitted, learnable in of_folds)

    def _choose(self, folds: StreamedProblems, number: int, start: Floats) -> Questions[Floats]:
        """Learn `C_`; returns weights from which the fit of all rows starts."""
        model = self.model
        path = PenaltyPath(folds, np.tile(start, (len(folds.fitted), 1)).reshape(folds.shape))
        yield from self._judge(folds, path, number)
        best, weights = number, path.weights
        # Among equal values of C the stronger penalty wins.
        for direction, is_better in ((-1, np.less_equal), (1, np.less)):
            while 0 <= (other := best + direction) < len(model.Cs):
                yield from self._judge(folds, path, other)
                if not is_better(model.losses_[other], model.losses_[best]):
                    break
                best, weights = other, path.weights
            if best != number:
                break
        model.C_ = float(model.Cs[best])
        return weights.reshape(-1, *start.shape).mean(axis=0)

    def _judge(self, folds: StreamedProblems, path: PenaltyPath, number: int) -> Questions[None]:
        model = self.model
        yield from _asking(
            folds, path.move_to(model.Cs[number], _JUDGING_TOL * model.tol, model.max_iter)
        )
        model.losses_[number] = path.judged_loss

    def _keep(self, weights: Floats) -> None:
        model, kept = self.model, self.preparation.scales != 0
        model.coef_ = weights[:, :-1][:, kept]
        intercepts: Floats = weights[:, -1]
        if model.kind_ == "classes":
            # A softmax ignores a common term.
            intercepts = intercepts - intercepts.mean()
        model.intercept_ = intercepts
        model.n_features_in_ = int(np.count_nonzero(kept))


def _asking(problems: StreamedProblems, steps: Steps[Result]) -> Questions[Result]:
    """The questions of a path about some problems."""
    try:
        weights = next(steps)
        while True:
            weights = steps.send((yield problems, weights))
    except StopIteration as end:
        return end.value
