"""Calibration: decision scores -> probabilities, learnt on rows that the head was not fitted on.

scikit-learn's CalibratedClassifierCV does not fit here. Given scores instead of features it keeps
the row indices of its folds in the saved model, refuses classes that the rows lack, and mistakes
scores for probabilities where a batch of them happens to sum to 1. The tests compare with it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from featurepipe.models.answers.arrays import Probabilities, Scores, Truth
from featurepipe.probabilities import normalized

CALIBRATIONS = ("sigmoid", "isotonic", "temperature", "none")
AUTO = "auto"

Curve = TypeVar("Curve")

# Little enough to stay in the processor's cache.
_ROWS_AT_ONCE = 1024


class Calibrator(Protocol):
    """Turns decision scores into probabilities."""

    def predict_proba(self, scores: Scores) -> Probabilities:
        """Probability of each class.

        Parameters
        ----------
        scores : ndarray of shape (n_samples, n_classes), float64
            Decision scores, finite.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float64
            In [0, 1]; rows sum to 1 if the classes are exclusive.
        """


@dataclass(frozen=True)
class SoftmaxCalibrator:
    """Temperature scaling of exclusive classes: ``softmax(slope * scores)``.

    Attributes
    ----------
    slope : float
        One over the temperature.
    """

    slope: float

    def predict_proba(self, scores: Scores) -> Probabilities:
        """Probability of each class; see `Calibrator`."""
        return softmax(self.slope * scores, axis=1)


@dataclass(frozen=True)
class LogisticCalibrator:
    """A logistic curve for each class, ``1 / (1 + exp(-(slope * score + intercept)))``.

    Attributes
    ----------
    slopes, intercepts : ndarray of shape (n_classes,), float64
    exclusive : bool
        Whether rows are divided by their sum.
    """

    slopes: NDArray[np.float64]
    intercepts: NDArray[np.float64]
    exclusive: bool

    def predict_proba(self, scores: Scores) -> Probabilities:
        """Probability of each class; see `Calibrator`."""
        probabilities = expit(scores * self.slopes + self.intercepts)
        return normalized(probabilities) if self.exclusive else probabilities


@dataclass(frozen=True)
class IsotonicCalibrator:
    """A rising step curve for each class.

    Attributes
    ----------
    curves : list of IsotonicRegression
        One for each class.
    exclusive : bool
        Whether rows are divided by their sum.
    """

    curves: list[IsotonicRegression]
    exclusive: bool

    def predict_proba(self, scores: Scores) -> Probabilities:
        """Probability of each class; see `Calibrator`."""
        columns = [
            curve.predict(column) for curve, column in zip(self.curves, scores.T, strict=True)
        ]
        probabilities = np.column_stack(columns)
        return normalized(probabilities) if self.exclusive else probabilities


def calibration_for(method: str, *, exclusive: bool) -> str:
    """Resolve ``auto``: the method with the lowest log-loss in benchmarks/calibration.py.

    Parameters
    ----------
    method : str
        ``"auto"``, or one of `CALIBRATIONS`, which is returned as it is.
    exclusive : bool
        Temperature was the best on every set of exclusive classes. On sets of labels an
        intercept costs a little where labels are easy, and gains much where they are not.
    """
    if method != AUTO:
        return method
    return "temperature" if exclusive else "sigmoid"


def fit_calibrator(method: str, scores: Scores, truth: Truth, *, exclusive: bool) -> Calibrator:
    """Fit a calibrator.

    Parameters
    ----------
    method : {"sigmoid", "isotonic", "temperature"}
        ``"temperature"``: one slope for all exclusive classes (Guo et al. 2017, On
        calibration of modern neural networks), or one for each label. ``"sigmoid"``: slope
        and intercept for each class (Platt 1999, Probabilistic outputs for support vector
        machines). ``"isotonic"``: a rising step curve for each class (Zadrozny & Elkan
        2002). The last two are divided by their sum where classes are exclusive.
    scores : ndarray of shape (n_samples, n_classes), float64
        Decision scores of rows that the head was not fitted on, finite.
    truth : ndarray of shape (n_samples, n_classes), bool
        Which classes each row has. A class that all rows or no row has gets the curve of
        all classes together.
    exclusive : bool
        True if each row has exactly one class.

    Returns
    -------
    Calibrator
    """
    if method == "temperature" and exclusive:
        return SoftmaxCalibrator(_softmax_slope(scores, truth))
    if method == "isotonic":
        return IsotonicCalibrator(_for_each_class(_rising_curve, scores, truth), exclusive)
    curve = {"sigmoid": _platt_curve, "temperature": _logistic_slope}[method]
    slopes, intercepts = np.array(_for_each_class(curve, scores, truth)).T
    return LogisticCalibrator(slopes, intercepts, exclusive)


def _for_each_class(
    fit_curve: Callable[[Scores, Truth], Curve], scores: Scores, truth: Truth
) -> list[Curve]:
    is_mixed = np.asarray(truth.any(axis=0) & ~truth.all(axis=0))
    curves: list[Curve] = []
    for c in range(scores.shape[1]):
        column = np.s_[:, c] if is_mixed[c] else np.s_[:]
        curves.append(fit_curve(scores[column].ravel(), truth[column].ravel()))
    return curves


def _rising_curve(scores: Scores, truth: Truth) -> IsotonicRegression:
    return IsotonicRegression(out_of_bounds="clip").fit(scores, truth)


def _platt_curve(scores: Scores, truth: Truth) -> tuple[float, float]:
    # Platt's targets keep rows that a threshold separates from an infinite slope.
    n_true = truth.sum()
    targets = np.where(truth, (n_true + 1) / (n_true + 2), 1 / (len(truth) - n_true + 2))
    # A row with a target between 0 and 1 counts partly for either side.
    scale = _scale(scores)
    doubled = np.concatenate([scores, scores])[:, None] / scale
    sides = np.repeat([1, 0], len(scores))
    weights = np.concatenate([targets, 1 - targets])
    curve = LogisticRegression(C=np.inf, tol=1e-6).fit(doubled, sides, sample_weight=weights)
    return float(curve.coef_[0, 0]) / scale, float(curve.intercept_[0])


def _softmax_slope(scores: Scores, truth: Truth) -> float:
    doubt = _doubt(scores)
    of_true, of_others = 1 - doubt, doubt / (scores.shape[1] - 1)

    def losses(logits: Scores, truth: Truth) -> NDArray[np.float64]:
        targets = np.where(truth, of_true, of_others)
        return -(targets * log_softmax(logits, axis=1)).sum(axis=1)

    return _best_slope(scores, truth, losses)


def _logistic_slope(scores: Scores, truth: Truth) -> tuple[float, float]:
    doubt = _doubt(scores)

    def losses(logits: Scores, truth: Truth) -> NDArray[np.float64]:
        targets = np.where(truth, 1 - doubt, doubt)
        return -(targets * log_expit(logits) + (1 - targets) * log_expit(-logits))

    return _best_slope(scores, truth, losses), 0.0


def _doubt(scores: Scores) -> float:
    # As in Platt's targets: if all n rows are right, the estimate is a probability of
    # (n + 1) / (n + 2), not certainty.
    return 1 / (len(scores) + 2)


def _best_slope(
    scores: Scores, truth: Truth, losses: Callable[[Scores, Truth], NDArray[np.float64]]
) -> float:
    """The slope with the lowest mean loss of a row, computed on some rows at a time."""
    scale, of_rows = _scale(scores), np.empty(len(scores))

    def mean_loss(log_slope: float) -> float:
        for start in range(0, len(scores), _ROWS_AT_ONCE):
            at = slice(start, start + _ROWS_AT_ONCE)
            of_rows[at] = losses(np.exp(log_slope) / scale * scores[at], truth[at])
        return float(of_rows.mean())

    minimum = minimize_scalar(mean_loss, bounds=(-10, 10), method="bounded")
    return float(np.exp(minimum.x)) / scale


def _scale(scores: Scores) -> float:
    return float(np.sqrt(np.vdot(scores, scores) / scores.size)) or 1.0
