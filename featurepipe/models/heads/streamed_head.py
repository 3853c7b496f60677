"""StreamedHead: one head that is fitted chunk by chunk."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from featurepipe.models.answers.arrays import Features, Rows, side_by_side, widths_of
from featurepipe.models.answers.finishing import Fold, HeldOut
from featurepipe.models.answers.head import ConstantHead, FeatureHead, Head, KnownClasses
from featurepipe.models.answers.questions import Question
from featurepipe.models.heads.estimators.bag_stream import BagStream
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.heads.pipelines import build_head

# Copies of so few rows stay in the processor's cache, and take little memory.
_ROWS_AT_ONCE = 256


@dataclass
class StreamedHead:
    """One head that is fitted chunk by chunk: first the steps of its pipeline.

    Each step reads what the steps before it return, so each step takes a pass.

    Attributes
    ----------
    question : Question
    position : ndarray of shape (n_train,), intp
        Position of each training row among the question's rows, or -1.
    is_fitted_on : ndarray of shape (n_rows of the question,), bool
        Which of the question's rows the head is fitted on.
    head : Head
    blocks : list of (slice, Pipeline)
        Columns of each block of features, and the steps that prepare it.
    bag : BagStream or None
        None for heads other than bagged SGD, and once it is finished.
    """

    question: Question
    position: Rows
    is_fitted_on: NDArray[np.bool_]
    head: Head
    blocks: list[tuple[slice, Pipeline]] = field(default_factory=list)
    bag: BagStream | None = None

    @classmethod
    def begin(
        cls,
        question: Question,
        position: Rows,
        train: Rows,
        settings: HeadSettings,
    ) -> "StreamedHead":
        """Prepare to fit a head on some of a question's rows.

        Parameters
        ----------
        question : Question
        position : ndarray of shape (n_train,), intp
            As the attribute.
        train : ndarray of intp
            Positions, among the question's rows, of those to fit.
        settings : HeadSettings
        """
        is_fitted_on = np.zeros(len(question.rows), bool)
        is_fitted_on[train] = True
        truth = question.truth[train]
        known = KnownClasses.of(truth, question.exclusive)
        if not len(known.learnt):
            nothing = ConstantHead(known, question.columns)
            return cls(question, position, is_fitted_on, nothing)
        estimator = build_head(
            settings,
            len(train),
            label_sets=not question.exclusive,
            widths=widths_of(question.columns),
        )
        first = estimator.steps[0][1]
        blocks = [(slice(None), estimator[:-1])]
        if isinstance(first, ColumnTransformer):
            blocks = [(columns, steps) for _, steps, columns in first.transformers]
        head = FeatureHead(known, question.columns, estimator)
        return cls(question, position, is_fitted_on, head, blocks)

    @property
    def is_learnt(self) -> bool:
        """Whether there is anything to learn."""
        return isinstance(self.head, FeatureHead)

    def class_counts(self) -> tuple[Rows, Rows]:
        """Classes that are learnt, as the classifier knows them, and how many rows have each."""
        known, truth = self.head.known, self.question.truth[self.is_fitted_on]
        counts, classes = truth.sum(axis=0)[known.learnt], known.learnt
        if not known.exclusive and len(classes) == 1:
            # A single label is yes or no.
            return np.array([0, 1]), np.array([len(truth) - counts[0], counts[0]])
        return classes, counts

    def begin_bag(self, n_passes: int) -> None:
        """Prepare to fit a bag.

        Parameters
        ----------
        n_passes : int
        """
        if isinstance(self.head, FeatureHead):
            classes, counts = self.class_counts()
            bag: Any = self.head.estimator.steps[-1][1]
            bag.set_params(max_iter=n_passes)
            self.bag = bag.begin_stream(
                classes,
                counts,
                int(np.count_nonzero(self.is_fitted_on)),
                label_sets=self.head.known.as_label_sets,
            )

    @property
    def n_steps(self) -> int:
        """Number of steps before the bag, in each block."""
        return max((len(steps) for _, steps in self.blocks), default=0)

    def learn_step(self, number: int, X: Features, rows: Rows) -> None:
        """Let a step learn from a chunk; the steps before it are fitted.

        Parameters
        ----------
        number : int
        X : ndarray of shape (n_chunk, n_features)
        rows : ndarray of shape (n_chunk,), intp
            Which training rows the chunk holds.
        """
        chosen, _ = self.fitted_rows(rows)
        for part in _in_parts(chosen):
            features = side_by_side(X, self.question.columns, part)
            for columns, steps in self._blocks_with(number):
                block = features[:, columns]
                block = steps[:number].transform(block) if number else block
                steps.steps[number][1].partial_fit(block)

    def end_step(self, number: int) -> None:
        """Check a step that has read all rows.

        Raises
        ------
        FitError
            If it leaves no feature.
        """
        for _, steps in self._blocks_with(number):
            if hasattr(step := steps.steps[number][1], "require_features"):
                step.require_features()

    def end_steps(self) -> None:
        """Tell the pipeline that the steps of its blocks are fitted."""
        if not isinstance(self.head, FeatureHead):
            return
        first = self.head.estimator.steps[0][1]
        if isinstance(first, ColumnTransformer):
            fitted = [
                (name, FrozenEstimator(steps), columns)
                for (name, _, columns), (_, steps) in zip(
                    first.transformers, self.blocks, strict=True
                )
            ]
            width = sum(widths_of(self.question.columns))
            first.set_params(transformers=fitted).fit(np.zeros((1, width), np.float32))

    def learn(self, X: Features, rows: Rows, n_jobs: int) -> None:
        """Take the bag's steps over a chunk.

        Parameters
        ----------
        X, rows
            See `learn_step`.
        n_jobs : int
            Threads.
        """
        chosen, positions = self.fitted_rows(rows)
        if self.bag is None or not len(chosen):
            return
        targets = self.head.known.targets(self.question.truth[positions])
        self.bag.learn(self._prepared(X, chosen), targets, n_jobs=n_jobs)

    def finish(self) -> None:
        """Finish the bag after the last pass, and let go of all that only steps need."""
        if self.bag is not None:
            self.bag.finish()
            self.bag = None

    @property
    def fold(self) -> Fold:
        """The question's rows that the head is not fitted on."""
        return Fold(np.flatnonzero(~self.is_fitted_on), self.head.known)

    def hold_out(self, held_out: HeldOut, X: Features, rows: Rows) -> None:
        """Write what the head predicts for the rows of a chunk it is not fitted on.

        Parameters
        ----------
        held_out : HeldOut
            Of all the question's rows.
        X, rows
            See `learn_step`.
        """
        positions = self.position[rows]
        chosen = np.flatnonzero((positions >= 0) & ~self.is_fitted_on[positions])
        features = X[chosen]
        held_out.write(
            rows[chosen], self.head.predict_proba(features), self.head.decision_scores(features)
        )

    def fitted_rows(self, rows: Rows) -> tuple[Rows, Rows]:
        """Rows of a chunk that are fitted on.

        Parameters
        ----------
        rows : ndarray of shape (n_chunk,), intp
            Which training rows the chunk holds.

        Returns
        -------
        chosen, positions : ndarray of intp
            Positions in the chunk, and in the question.
        """
        positions = self.position[rows]
        chosen = np.flatnonzero((positions >= 0) & self.is_fitted_on[positions])
        return chosen, positions[chosen]

    def _prepared(self, X: Features, chosen: Rows) -> NDArray[np.float32]:
        """What the bag reads of some rows of a chunk."""
        assert isinstance(self.head, FeatureHead)
        steps, prepared = self.head.estimator[:-1], np.empty((0, 0), np.float32)
        n_done = 0
        for part in _in_parts(chosen):
            features = steps.transform(side_by_side(X, self.question.columns, part))
            if not n_done:
                prepared = np.empty((len(chosen), features.shape[1]), np.float32)
            prepared[n_done : n_done + len(part)] = features
            n_done += len(part)
        return prepared

    def _blocks_with(self, number: int) -> list[tuple[slice, Pipeline]]:
        """Blocks that have a step of this number: other heads may have more steps."""
        return [(columns, steps) for columns, steps in self.blocks if number < len(steps)]


def _in_parts(rows: Rows) -> Iterator[Rows]:
    return (rows[start : start + _ROWS_AT_ONCE] for start in range(0, len(rows), _ROWS_AT_ONCE))
