"""Head names and solvers -> the estimators behind them, and what tuning tries."""

from collections.abc import Callable
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.ensemble import BaggingClassifier
from sklearn.linear_model import SGDClassifier

from featurepipe.errors import UnknownNameError
from featurepipe.models.heads.estimators.bagged_sgd import BaggedSGDClassifier
from featurepipe.models.heads.estimators.knn import CosineNeighbours
from featurepipe.models.heads.estimators.logistic import LogisticSweep
from featurepipe.models.heads.estimators.scaling import CommonScale
from featurepipe.models.heads.estimators.svm import RbfSVM

Builder = Callable[[float, int], tuple[list[Any], Any]]
"""Penalty and seed -> the steps that a classifier needs before it, and the classifier."""


def _bagged_sgd(alpha: float, seed: int) -> tuple[list[BaseEstimator], BaseEstimator]:
    return [CommonScale()], BaggedSGDClassifier(alpha=alpha, random_state=seed)


def _bagged_sgd_by_sklearn(alpha: float, seed: int) -> tuple[list[BaseEstimator], BaseEstimator]:
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


def _svm(alpha: float, seed: int) -> tuple[list[BaseEstimator], BaseEstimator]:
    return [], RbfSVM()


HEADS: dict[str, dict[str, Builder]] = {
    "bagged-sgd": {"minibatch": _bagged_sgd, "sklearn": _bagged_sgd_by_sklearn},
    "logistic": {"lbfgs": _logistic},
    "svm": {"libsvm": _svm},
    "knn": {"exact": _knn},
}
"""Builders for each head by solver; the first solver is the default."""

COMPARES_PAIRS = ("svm",)
"""Heads whose fit takes memory for all pairs of rows."""

GRIDS: dict[str, dict[str, tuple[Any, ...]]] = {
    "bagged-sgd": {
        "alpha_by_rows": (1.0, 0.1, 10.0),
        "variance_threshold": ("1%", "0%", "10%"),
        "scaling": ("as-is", "standardised", "normalised"),
    },
    "logistic": {
        "variance_threshold": ("1%", "0%", "10%"),
        "scaling": ("standardised", "as-is", "normalised-standardised"),
    },
    "svm": {
        "variance_threshold": ("1%", "0%", "10%"),
        "scaling": ("normalised", "as-is", "standardised"),
    },
    "knn": {
        "variance_threshold": ("1%", "0%", "10%"),
        "scaling": ("as-is", "standardised"),
    },
}
"""Values that tuning tries for each head, in all combinations, as `build_head` takes them; the
defaults come first. `logistic` chooses C, and `knn` the number of neighbours, in every fit."""


def default_solver(head: str) -> str:
    """The solver that fits a head unless another is named.

    Parameters
    ----------
    head : str
        A key of `HEADS`.

    Raises
    ------
    UnknownNameError
        If there is no such head.

    Examples
    --------
    >>> default_solver("logistic")
    'lbfgs'
    """
    if head not in HEADS:
        raise UnknownNameError("head", head, HEADS)
    return next(iter(HEADS[head]))


def find_head(head: str, solver: str | None) -> Builder:
    """The builder for a head.

    Parameters
    ----------
    head : str
        A key of `HEADS`.
    solver : str or None
        One of its solvers.

    Raises
    ------
    UnknownNameError
        If there is no such head, or it has no such solver.
    """
    if head not in HEADS:
        raise UnknownNameError("head", head, HEADS)
    if solver is None or solver not in HEADS[head]:
        raise UnknownNameError(f"solver of {head}", str(solver), HEADS[head])
    return HEADS[head][solver]
