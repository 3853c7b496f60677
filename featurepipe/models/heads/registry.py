"""Head names and the scikit-learn estimators behind them."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import BaggingClassifier
from sklearn.feature_selection import SelectorMixin, VarianceThreshold
from sklearn.linear_model import SGDClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted, has_fit_parameter, validate_data

from featurepipe.errors import FitError, UnknownNameError, UsageError
from featurepipe.models.heads.estimators.bagged_sgd import BaggedSGDClassifier
from featurepipe.models.heads.estimators.knn import CosineNeighbours
from featurepipe.models.heads.estimators.logistic import LogisticSweep

# Root mean squares within which bagged SGD needs no help. Measured on 600 rows of
# 1,024 features, 10 classes: accuracy 0.10 (chance) at 1e-5, 0.37 at 1e-3, 0.86 at
# 0.01, 0.89 from 0.05 to 1; at 3 a fit takes 4 times as long as at 1, and from 10
# on 10 times, since its 1,000 passes are used up.
ORDINARY_SCALES = (0.03, 3.0)


class _VariancesOfChunks:
    """Variances of features that arrive chunk by chunk, exactly 0 for constant ones."""

    n_samples_seen_: int
    variances_: NDArray[np.float64]
    _means: NDArray[np.float64]
    _spreads: NDArray[np.float64]
    _lowest: NDArray[np.floating]
    _highest: NDArray[np.floating]

    def _forget(self) -> None:
        self.__dict__.pop("n_samples_seen_", None)

    def _learn_variances(self, X: ArrayLike) -> None:
        seen = getattr(self, "n_samples_seen_", 0)
        features = validate_data(self, X, dtype=(np.float64, np.float32), reset=not seen)
        variances: NDArray[np.float64] = np.var(features, axis=0, dtype=np.float64)
        means: NDArray[np.float64] = np.mean(features, axis=0, dtype=np.float64)
        lowest, highest = features.min(axis=0), features.max(axis=0)
        self.n_samples_seen_ = seen + len(features)
        if seen:
            # Chan, Golub and LeVeque (1983), Algorithms for computing the sample variance.
            share = len(features) / self.n_samples_seen_
            moved = means - self._means
            variances = (1 - share) * self._spreads + share * variances
            variances += share * (1 - share) * moved**2
            means = self._means + share * moved
            lowest, highest = np.minimum(lowest, self._lowest), np.maximum(highest, self._highest)
        self._means, self._spreads, self._lowest, self._highest = means, variances, lowest, highest
        # Rounding gives a constant column a tiny variance, which would survive
        # where every column is constant.
        self.variances_ = np.where(highest > lowest, variances, 0.0)


class RelativeVarianceThreshold(_VariancesOfChunks, SelectorMixin, BaseEstimator):
    """Keep the features whose variance is above a share of the mean variance.

    An absolute threshold does not travel: the 0.1 that suits one backbone's
    features removes every feature of another. A share of the mean does.

    Parameters
    ----------
    share : float
        0.01 keeps what varies by more than 1 % of the mean variance.

    Attributes
    ----------
    variances_ : ndarray of shape (n_features,), float64
        Variance of each feature; exactly 0 for constant ones.
    n_samples_seen_ : int
    threshold_ : float
        The least variance that is removed, `share` of the mean of `variances_`.
    """

    def __init__(self, share: float = 0.01) -> None:
        self.share = share

    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Learn which features to keep.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features of any scale, finite.
        y : ignored

        Raises
        ------
        FitError
            If no feature is left.
        """
        self._forget()
        return self.partial_fit(X).require_features()

    def partial_fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Learn from one more chunk of a stream; it may leave no feature.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            Features of any scale, finite.
        y : ignored
        """
        self._learn_variances(X)
        self.threshold_ = float(self.share * self.variances_.mean())
        return self

    def require_features(self) -> Self:
        """Stop if no feature is left.

        Raises
        ------
        FitError
            With the largest variance.
        """
        if not self._get_support_mask().any():
            raise _nothing_left(self.variances_, self.threshold_)
        return self

    def _get_support_mask(self) -> NDArray[np.bool_]:
        check_is_fitted(self)
        return self.variances_ > self.threshold_


class AbsoluteVarianceThreshold(_VariancesOfChunks, VarianceThreshold):
    """scikit-learn's VarianceThreshold that also learns from a stream.

    It says what to do if no feature is left.
    """

    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Learn which features to keep.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features, finite.
        y : ignored

        Raises
        ------
        FitError
            If no feature is left.
        """
        self._forget()
        return self.partial_fit(X).require_features()

    def partial_fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Learn from one more chunk of a stream; it may leave no feature.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            Features, finite.
        y : ignored
        """
        self._learn_variances(X)
        return self

    def require_features(self) -> Self:
        """Stop if no feature is left.

        Raises
        ------
        FitError
            With the largest variance.
        """
        if not self._get_support_mask().any():
            raise _nothing_left(self.variances_, self.threshold)
        return self


class CommonScale(TransformerMixin, BaseEstimator):
    """Divide features of extraordinary scale by one number; leave others as they are.

    SGD's learning rate and its penalty know nothing of the features' scale.
    Features of a randomly initialised network may be as small as 1e-12: then
    no gradient outgrows the L1 penalty, every weight stays 0, and every class
    scores the same. One divisor for all features keeps their proportions,
    which the elastic net depends on. Features of trained networks have a root
    mean square of about 0.3 to 1 and pass through unchanged, bit for bit.

    Attributes
    ----------
    divisor_ : float
        Root mean square of the training features where that lies outside of
        `ORDINARY_SCALES`, else 1.
    n_samples_seen_ : int
    """

    _mean_square: float

    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Learn the divisor.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : ignored
        """
        self.__dict__.pop("n_samples_seen_", None)
        return self.partial_fit(X)

    def partial_fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Learn the divisor of the chunks so far and one more.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
        y : ignored
        """
        seen = getattr(self, "n_samples_seen_", 0)
        features = validate_data(self, X, dtype=(np.float64, np.float32), reset=not seen)
        mean_square = float(np.mean(np.square(features, dtype=np.float64)))
        self.n_samples_seen_ = seen + len(features)
        if seen:
            share = len(features) / self.n_samples_seen_
            mean_square = (1 - share) * self._mean_square + share * mean_square
        self._mean_square = mean_square
        root_mean_square = float(np.sqrt(mean_square))
        least, greatest = ORDINARY_SCALES
        is_ordinary = least <= root_mean_square <= greatest or root_mean_square == 0
        self.divisor_ = 1.0 if is_ordinary else root_mean_square
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.floating]:
        """Features over the divisor.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_features), dtype of `X`
        """
        check_is_fitted(self)
        features = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        return features if self.divisor_ == 1.0 else features / self.divisor_


class BlockScale(_VariancesOfChunks, TransformerMixin, BaseEstimator):
    """Divide features by one number, so that their variances add up to a wanted sum.

    Blocks of features of one sum of variances, side by side, have an equal say in
    the distances between images, however many features each has and of whatever
    scale.

    Parameters
    ----------
    total_variance : float
        The wanted sum.

    Attributes
    ----------
    divisor_ : float
        1 where nothing varies.
    variances_ : ndarray of shape (n_features,), float64
    n_samples_seen_ : int
    """

    def __init__(self, total_variance: float = 1.0) -> None:
        self.total_variance = total_variance

    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Learn the divisor.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : ignored
        """
        self._forget()
        return self.partial_fit(X)

    def partial_fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Learn the divisor of the chunks so far and one more.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
        y : ignored
        """
        self._learn_variances(X)
        self.divisor_ = float(np.sqrt(self.variances_.sum() / self.total_variance)) or 1.0
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.floating]:
        """Features over the divisor.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_features), dtype of `X`
        """
        check_is_fitted(self)
        features = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        return features / self.divisor_


def _bagged_sgd(alpha: float, seed: int) -> tuple[list[BaseEstimator], BaseEstimator]:
    return [CommonScale()], BaggedSGDClassifier(alpha=alpha, random_state=seed)


def _bagged_sgd_of_sklearn(alpha: float, seed: int) -> tuple[list[BaseEstimator], BaseEstimator]:
    # The recipe of github devforfu/Models, dogsbreeds/, commit a0c988d.
    member = SGDClassifier(
        loss="log_loss",
        penalty="elasticnet",
        alpha=alpha,
        class_weight="balanced",
        fit_intercept=False,
        tol=1e-3,
    )
    bag = BaggingClassifier(
        member,
        n_estimators=10,
        max_samples=0.5,
        max_features=0.5,
        bootstrap_features=True,
        random_state=seed,
    )
    return [CommonScale()], bag


def _logistic(alpha: float, seed: int) -> tuple[list[BaseEstimator], BaseEstimator]:
    return [], LogisticSweep(random_state=seed)


def _knn(alpha: float, seed: int) -> tuple[list[BaseEstimator], BaseEstimator]:
    return [], CosineNeighbours()


Builder = Callable[[float, int], tuple[list[Any], Any]]

HEADS: dict[str, dict[str, Builder]] = {
    "bagged-sgd": {"minibatch": _bagged_sgd, "sklearn": _bagged_sgd_of_sklearn},
    "logistic": {"lbfgs": _logistic},
    "knn": {"exact": _knn},
}
"""Builders of each head by the solvers that it can be fitted with, the usual one first."""

SCALINGS: dict[str, tuple[BaseEstimator, ...]] = {
    "as-is": (),
    "standardised": (StandardScaler(),),
    "normalised": (Normalizer(),),
    "normalised-standardised": (Normalizer(), StandardScaler()),
}
"""What is done to features before a head: normalised rows have length 1, standardised columns
mean 0 and variance 1."""

_USUAL_SCALINGS = {"logistic": "standardised"}


def find_head(name: str, solver: str | None = None) -> Builder:
    """The builder of the head of this name.

    Parameters
    ----------
    name : str
        A key of `HEADS`.
    solver : str, optional
        What fits it; default: its usual one.

    Raises
    ------
    UnknownNameError
        If there is no such head, or it has no such solver.
    """
    if name not in HEADS:
        raise UnknownNameError("head", name, HEADS)
    solvers = HEADS[name]
    if solver is None:
        return next(iter(solvers.values()))
    if solver not in solvers:
        raise UnknownNameError(f"solver of {name}", solver, solvers)
    return solvers[solver]


def build_head(
    name: str,
    *,
    n_train_rows: int,
    variance_threshold: str,
    seed: int,
    solver: str | None = None,
    one_vs_rest: bool = False,
    widths: Sequence[int] = (),
    alpha_by_rows: float = 1.0,
    scaling: str | None = None,
) -> Pipeline:
    """An unfitted estimator that reads features.

    Parameters
    ----------
    name : str
        A key of `HEADS`.
    n_train_rows : int
        Rows it will be fitted on.
    variance_threshold : str
        ``"1%"`` of the mean variance of all features, or ``"0.01"`` in the
        features' own unit squared.
    seed : int
        Random state.
    solver : str, optional
        As in `find_head`.
    one_vs_rest : bool
        True for sets of labels: one classifier a label.
    widths : sequence of int
        Numbers of features of the blocks that lie side by side; none: it is one block.
        Of several, each is prepared on its own, and `BlockScale` gives all one say.
    alpha_by_rows : float
        Bagged SGD's penalty is ``alpha_by_rows / n_train_rows``; other heads ignore it.
    scaling : str, optional
        A key of `SCALINGS`; default: standardised for logistic, as-is for others.

    Returns
    -------
    Pipeline
        Ends in a classifier with `decision_function` and `predict_proba`.

    Raises
    ------
    UnknownNameError
        If there is no such head or solver.
    UsageError
        If the threshold cannot be read.
    """
    steps, classifier = find_head(name, solver)(alpha_by_rows / n_train_rows, seed)
    if one_vs_rest and not get_tags(classifier).classifier_tags.multi_label:
        classifier = OneVsRestClassifier(classifier)
    scalers = SCALINGS[scaling or _USUAL_SCALINGS.get(name, "as-is")]
    steps = [build_variance_threshold(variance_threshold), *map(clone, scalers), *steps]
    if len(widths) > 1:
        steps = [_side_by_side(steps, widths)]
    return make_pipeline(*steps, classifier)


def _side_by_side(steps: Sequence[BaseEstimator], widths: Sequence[int]) -> ColumnTransformer:
    # One block alone has about as much variance as it has features, once they are standardised.
    common = BlockScale(float(np.mean(widths)))
    ends = np.cumsum([0, *widths]).tolist()
    return ColumnTransformer(
        [
            (f"block{number}", make_pipeline(*map(clone, [*steps, common])), slice(*place))
            for number, place in enumerate(pairwise(ends), start=1)
        ]
    )


def fit_head(head: Pipeline, X: ArrayLike, y: ArrayLike, groups: ArrayLike) -> Pipeline:
    """Fit what `build_head` gave.

    Parameters
    ----------
    head : Pipeline
    X : array-like of shape (n_samples, n_features)
    y : array-like of shape (n_samples,) or (n_samples, n_labels)
    groups : array-like of shape (n_samples,), int
        Rows of one group are never on both sides where the head itself holds rows out.
    """
    return head.fit(X, y, **group_parameters(head, groups))


def group_parameters(head: Pipeline, groups: ArrayLike) -> dict[str, ArrayLike]:
    """What `fit` of a head, or of a search over it, is given beside `X` and `y`.

    Parameters
    ----------
    head : Pipeline
    groups : array-like of shape (n_samples,), int

    Returns
    -------
    dict of str to array-like
        Empty if the head itself holds no rows out.
    """
    name, classifier = head.steps[-1]
    return {f"{name}__groups": groups} if has_fit_parameter(classifier, "groups") else {}


def build_variance_threshold(text: str) -> RelativeVarianceThreshold | AbsoluteVarianceThreshold:
    """The step that removes features which hardly vary.

    Parameters
    ----------
    text : str
        ``"1%"`` or a plain number.

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
            f"The variance threshold {text!r} cannot be read. Expected a share of the mean "
            "variance such as 1% or a number such as 0.01."
        )
    return RelativeVarianceThreshold(value / 100) if percent else AbsoluteVarianceThreshold(value)


def _nothing_left(variances: NDArray[np.float64], threshold: float) -> FitError:
    largest = variances.max()
    if largest == 0:
        return FitError(
            "Every feature is constant: all training images have the same features. "
            "Expected features that differ; check the images and the weights."
        )
    return FitError(
        f"No feature is left: the largest variance is {largest:.3g}, the threshold "
        f"{threshold:.3g}. Set --variance-threshold 1% or a number below {largest:.3g}."
    )
