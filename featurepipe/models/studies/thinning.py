"""Draw a share of the training rows in whole groups, and what can be learnt from it."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from featurepipe.manifest import Labels
from featurepipe.models.answers.arrays import Rows
from featurepipe.predictions import Task
from featurepipe.splits import pool_rare

_GROUPS_A_STRATUM = 2


def label_strata(labels: Mapping[str, Labels], n_folds: int) -> Rows:
    """Strata of rows: their labels for all attributes, rare ones merged.

    Parameters
    ----------
    labels : mapping of str to Labels
    n_folds : int

    Returns
    -------
    ndarray of shape (n_rows,), intp
    """
    classes = np.hstack(
        [np.column_stack([truth.indicator, truth.labelled]) for truth in labels.values()]
    )
    return pool_rare(np.unique(classes, axis=0, return_inverse=True)[1], n_folds)


def draw_share(strata: Rows, groups: Rows, share: float, seed: int) -> Rows:
    """Draw rows in whole groups, in proportion for each stratum.

    Parameters
    ----------
    strata, groups : ndarray of shape (n_rows,), intp
        A group has the stratum of its first row.
    share : float
        Share of each stratum's groups, in (0, 1]; at least two groups are drawn.
    seed : int
        With the same seed, a smaller share is part of a larger one.

    Returns
    -------
    ndarray of intp, ascending
    """
    names, firsts = np.unique(groups, return_index=True)
    group_strata = strata[firsts]
    order = np.random.default_rng(seed).permutation(len(names))
    drawn: list[Rows] = []
    for stratum in np.unique(group_strata):
        members = order[group_strata[order] == stratum]
        n_drawn = max(_GROUPS_A_STRATUM, round(share * len(members)))
        drawn.append(names[members[:n_drawn]])
    return np.flatnonzero(np.isin(groups, np.concatenate(drawn)))


def learnable(labels: Mapping[str, Labels], task: str) -> dict[str, Labels]:
    """Remove the labels of images whose class has no other image.

    Parameters
    ----------
    labels : mapping of str to Labels
    task : str
        A `Task` or its value. In the joint task a combination of classes counts as a class.

    Returns
    -------
    dict of str to Labels
    """
    if task == Task.PER_ATTRIBUTE:
        return {name: _keep(truth, _not_alone(truth.indicator)) for name, truth in labels.items()}
    classes = np.hstack([truth.indicator for truth in labels.values()])
    if task == Task.JOINT:
        combination = np.unique(classes, axis=0, return_inverse=True)[1].reshape(-1, 1)
        combinations = combination == np.arange(combination.max(initial=0) + 1)
        classes = np.hstack([classes, combinations])
    kept = _not_alone(classes)
    return {name: _keep(truth, kept) for name, truth in labels.items()}


def _not_alone(classes: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Rows that are left after rows with a class of their own are removed, again and again."""
    kept = np.ones(len(classes), dtype=bool)
    while (alone := classes[kept].sum(axis=0) == 1).any():
        kept &= ~classes[:, alone].any(axis=1)
    return kept


def _keep(labels: Labels, kept: NDArray[np.bool_]) -> Labels:
    return replace(
        labels, indicator=labels.indicator & kept[:, None], labelled=labels.labelled & kept
    )
