"""Inner folds of training rows: ordinary ones, and such that hold out combinations."""

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import StratifiedGroupKFold

from featurepipe.errors import SplitError
from featurepipe.manifest import Labels

Rows = NDArray[np.intp]


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


def pool_rare(strata: ArrayLike, n_folds: int) -> Rows:
    """Merge the strata that are too rare to be in every fold into one.

    Parameters
    ----------
    strata : array-like of shape (n_rows,)
        Codes of classes, or of sets of classes.
    n_folds : int

    Returns
    -------
    ndarray of shape (n_rows,), intp
    """
    _, codes, counts = np.unique(np.ravel(strata), return_inverse=True, return_counts=True)
    return np.where(counts[codes] < n_folds, len(counts), codes)


def combination_folds(
    labels: Sequence[Labels], groups: NDArray[np.intp], n_folds: int, seed: int
) -> list[tuple[Rows, Rows]]:
    """Divide combinations of classes into folds, so that every class stays in training.

    Parameters
    ----------
    labels : sequence of Labels
        Exclusive attributes; rows that lack a label of any are never held out.
    groups : ndarray of shape (n_rows,), intp
        Rows of one group are never on both sides.
    n_folds : int
        At most; each holds out about as many combinations.
    seed : int

    Returns
    -------
    list of (ndarray of intp, ndarray of intp)
        Positions of the rows that a fold holds out, and of those that must not be trained
        on with it: these and all others of their groups. A combination without which a
        class would be left with no row is in no fold.
    """
    labelled = np.flatnonzero(np.all([each.labelled for each in labels], axis=0))
    codes = np.column_stack([each.codes[labelled] for each in labels])
    found, of_row = np.unique(codes, axis=0, return_inverse=True)
    of_row = of_row.reshape(-1)
    folds: list[list[int]] = [[] for _ in range(min(n_folds, len(found)))]
    for k in np.random.default_rng(seed).permutation(len(found)):
        for fold in sorted(folds, key=len):
            if _keeps_every_class(np.delete(found, [*fold, k], axis=0), found):
                fold.append(int(k))
                break
    held_out = [labelled[np.isin(of_row, fold)] for fold in folds if fold]
    return [(rows, np.flatnonzero(np.isin(groups, groups[rows]))) for rows in held_out]


def _keeps_every_class(kept: Rows, found: Rows) -> bool:
    return all(
        len(np.unique(left)) == len(np.unique(column))
        for left, column in zip(kept.T, found.T, strict=True)
    )
