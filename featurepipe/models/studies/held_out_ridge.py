"""Ridge regression on class indicators, and its answers for held-out rows in closed form.

Once the matrix of the regression is inverted, the answers for any rows that are held out follow
without another fit.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack, solve

from featurepipe.manifest import Labels
from featurepipe.models.answers.arrays import Features
from featurepipe.models.studies.hold_outs import (
    Folds,
    HeldOutAnswers,
    HoldOuts,
    Right,
    is_right,
    unseen_right,
)

# Times the mean squared distance of the features from their mean.
_RIDGE = 0.1
# Variance of the intercept, next to 1 for the features: almost unpenalised.
_INTERCEPT = 100.0


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
        (attribute.name, unseen.other): _answer(inverse, attribute.labels, unseen.folds)
        for attribute in attributes
        for unseen in attribute.unseen
    }
    return [
        HeldOutAnswers(
            _answer(inverse, attribute.labels, attribute.seen), unseen_right(attribute, tested)
        )
        for attribute in attributes
    ]


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
        n_right[asked] += is_right(answers, labels.take(asked))
        n_asked[asked] += 1
    return np.divide(n_right, n_asked, out=np.full(len(targets), np.nan), where=n_asked > 0)
