"""Ridge regression on class indicators, and its answers for held-out rows in closed form.

Once the matrix of the regression is inverted, the answers for any rows that are held out follow
without another fit.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack, solve

from featurepipe.manifest import Labels
from featurepipe.models.answers.arrays import Features, Rows
from featurepipe.splits import combination_folds, inner_folds

_N_FOLDS = 5
# Times the mean squared distance of the features from their mean.
_RIDGE = 0.1
# Variance of the intercept, next to 1 for the features: almost unpenalised.
_INTERCEPT = 100.0

Right = NDArray[np.float64]
"""How often each row is answered correctly, in [0, 1]; NaN where it was not asked."""

Folds = list[tuple[Rows, Rows]]
"""For each fold the rows that are asked, and all rows that are held out with them."""


@dataclass(frozen=True)
class HoldOuts:
    """One attribute of the sampled rows, and which of them are held out together.

    Attributes
    ----------
    name : str
    labels : Labels
    seen : list of (ndarray of intp, ndarray of intp)
        Ordinary folds.
    unseen : dict of str to list of (ndarray of intp, ndarray of intp)
        For each other attribute, folds that hold out combinations of classes with it.
    """

    name: str
    labels: Labels
    seen: Folds
    unseen: dict[str, Folds]

    @classmethod
    def of(cls, name: str, labels: Mapping[str, Labels], groups: Rows, seed: int) -> "HoldOuts":
        """Draw the folds of an attribute.

        Parameters
        ----------
        name : str
        labels : mapping of str to Labels
            Of all attributes.
        groups : ndarray of shape (n_rows,), intp
        seed : int
        """
        truth = labels[name]
        labelled, missing = np.flatnonzero(truth.labelled), np.flatnonzero(~truth.labelled)
        strata = truth.codes[labelled]
        if not truth.exclusive:
            strata = np.unique(truth.indicator[labelled], axis=0, return_inverse=True)[1]
        folds = inner_folds(strata.reshape(-1), groups[labelled], _N_FOLDS, seed)
        asked = [labelled[validation] for _, validation in folds]
        unseen: dict[str, Folds] = {}
        for other, other_truth in labels.items():
            if truth.exclusive and other_truth.exclusive and other != name:
                held_out = combination_folds([truth, other_truth], groups, _N_FOLDS, seed)
                unseen[other] = [(rows, np.union1d(away, missing)) for rows, away in held_out]
        return cls(name, truth, [(rows, np.union1d(rows, missing)) for rows in asked], unseen)


@dataclass(frozen=True)
class HeldOutAnswers:
    """How often each row is answered correctly, in ordinary folds and without its combination.

    Attributes
    ----------
    seen, unseen : ndarray of shape (n_rows,), float64
        In [0, 1]; NaN where the row was not asked.
    """

    seen: Right
    unseen: Right


def make_kernel(X: Features) -> NDArray[np.float64]:
    """Inner products of centred features, with a mean of 1 on the diagonal.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features)

    Returns
    -------
    ndarray of shape (n_rows, n_rows), float64
    """
    centred = X.astype(np.float64) - X.mean(axis=0, dtype=np.float64)
    products = centred @ centred.T
    return products / (np.trace(products) / len(X) or 1.0)


def answer_held_out(
    kernels: Sequence[NDArray[np.float64]], attributes: Sequence[HoldOuts]
) -> list[HeldOutAnswers]:
    """Answer each attribute with blocks of features, for the rows that its folds hold out.

    Parameters
    ----------
    kernels : sequence of ndarray of shape (n_rows, n_rows), float64
        One for each block, which all weigh the same.
    attributes : sequence of HoldOuts

    Returns
    -------
    list of HeldOutAnswers
    """
    mixed = np.mean(kernels, axis=0) + _INTERCEPT
    mixed[np.diag_indices_from(mixed)] += _RIDGE
    inverse = _invert(mixed)
    tested = {
        (attribute.name, other): _answer(inverse, attribute.labels, folds)
        for attribute in attributes
        for other, folds in attribute.unseen.items()
        if folds
    }
    return [
        HeldOutAnswers(
            _answer(inverse, attribute.labels, attribute.seen), _unseen(attribute, tested)
        )
        for attribute in attributes
    ]


def _unseen(attribute: HoldOuts, tested: Mapping[tuple[str, str], Right]) -> Right:
    """Mean, over the other attributes, of how often a row is right without its combination."""
    by_other = [np.full(len(attribute.labels), np.nan)]
    for other in attribute.unseen:
        if (attribute.name, other) in tested:
            mistaken = 1 - np.nanmean(tested[other, attribute.name])
            right = tested[attribute.name, other]
            by_other.append(np.where(np.isnan(right), mistaken, right))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        unseen = np.nanmean(by_other, axis=0)
    return np.where(attribute.labels.labelled, unseen, np.nan)


def _invert(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    factor, _ = lapack.dpotrf(matrix, lower=True)
    inverse, _ = lapack.dpotri(factor, lower=True)
    lower = np.tril(inverse)
    return lower + np.tril(inverse, -1).T


def _answer(inverse: NDArray[np.float64], labels: Labels, folds: Folds) -> Right:
    """How often each row is answered correctly by what is trained without its fold.

    Let A be the inverse of kernel plus ridge, and Y the targets. Trained on all rows but F, the
    regression answers rows F with ``Y_F - inv(A_FF) (A Y)_F``.
    """
    targets = labels.indicator.astype(np.float64)
    weighted = inverse @ targets
    n_right, n_asked = np.zeros((2, len(targets)))
    for asked, away in folds:
        answers = targets[away] - solve(inverse[np.ix_(away, away)], weighted[away], assume_a="pos")
        answers = answers[np.searchsorted(away, asked)]
        n_right[asked] += _is_right(answers, labels.take(asked))
        n_asked[asked] += 1
    return np.divide(n_right, n_asked, out=np.full(len(targets), np.nan), where=n_asked > 0)


def _is_right(answers: NDArray[np.float64], labels: Labels) -> NDArray[np.bool_]:
    if labels.exclusive:
        return answers.argmax(axis=1) == labels.codes
    return ((answers > 0.5) == labels.indicator).all(axis=1)
