"""HeadModel: the fitted heads of one run, and what they say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax
from sklearn.pipeline import Pipeline

from featurepipe.models.answers.calibration import Calibrator
from featurepipe.models.answers.rejection import Rejector
from featurepipe.predictions import answer_confidence, normalized

ALL_LABELS = "all labels"
COMBINATIONS = "combinations"

Features = NDArray[np.floating]
Probabilities = NDArray[np.float64]
Rows = NDArray[np.intp]
Columns = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Head:
    """One fitted estimator and what makes probabilities of its scores.

    Attributes
    ----------
    estimator : Pipeline or None
        None if its rows left nothing to tell apart.
    learnt : ndarray of shape (n_learnt,), intp
        Columns of the classes that the estimator tells apart.
    constant : ndarray of shape (n_classes,), float64
        Probability of the other classes: 1 if every row had the class, else 0.
    exclusive : bool
        True if every image has exactly one class.
    columns : tuple of (int, int)
        First column of each block of features that it reads, and the one after its last.
    calibrator : Calibrator or None
        None leaves the estimator's own probabilities.
    tuned : dict or None
        What was chosen, as `featurepipe.models.heads.tuning.fit_tuned_head` says it; None if
        nothing was.
    scored : tuple of (int, int) or None
        Of a network, which gives scores itself: the first column of the scores of all
        classes, and the one after the last. `columns` are its embedding then.
    """

    estimator: Pipeline | None
    learnt: Rows
    constant: Probabilities
    exclusive: bool
    columns: Columns
    calibrator: Calibrator | None = None
    tuned: dict[str, Any] | None = None
    scored: tuple[int, int] | None = None

    def decision_scores(self, X: Features) -> NDArray[np.float64]:
        """How much speaks for each class.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)
            All columns, whichever of them the head reads.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float64
            NaN for classes that the estimator does not know.
        """
        scores = np.full((len(X), len(self.constant)), np.nan)
        if self.scored is not None:
            scores[:, self.learnt] = X[:, slice(*self.scored)][:, self.learnt]
        elif self.estimator is not None and len(X):
            of_learnt = self.estimator.decision_function(self.read(X)).reshape(len(X), -1)
            # scikit-learn scores two exclusive classes by one number.
            if self.exclusive and len(self.learnt) == 2:
                of_learnt = of_learnt * [-1, 1]
            scores[:, self.learnt] = of_learnt
        return scores

    def predict_proba(self, X: Features) -> Probabilities:
        """Probability of each class.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float64
            In [0, 1]; rows sum to 1, to the precision of `X`, if the classes are
            exclusive.
        """
        probabilities = np.tile(self.constant, (len(X), 1))
        if not len(self.learnt) or not len(X):
            return probabilities
        if self.calibrator is None:
            probabilities[:, self.learnt] = self._own_probabilities(X)
        else:
            scores = self.decision_scores(X)[:, self.learnt]
            probabilities[:, self.learnt] = self.calibrator.predict_proba(scores)
        return probabilities

    def read(self, X: Features) -> Features:
        """The features that the head reads: ndarray of shape (n_samples, n_read)."""
        return side_by_side(X, self.columns)

    def _own_probabilities(self, X: Features) -> Probabilities:
        if self.scored is not None:
            scores = self.decision_scores(X)[:, self.learnt]
            return softmax(scores, axis=1) if self.exclusive else expit(scores)
        assert self.estimator is not None
        # OneVsRest over a single label also gives the probability of its absence.
        own = self.estimator.predict_proba(self.read(X))[:, -len(self.learnt) :]
        return own.astype(np.float64)


@dataclass(frozen=True)
class HeadModel:
    """The fitted heads of one run.

    Attributes
    ----------
    task : {"per-attribute", "multi-label", "joint"}
    classes : dict of str to tuple of str
        The classes of each attribute, in the order of the columns.
    exclusive : dict of str to bool
        Whether an image has exactly one class of an attribute.
    heads : dict of str to Head
        By attribute; in the multi-label task one, over the labels of all
        attributes in their order; in the joint task one, over `combinations`.
    combinations : ndarray of shape (n_combinations, n_attributes), intp
        The class of each attribute in each combination that the joint task knows;
        empty in the other tasks.
    thresholds : dict of str to ndarray of shape (n_classes,), float64
        For each attribute the probabilities above which labels of a set are given.
    rejectors : dict of str to Rejector
        What tells, for each attribute, images that are unlike those trained on.
    """

    task: str
    classes: dict[str, tuple[str, ...]]
    exclusive: dict[str, bool]
    heads: dict[str, Head]
    combinations: Rows
    thresholds: dict[str, Probabilities] = field(default_factory=dict)
    rejectors: dict[str, Rejector] = field(default_factory=dict)

    def predict(self, X: Features) -> dict[str, Probabilities]:
        """Raw probabilities, as `featurepipe.predictions.Predictions.scores` has them.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)

        Returns
        -------
        dict of str to ndarray of shape (n_samples, n_classes), float64
            For each attribute.
        """
        return self.by_attribute({name: head.predict_proba(X) for name, head in self.heads.items()})

    def by_attribute(self, of_heads: dict[str, Probabilities]) -> dict[str, Probabilities]:
        """The probabilities that heads give, as probabilities of each attribute's classes.

        Parameters
        ----------
        of_heads : dict of str to ndarray of shape (n_samples, n_classes of the head), float64

        Returns
        -------
        dict of str to ndarray of shape (n_samples, n_classes), float64
            In the joint task, a class has the sum over its combinations.
        """
        n_classes = [len(names) for names in self.classes.values()]
        if self.task == "multi-label":
            parts = np.split(of_heads[ALL_LABELS], np.cumsum(n_classes)[:-1], axis=1)
            return dict(zip(self.classes, parts, strict=True))
        if self.task == "joint":
            return {
                name: np.minimum(of_heads[COMBINATIONS] @ (codes[:, None] == np.arange(n)), 1)
                for name, codes, n in zip(self.classes, self.combinations.T, n_classes, strict=True)
            }
        return {name: of_heads[name] for name in self.classes}

    def p_values(
        self, X: Features, scores: Mapping[str, Probabilities]
    ) -> dict[str, Probabilities]:
        """How much images are like those trained on, in what each attribute's head reads.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)
        scores : dict of str to ndarray of shape (n_samples, n_classes), float64
            What `predict` says of them.

        Returns
        -------
        dict of str to ndarray of shape (n_samples,), float64
            `featurepipe.models.answers.rejection.Rejector.p_values`.
        """
        return {
            name: rejector.p_values(self.head_of(name).read(X), self.confidence(name, scores[name]))
            for name, rejector in self.rejectors.items()
        }

    def head_of(self, attribute: str) -> Head:
        """The head that answers for an attribute."""
        return self.heads.get(attribute) or next(iter(self.heads.values()))

    def confidence(self, attribute: str, scores: Probabilities) -> Probabilities:
        """Probability of each answer to an attribute; see `answer_confidence`.

        Parameters
        ----------
        attribute : str
        scores : ndarray of shape (n_samples, n_classes), float64
            What `predict` says of it.

        Returns
        -------
        ndarray of shape (n_samples,), float64
        """
        exclusive = self.exclusive[attribute]
        return answer_confidence(
            normalized(scores) if exclusive else scores,
            self.thresholds[attribute],
            exclusive=exclusive,
        )

    def in_words(
        self, scores: Mapping[str, Probabilities]
    ) -> dict[str, tuple[tuple[str, ...], Probabilities]]:
        """Classes of each attribute and their probabilities, as a person is told them.

        Parameters
        ----------
        scores : dict of str to ndarray of shape (n_samples, n_classes), float64
            What `predict` says.

        Returns
        -------
        dict of str to tuple of (classes, ndarray of shape (n_samples, n_classes), float64)
            Rows of exclusive attributes sum to 1.
        """
        return {
            name: (self.classes[name], normalized(of_name) if self.exclusive[name] else of_name)
            for name, of_name in scores.items()
        }

    def given(self, attribute: str, scores: Probabilities) -> NDArray[np.bool_]:
        """Which classes are the answer.

        Parameters
        ----------
        attribute : str
        scores : ndarray of shape (n_samples, n_classes), float64
            What `predict` says of it.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), bool
            The most probable one of exclusive classes, else all above their thresholds.
        """
        if self.exclusive[attribute]:
            return np.asarray(scores.argmax(axis=1)[:, None] == np.arange(scores.shape[1]))
        return scores > self.thresholds[attribute]


def side_by_side(X: Features, columns: Columns, rows: Rows | slice = np.s_[:]) -> Features:
    """Some blocks of columns of some rows.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
    columns : tuple of (int, int)
        First column of each block, and the one after its last.
    rows : ndarray of int or slice
        Default: all.

    Returns
    -------
    ndarray of shape (n_rows, n_columns)
        A view where it is a single block of all rows.
    """
    blocks = [X[rows, start:end] for start, end in columns]
    return blocks[0] if len(blocks) == 1 else np.hstack(blocks)
