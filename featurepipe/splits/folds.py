"""Inner folds of training rows."""

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import StratifiedGroupKFold

from featurepipe.errors import SplitError


def inner_folds(
    strata: ArrayLike, groups: ArrayLike, n_folds: int, seed: int
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Divide training rows into folds, under the same rule as the test rows.

    Parameters
    ----------
    strata : array-like of shape (n_rows,)
        What to keep in proportion: codes of classes, or of sets of classes.
    groups : array-like of shape (n_rows,), int
        Rows of one group never part.
    n_folds : int
        Folds wanted; there are fewer where groups, or rows of the most frequent
        stratum, are fewer.
    seed : int

    Returns
    -------
    list of (ndarray of intp, ndarray of intp)
        Positions of training and of validation rows, one pair per fold.

    Raises
    ------
    SplitError
        If the rows are of fewer than two groups.
    """
    groups = np.asarray(groups)
    _, strata, counts = np.unique(np.asarray(strata), return_inverse=True, return_counts=True)
    n_groups = len(np.unique(groups))
    if n_groups < 2:
        raise SplitError(
            f"{len(groups)} training rows of {n_groups} group cannot be divided into folds: "
            "expected at least 2 groups. Add images, or group them by another column."
        )
    if counts.max() < 2:
        strata = np.zeros_like(strata)
    folds = StratifiedGroupKFold(
        n_splits=min(n_folds, n_groups, max(2, counts.max())),
        shuffle=True,
        random_state=int(np.random.SeedSequence(seed).generate_state(1)[0]),
    )
    with warnings.catch_warnings():
        # A class rarer than there are folds is absent from some of them; that is known,
        # and better than fewer folds for all the others.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        pairs = list(folds.split(np.zeros(len(groups)), strata, groups))
    return [(training, validation) for training, validation in pairs if len(validation)]
