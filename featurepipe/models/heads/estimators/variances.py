"""Variances learnt chunk by chunk, and the steps that remove features which hardly vary."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.feature_selection import SelectorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from featurepipe.errors import FitError, UsageError

# Rows whose float64 numbers stay in the processor's cache: learning is three times as fast, and
# takes little memory.
_ROWS_AT_ONCE = 64


def in_parts(X: NDArray[np.floating]) -> Iterator[NDArray[np.floating]]:
    """Some rows at a time, so few that copies of them in float64 take little memory.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features)
    """
    return (X[start : start + _ROWS_AT_ONCE] for start in range(0, len(X), _ROWS_AT_ONCE))


class ChunkLearner(BaseEstimator):
    """A step that learns from all rows at once, or chunk by chunk.

    Attributes
    ----------
    n_samples_seen_ : int
    """

    n_samples_seen_: int

    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Learn from all rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Finite.
        y : ignored
        """
        self.__dict__.pop("n_samples_seen_", None)
        return self.partial_fit(X)

    @abstractmethod
    def partial_fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Learn from the next chunk of rows.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            Finite.
        y : ignored
        """

    def _take_chunk(self, X: ArrayLike) -> tuple[NDArray[np.floating], float]:
        """Count a chunk; its features, and its share of all rows seen so far."""
        n_before = getattr(self, "n_samples_seen_", 0)
        features = validate_data(self, X, dtype=(np.float64, np.float32), reset=not n_before)
        self.n_samples_seen_ = n_before + len(features)
        return features, len(features) / self.n_samples_seen_


class VarianceLearner(ChunkLearner):
    """A step that learns each feature's variance, exactly 0 for constant features.

    Attributes
    ----------
    variances_ : ndarray of shape (n_features,), float64
    n_samples_seen_ : int
    """

    variances_: NDArray[np.float64]
    _means: NDArray[np.float64]
    _spreads: NDArray[np.float64]
    _lowest: NDArray[np.floating]
    _highest: NDArray[np.floating]

    def _learn_variances(self, X: ArrayLike) -> None:
        features, _ = self._take_chunk(X)
        n_before = self.n_samples_seen_ - len(features)
        for part in in_parts(features):
            n_before += len(part)
            self._add(part, len(part) / n_before)
        # Rounding gives a constant feature a tiny variance, which would survive where every
        # feature is constant.
        self.variances_ = np.where(self._highest > self._lowest, self._spreads, 0.0)

    def _add(self, part: NDArray[np.floating], share: float) -> None:
        distances = part.astype(np.float64)
        means = distances.mean(axis=0)
        distances -= means
        spreads = np.square(distances, out=distances).mean(axis=0)
        lowest, highest = part.min(axis=0), part.max(axis=0)
        if share < 1:
            # Chan, Golub and LeVeque (1983), Algorithms for computing the sample variance.
            moved = means - self._means
            spreads = (1 - share) * self._spreads + share * spreads
            spreads += share * (1 - share) * moved**2
            means = self._means + share * moved
            lowest, highest = np.minimum(lowest, self._lowest), np.maximum(highest, self._highest)
        self._means, self._spreads, self._lowest, self._highest = means, spreads, lowest, highest


class _VarianceThreshold(SelectorMixin, VarianceLearner):
    """Keep the features with a variance above `threshold_`."""

    threshold_: float

    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Learn which features to keep.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Finite.
        y : ignored

        Raises
        ------
        FitError
            If no feature is left.
        """
        return super().fit(X).require_features()

    def partial_fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Learn from the next chunk of rows; no feature may be left yet.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            Finite.
        y : ignored
        """
        self._learn_variances(X)
        self.threshold_ = self._threshold()
        return self

    def require_features(self) -> Self:
        """Raise an error if no feature is left.

        Raises
        ------
        FitError
            With the largest variance.
        """
        largest = self.variances_.max()
        if largest == 0:
            raise FitError(
                "Every feature is constant: all training images have the same features. Check the "
                "images and the backbone's weights."
            )
        if largest <= self.threshold_:
            raise FitError(
                f"No feature is left: the largest variance is {largest:.3g}, the threshold "
                f"{self.threshold_:.3g}. Set --variance-threshold 1% or a number below "
                f"{largest:.3g}."
            )
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.floating]:
        """Keep the features that vary enough.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_kept), dtype of `X`
        """
        check_is_fitted(self)
        features = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        # NumPy selects columns by a mask ten times as slowly.
        return features.take(self.get_support(indices=True), axis=1)

    @abstractmethod
    def _threshold(self) -> float:
        """The largest variance that is removed."""

    def _get_support_mask(self) -> NDArray[np.bool_]:
        check_is_fitted(self)
        return self.variances_ > self.threshold_


class RelativeVarianceThreshold(_VarianceThreshold):
    """Keep the features with a variance above a share of the mean variance.

    An absolute threshold does not carry over between backbones: 0.1 suits the features of one
    and removes every feature of another. A share of the mean does.

    Parameters
    ----------
    share : float
        0.01 keeps features that vary by more than 1 % of the mean variance.

    Attributes
    ----------
    variances_ : ndarray of shape (n_features,), float64
        Variance of each feature, exactly 0 for constant ones.
    threshold_ : float
        `share` times the mean of `variances_`.
    n_samples_seen_ : int
    """

    def __init__(self, share: float = 0.01) -> None:
        self.share = share

    def _threshold(self) -> float:
        return float(self.share * self.variances_.mean())


class AbsoluteVarianceThreshold(_VarianceThreshold):
    """Keep the features with a variance above a number, as scikit-learn's VarianceThreshold does.

    Parameters
    ----------
    threshold : float

    Attributes
    ----------
    variances_ : ndarray of shape (n_features,), float64
        Variance of each feature, exactly 0 for constant ones.
    threshold_ : float
    n_samples_seen_ : int
    """

    def __init__(self, threshold: float = 0.0) -> None:
        self.threshold = threshold

    def _threshold(self) -> float:
        return self.threshold


def build_variance_threshold(text: str) -> RelativeVarianceThreshold | AbsoluteVarianceThreshold:
    """Build the step that removes features which hardly vary.

    Parameters
    ----------
    text : str
        ``"1%"`` of the mean variance, or a number in the features' unit squared.

    Raises
    ------
    UsageError
        If the text is neither, or is negative.

    Examples
    --------
    >>> build_variance_threshold("1%")
    RelativeVarianceThreshold()
    >>> build_variance_threshold("0.1")
    AbsoluteVarianceThreshold(threshold=0.1)
    """
    number, percent, rest = text.strip().partition("%")
    try:
        value = float(number)
    except ValueError:
        value = np.nan
    if rest or not 0 <= value < np.inf:
        raise UsageError(
            f"The variance threshold {text!r} cannot be read. Give a share of the mean variance "
            "such as 1%, or a number such as 0.01."
        )
    return RelativeVarianceThreshold(value / 100) if percent else AbsoluteVarianceThreshold(value)
