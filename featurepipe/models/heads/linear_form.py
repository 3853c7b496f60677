"""LinearForm: the scores of a linear head as weights of the features it is given.

Steps that prepare features are folded in from the last to the first: where a step computes
``(x - shift) / scale`` of a selection of its columns, weights of its output become weights of its
input, and its shift becomes part of the intercept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import BaggingClassifier
from sklearn.feature_selection import SelectorMixin
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from featurepipe.errors import NotLinearError
from featurepipe.models.answers.arrays import Features, Rows, Scores
from featurepipe.models.answers.calibration import LogisticCalibrator, SoftmaxCalibrator
from featurepipe.models.answers.head import ConstantHead, FeatureHead, Head
from featurepipe.models.heads.estimators.bagged_sgd import BaggedSGDClassifier
from featurepipe.models.heads.estimators.logistic import LogisticSweep
from featurepipe.models.heads.estimators.scaling import BlockScale, CommonScale

_SCORED_BY_WEIGHTS = (BaggedSGDClassifier, LogisticSweep, LogisticRegression, SGDClassifier)

_Numbers = NDArray[np.float64]
_Form = tuple[_Numbers, _Numbers]
"""Weights of shape (n_outputs, n_features) and intercepts of shape (n_outputs,)."""


@dataclass(frozen=True)
class LinearForm:
    """Scores as ``X @ weights.T + intercepts``.

    Attributes
    ----------
    learnt : ndarray of shape (n_learnt,), intp
        Columns of the classes that have a score, among all classes of the head.
    weights : ndarray of shape (n_learnt, n_read), float64
        Of the features that the head reads: `Head.select` of all features.
    intercepts : ndarray of shape (n_learnt,), float64
    """

    learnt: Rows
    weights: NDArray[np.float64]
    intercepts: NDArray[np.float64]

    def scores(self, selected: Features) -> Scores:
        """Scores of the learnt classes.

        Parameters
        ----------
        selected : ndarray of shape (n_samples, n_read)
            What `Head.select` returns.

        Returns
        -------
        ndarray of shape (n_samples, n_learnt), float64
        """
        return selected.astype(np.float64) @ self.weights.T + self.intercepts


def linear_form(head: Head) -> LinearForm:
    """The decision scores of a head before calibration, as a linear function of features.

    Parameters
    ----------
    head : Head

    Returns
    -------
    LinearForm
        Its scores are those of `Head.decision_scores`, to the precision of the features.

    Raises
    ------
    NotLinearError
        If they are no such function: of neighbours, kernels, rows of length 1, heads of one's own
        and trained networks.
    """
    if isinstance(head, ConstantHead):
        raise NotLinearError("every training image has the same classes")
    if not isinstance(head, FeatureHead):
        raise NotLinearError("a trained network is not linear")
    weights, intercepts = _form_of(head.estimator)
    if head.known.exclusive:
        # scikit-learn scores two exclusive classes by one number.
        if len(head.known.learnt) == 2:
            weights, intercepts = np.vstack([-weights, weights]), np.repeat(intercepts, 2) * [-1, 1]
        order = np.argsort(head.estimator.classes_)
        weights, intercepts = weights[order], intercepts[order]
    return LinearForm(head.known.learnt, weights, intercepts)


def calibrated_form(head: Head) -> LinearForm:
    """The scores of a head after calibration, where that keeps them linear.

    ``softmax`` of them, or a logistic curve for each class, gives the probabilities of a head that
    is calibrated by temperature or sigmoid. An isotonic curve has steps and no slope, and without
    calibration there is nothing to fold in: then these are the scores before calibration.

    Parameters
    ----------
    head : Head

    Raises
    ------
    NotLinearError
        See `linear_form`.
    """
    form, calibrator = linear_form(head), head.calibrator
    if isinstance(calibrator, SoftmaxCalibrator):
        slope = calibrator.slope
        return LinearForm(form.learnt, slope * form.weights, slope * form.intercepts)
    if isinstance(calibrator, LogisticCalibrator):
        slopes = calibrator.slopes
        intercepts = slopes * form.intercepts + calibrator.intercepts
        return LinearForm(form.learnt, slopes[:, None] * form.weights, intercepts)
    return form


def prepared_columns(steps: Pipeline, n_features: int) -> tuple[_Numbers, _Numbers]:
    """How steps prepare features: ``scale x + shift`` of the columns that they keep, in order.

    Parameters
    ----------
    steps : Pipeline
        Fitted.
    n_features : int
        Columns that they read.

    Returns
    -------
    scales, shifts : ndarray of shape (n_features,), float64
        0 for columns that are not kept.

    Raises
    ------
    NotLinearError
        If the steps do something else.
    """
    of_zeros = steps.transform(np.zeros((1, n_features)))
    of_all = [step for _, step in steps.steps]
    weights, _ = _before(of_all, np.ones((1, of_zeros.shape[1])), np.zeros(1))
    shifts = np.zeros(n_features)
    shifts[weights[0] != 0] = of_zeros[0]
    return weights[0], shifts


def _form_of(estimator: BaseEstimator) -> _Form:
    if isinstance(estimator, Pipeline):
        *steps, (_, classifier) = estimator.steps
        return _before([step for _, step in steps], *_form_of(classifier))
    if isinstance(estimator, OneVsRestClassifier):
        forms = [_form_of(of_class) for of_class in estimator.estimators_]
        return np.vstack([form[0] for form in forms]), np.concatenate([form[1] for form in forms])
    if isinstance(estimator, BaggingClassifier):
        return _mean_of_members(estimator)
    # A class derived from one of these may score otherwise.
    if type(estimator) not in _SCORED_BY_WEIGHTS:
        raise NotLinearError(f"{type(estimator).__name__} is not linear")
    weights = np.atleast_2d(estimator.coef_).astype(np.float64)
    intercepts = getattr(estimator, "intercept_", 0.0)
    return weights, np.broadcast_to(np.asarray(intercepts, np.float64), len(weights))


def _mean_of_members(bag: BaggingClassifier) -> _Form:
    forms = [_form_of(member) for member in bag.estimators_]
    if len({len(intercepts) for _, intercepts in forms}) > 1:
        raise NotLinearError("members of the bag know different classes")
    weights = np.zeros((len(forms[0][0]), bag.n_features_in_))
    for (of_member, _), drawn in zip(forms, bag.estimators_features_, strict=True):
        # A member may have drawn a feature several times.
        weights += [np.bincount(drawn, row, bag.n_features_in_) for row in of_member]
    return weights / len(forms), np.mean([intercepts for _, intercepts in forms], axis=0)


def _before(steps: Sequence[BaseEstimator], weights: _Numbers, intercepts: _Numbers) -> _Form:
    """Weights of what the first of some steps reads, from weights of what the last returns."""
    for step in reversed(steps):
        if isinstance(step, SelectorMixin):
            kept, of_kept = step.get_support(), weights
            weights = np.zeros((len(of_kept), len(kept)))
            weights[:, kept] = of_kept
        elif isinstance(step, CommonScale | BlockScale):
            weights = weights / step.divisor_
        elif isinstance(step, StandardScaler):
            weights = weights if step.scale_ is None else weights / step.scale_
            if step.with_mean:
                intercepts = intercepts - weights @ step.mean_
        elif isinstance(step, ColumnTransformer):
            weights, intercepts = _before_blocks(step, weights, intercepts)
        else:
            raise NotLinearError(f"the step {type(step).__name__} before the head is not linear")
    return weights, intercepts


def _before_blocks(step: ColumnTransformer, weights: _Numbers, intercepts: _Numbers) -> _Form:
    found = np.zeros((len(weights), step.n_features_in_))
    for name, block, columns in step.transformers_:
        if block == "drop":
            continue
        if isinstance(block, FrozenEstimator):
            # A head that was fitted chunk by chunk.
            block = block.estimator
        if not isinstance(block, Pipeline):
            raise NotLinearError(f"the step {name} before the head is not linear")
        of_block = weights[:, step.output_indices_[name]]
        steps = [inner for _, inner in block.steps]
        found[:, columns], intercepts = _before(steps, of_block, intercepts)
    return found, intercepts
