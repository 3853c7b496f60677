"""The validation part: training images that no weight is learnt from."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import FitError
from featurepipe.manifest import Labels
from featurepipe.models.networks.outputs import Targets
from featurepipe.splits import inner_folds

Bools = NDArray[np.bool_]
Class = tuple[str, int]

SHARE = 8
"""One image in so many, where each class has as many groups."""


def draw_validation(
    labels: Mapping[str, Labels], targets: Targets, groups: NDArray[np.intp], seed: int
) -> NDArray[np.intp]:
    """Choose the validation images: about an eighth, and some of every class.

    Parameters
    ----------
    labels : mapping of str to Labels
        Of all training images.
    targets : Targets
        Of the same.
    groups : ndarray of shape (n_train,), intp
        Images of one group are never on both sides.
    seed : int

    Returns
    -------
    ndarray of shape (n_validation,), intp
        Rising positions. Groups of classes that an eighth would not hold change sides.

    Raises
    ------
    FitError
        If no such part has every class and leaves some of it to be trained on.
    """
    validates = np.zeros(len(groups), dtype=bool)
    validates[inner_folds(targets.kinds, groups, SHARE, seed)[0][1]] = True
    missing = _missing_classes(labels, validates)
    while missing:
        validates, fewer = min(_moves(labels, groups, validates), key=lambda move: len(move[1]))
        if len(fewer) >= len(missing):
            named = [f"{name}={labels[name].classes[column]}" for name, column in missing[:5]]
            raise FitError(
                f"No validation part of the {len(groups)} training images has some of every class: "
                f"{', '.join(named)} would be missing there or in training. Expected images "
                "of 2 groups or more of each class; add images, or leave these classes out."
            )
        missing = fewer
    return np.flatnonzero(validates)


def _moves(
    labels: Mapping[str, Labels], groups: NDArray[np.intp], validates: Bools
) -> list[tuple[Bools, list[Class]]]:
    """What becomes of the part, and which classes are missing, if a group changes sides."""
    name, column = _missing_classes(labels, validates)[0]
    able = np.unique(groups[labels[name].indicator[:, column]])
    moved = [validates ^ (groups == group) for group in able]
    return [(each, _missing_classes(labels, each)) for each in moved]


def _missing_classes(labels: Mapping[str, Labels], validates: Bools) -> list[Class]:
    """Attribute and column of the classes that are on one side alone."""
    missing: list[Class] = []
    for name, each in labels.items():
        n_validating = each.indicator[validates].sum(axis=0)
        n_all = each.indicator.sum(axis=0)
        absent = (n_all > 0) & ((n_validating == 0) | (n_validating == n_all))
        missing += [(name, int(column)) for column in np.flatnonzero(absent)]
    return missing
