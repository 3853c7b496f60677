"""Inner folds of training images: ordinary folds, and folds that hold out combinations."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.utils import check_random_state

from featurepipe.errors import SplitError
from featurepipe.manifest import Labels

Rows = NDArray[np.intp]
Floats = NDArray[np.float64]

_GROUPS_AT_ONCE = 2**13


class _GroupFolds(StratifiedGroupKFold):
    """The same folds as scikit-learn's, in less time and memory.

    All folds are compared at once, and no array has a number for each group and class.
    """

    def _iter_test_indices(self, X: Any, y: Rows, groups: Rows) -> Iterator[Rows]:
        _, y_inv, y_cnt = np.unique(y, return_inverse=True, return_counts=True)
        places = np.unique(groups, return_inverse=True)[1]
        order = np.arange(places.max() + 1)
        check_random_state(self.random_state).shuffle(order)
        places = np.argsort(order)[places]
        cells, shape = (np.ones(len(y)), (places, y_inv)), (len(order), len(y_cnt))
        of_groups = csr_array(cells, shape=shape)
        spreads = [
            np.std(of_groups[start : start + _GROUPS_AT_ONCE].toarray(), axis=1)
            for start in range(0, len(order), _GROUPS_AT_ONCE)
        ]
        of_folds, fold_of_group = np.zeros((self.n_splits, len(y_cnt))), np.empty(len(order), int)
        for group in np.argsort(-np.concatenate(spreads), kind="stable"):
            cell = slice(*of_groups.indptr[group : group + 2])
            counts = np.zeros(len(y_cnt))
            counts[of_groups.indices[cell]] = of_groups.data[cell]
            fold = self._find_best_fold(of_folds, y_cnt, counts)
            of_folds[fold] += counts
            fold_of_group[group] = fold
        for fold in range(self.n_splits):
            yield np.flatnonzero(fold_of_group[places] == fold)

    def _find_best_fold(
        self, y_counts_per_fold: Floats, y_cnt: Rows, group_y_counts: Floats
    ) -> int:
        numbers = range(self.n_splits)
        counts = np.repeat(y_counts_per_fold[None], self.n_splits, axis=0)
        counts[numbers, numbers] += group_y_counts
        spreads = np.std(counts / y_cnt, axis=1).mean(axis=1).tolist()
        sizes = y_counts_per_fold.sum(axis=1).tolist()
        best = 0
        for fold in numbers:
            # As np.isclose has it.
            is_close = abs(spreads[fold] - spreads[best]) <= 1e-8 + 1e-5 * abs(spreads[best])
            if spreads[fold] < spreads[best] or (is_close and sizes[fold] < sizes[best]):
                best = fold
        return best


def inner_folds(
    strata: ArrayLike, groups: ArrayLike, n_folds: int, seed: int
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Split training rows into stratified folds that keep groups together.

    Parameters
    ----------
    strata : array-like of shape (n_rows,)
        Strata to keep in proportion: codes of classes, or of sets of classes.
    groups : array-like of shape (n_rows,), int
        Rows of one group stay in one fold.
    n_folds : int
        Number of folds; fewer if there are fewer groups, or fewer rows of the most
        frequent stratum.
    seed : int

    Returns
    -------
    list of (ndarray of intp, ndarray of intp)
        Positions of training and of validation rows, one pair per fold.

    Raises
    ------
    SplitError
        If there are fewer than two groups.
    """
    groups = np.asarray(groups)
    _, strata, counts = np.unique(np.asarray(strata), return_inverse=True, return_counts=True)
    n_groups = len(np.unique(groups))
    if n_groups < 2:
        raise SplitError(
            f"Cannot make inner folds: the {len(groups)} training images form {n_groups} group. "
            "At least 2 are needed. Add images, or use another --group column."
        )
    if counts.max() < 2:
        strata = np.zeros_like(strata)
    folds = _GroupFolds(
        n_splits=min(n_folds, n_groups, max(2, counts.max())),
        shuffle=True,
        random_state=int(np.random.SeedSequence(seed).generate_state(1)[0]),
    )
    with warnings.catch_warnings():
        # A class with fewer rows than folds is missing from some folds, which is better than
        # fewer folds for all classes.
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
    """Split combinations of classes into folds, so that every class stays in training.

    Parameters
    ----------
    labels : sequence of Labels
        Exclusive attributes; rows without all labels are never held out.
    groups : ndarray of shape (n_rows,), intp
        Rows of one group are never on both sides.
    n_folds : int
        Maximum number; all hold out about the same number of combinations.
    seed : int

    Returns
    -------
    list of (ndarray of intp, ndarray of intp)
        Rows that a fold holds out, and rows excluded from its training: the held-out rows
        and all others of their groups. A combination that is the only one with some class
        is in no fold.
    """
    labelled = np.flatnonzero(np.all([attribute.labelled for attribute in labels], axis=0))
    codes = np.column_stack([attribute.codes[labelled] for attribute in labels])
    combinations, combination_of_row = np.unique(codes, axis=0, return_inverse=True)
    combination_of_row = combination_of_row.reshape(-1)
    folds: list[list[int]] = [[] for _ in range(min(n_folds, len(combinations)))]
    for k in np.random.default_rng(seed).permutation(len(combinations)):
        for fold in sorted(folds, key=len):
            if _keeps_every_class(np.delete(combinations, [*fold, k], axis=0), combinations):
                fold.append(int(k))
                break
    held_out = [labelled[np.isin(combination_of_row, fold)] for fold in folds if fold]
    return [(rows, np.flatnonzero(np.isin(groups, groups[rows]))) for rows in held_out]


def _keeps_every_class(kept: Rows, combinations: Rows) -> bool:
    return all(
        len(np.unique(kept_column)) == len(np.unique(column))
        for kept_column, column in zip(kept.T, combinations.T, strict=True)
    )
