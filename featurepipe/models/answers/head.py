"""Head: scores and probabilities of the classes of one question.

A `FeatureHead` reads features with an estimator. A `ScoreHead` takes the scores of a trained
network. A `ConstantHead` had nothing to learn.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from scipy.special import expit, logit, softmax
from sklearn.pipeline import Pipeline

from featurepipe.errors import FitError
from featurepipe.models.answers.arrays import (
    Columns,
    Features,
    Probabilities,
    Rows,
    Scores,
    Truth,
    side_by_side,
)
from featurepipe.models.answers.calibration import Calibrator

# Probabilities of 0, as forests give, would have infinite scores.
_LEAST_PROBABILITY = 1e-4


@dataclass(frozen=True)
class KnownClasses:
    """Which classes can be learnt from some rows, and the probability of the others.

    Attributes
    ----------
    learnt : ndarray of shape (n_learnt,), intp
        Columns of the classes that some rows have and others lack.
    constant : ndarray of shape (n_classes,), float64
        Probability of the other classes: 1 if every row has the class, else 0.
    exclusive : bool
        True if every image has exactly one class.
    """

    learnt: Rows
    constant: Probabilities
    exclusive: bool

    @classmethod
    def of(cls, truth: Truth, exclusive: bool) -> Self:
        """The classes known from some rows.

        Parameters
        ----------
        truth : ndarray of shape (n_rows, n_classes), bool
        exclusive : bool
        """
        everywhere = np.asarray(truth.all(axis=0))
        learnt = np.flatnonzero(truth.any(axis=0) & ~everywhere)
        return cls(learnt, everywhere.astype(np.float64), exclusive)

    @property
    def as_label_sets(self) -> bool:
        """Whether `targets` are an indicator of sets of labels."""
        return not self.exclusive and len(self.learnt) > 1

    def targets(self, truth: Truth) -> Rows:
        """The truth as scikit-learn takes it.

        Parameters
        ----------
        truth : ndarray of shape (n_rows, n_classes), bool

        Returns
        -------
        ndarray of shape (n_rows,) or (n_rows, n_learnt), intp
            Codes of exclusive classes; 0 and 1 for a single label; else an indicator.
        """
        if self.exclusive:
            return truth.argmax(axis=1)
        columns = truth[:, self.learnt].astype(np.intp)
        return columns if self.as_label_sets else columns.ravel()

    def all_scores(self, learnt_scores: Features) -> Scores:
        """Scores of all classes; NaN for those that were not learnt.

        Parameters
        ----------
        learnt_scores : ndarray of shape (n_samples, n_learnt)

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float64
        """
        scores = np.full((len(learnt_scores), len(self.constant)), np.nan)
        scores[:, self.learnt] = learnt_scores
        return scores

    def all_probabilities(self, learnt_probabilities: Features) -> Probabilities:
        """Probabilities of all classes; those that were not learnt have a constant one.

        Parameters
        ----------
        learnt_probabilities : ndarray of shape (n_samples, n_learnt)

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float64
        """
        probabilities = np.tile(self.constant, (len(learnt_probabilities), 1))
        probabilities[:, self.learnt] = learnt_probabilities
        return probabilities


@dataclass(frozen=True)
class Head(ABC):
    """Scores and probabilities of the classes of one question.

    Attributes
    ----------
    known : KnownClasses
    columns : tuple of (int, int)
        The blocks of features that it reads: for each the first column, and the one after the
        last. The rejector reads them too.
    calibrator : Calibrator or None
        What turns scores into probabilities. None keeps uncalibrated probabilities.
    """

    known: KnownClasses
    columns: Columns
    calibrator: Calibrator | None = field(default=None, kw_only=True)

    def decision_scores(self, X: Features) -> Scores:
        """Decision score of each class.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)
            All columns, whichever of them the head reads.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float64
            NaN for classes that were not learnt.
        """
        return self.known.all_scores(self._learnt_scores(X) if len(X) else self._of_no_rows())

    def predict_proba(self, X: Features) -> Probabilities:
        """Probability of each class.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float64
            In [0, 1]. Rows of exclusive classes sum to 1, to the precision of `X`.
        """
        if not len(X):
            return self.known.all_probabilities(self._of_no_rows())
        if self.calibrator is None:
            return self.known.all_probabilities(self._uncalibrated(X))
        scores = self._learnt_scores(X).astype(np.float64)
        return self.known.all_probabilities(self.calibrator.predict_proba(scores))

    def select(self, X: Features) -> Features:
        """The columns that the head reads.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_read)
        """
        return side_by_side(X, self.columns)

    def _of_no_rows(self) -> Scores:
        return np.empty((0, len(self.known.learnt)))

    @abstractmethod
    def _learnt_scores(self, X: Features) -> Features:
        """Scores of the learnt classes: ndarray of shape (n_samples, n_learnt)."""

    @abstractmethod
    def _uncalibrated(self, X: Features) -> Features:
        """Probabilities of the learnt classes: ndarray of shape (n_samples, n_learnt)."""


@dataclass(frozen=True)
class FeatureHead(Head):
    """A head that reads features with a fitted estimator.

    Attributes
    ----------
    known, columns, calibrator
        See `Head`.
    estimator : Pipeline
    tuned : dict
        What was chosen for it by `featurepipe.models.heads.tuning.fit_tuned_head`; empty if
        nothing was tuned.
    """

    estimator: Pipeline
    tuned: dict[str, Any] = field(default_factory=dict)

    def _learnt_scores(self, X: Features) -> Features:
        features = self.select(X)
        if not hasattr(self.estimator, "decision_function"):
            return self._log_probabilities(features)
        scores = self.estimator.decision_function(features).reshape(len(X), -1)
        # scikit-learn scores two exclusive classes with one number.
        if self.known.exclusive and len(self.known.learnt) == 2:
            scores = scores * [-1, 1]
        return self._in_order(scores)

    def _uncalibrated(self, X: Features) -> Features:
        if hasattr(self.estimator, "predict_proba"):
            return self._probabilities(self.select(X))
        scores = self._learnt_scores(X)
        return softmax(scores, axis=1) if self.known.exclusive else expit(scores)

    def _probabilities(self, features: Features) -> Features:
        probabilities = self.estimator.predict_proba(features)
        if not self.known.exclusive:
            # For a single label there is a column for its absence, too.
            probabilities = probabilities[:, -len(self.known.learnt) :]
        return self._in_order(probabilities)

    def _log_probabilities(self, features: Features) -> Features:
        """Logarithms of exclusive probabilities, log-odds of labels."""
        probabilities = self._probabilities(features).astype(np.float64)
        probabilities = np.clip(probabilities, _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
        return np.log(probabilities) if self.known.exclusive else logit(probabilities)

    def _in_order(self, columns: Features) -> Features:
        """Columns in the order of the classes, which the estimator may have in another one."""
        learnt = self.known.learnt
        if columns.shape[1] != len(learnt):
            raise FitError(
                f"The head has {columns.shape[1]} scores for {len(learnt)} classes. Use a head, or "
                "parameters, with one score for each class."
            )
        if not np.isfinite(columns).all():
            raise FitError("The head has scores that are not finite. Use another head.")
        if not self.known.exclusive:
            return columns
        classes = np.asarray(getattr(self.estimator, "classes_", learnt))
        if not np.array_equal(np.sort(classes), learnt):
            raise FitError(
                f"The head has the classes {classes.tolist()}, but was fitted on "
                f"{learnt.tolist()}. Use a head that learns its classes when it is fitted."
            )
        return columns[:, np.argsort(classes)]


@dataclass(frozen=True)
class ScoreHead(Head):
    """A head that takes the scores of a trained network.

    Attributes
    ----------
    known, calibrator
        See `Head`.
    columns : tuple of (int, int)
        The network's embedding.
    scores : tuple of (int, int)
        First column of the scores of all classes, and the one after the last.
    """

    scores: tuple[int, int]

    def _learnt_scores(self, X: Features) -> Features:
        return X[:, slice(*self.scores)][:, self.known.learnt].astype(np.float64)

    def _uncalibrated(self, X: Features) -> Features:
        scores = self._learnt_scores(X)
        if not scores.size:
            return scores
        return softmax(scores, axis=1) if self.known.exclusive else expit(scores)


@dataclass(frozen=True)
class ConstantHead(Head):
    """A head without classes to tell apart: every training row had the same ones."""

    def _learnt_scores(self, X: Features) -> Features:
        return np.empty((len(X), 0))

    def _uncalibrated(self, X: Features) -> Features:
        return np.empty((len(X), 0))
