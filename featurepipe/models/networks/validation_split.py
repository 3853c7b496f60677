"""The validation images: training images that no weight is learnt from."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import FitError
from featurepipe.manifest import Labels
from featurepipe.models.networks.outputs import Targets
from featurepipe.splits import inner_folds

Mask = NDArray[np.bool_]
ClassColumn = tuple[str, int]

ONE_IN = 8
"""One image in so many validates, if each class has as many groups."""


def draw_validation(
    labels: Mapping[str, Labels], targets: Targets, groups: NDArray[np.intp], seed: int
) -> NDArray[np.intp]:
    """Choose about an eighth of the training images, with some of every class.

    Parameters
    ----------
    labels : mapping of str to Labels
        Labels of all training images.
    targets : Targets
        Targets of the same images.
    groups : ndarray of shape (n_train,), intp
        Images of one group are kept on the same side.
    seed : int

    Returns
    -------
    ndarray of shape (n_validation,), intp
        Positions in ascending order. Groups of a class that would be missing on one side are moved
        there.

    Raises
    ------
    FitError
        If there is no choice with every class on both sides.
    """
    validates = np.zeros(len(groups), dtype=bool)
    validates[inner_folds(targets.identities, groups, ONE_IN, seed)[0][1]] = True
    missing = _missing_classes(labels, validates)
    while missing:
        validates, fewer = min(_moves(labels, groups, validates), key=lambda move: len(move[1]))
        if len(fewer) >= len(missing):
            named = [f"{name}={labels[name].classes[column]}" for name, column in missing[:5]]
            raise FitError(
                f"The {len(groups)} training images cannot be divided for validation with every "
                f"class on both sides: {', '.join(named)} would be missing on one side. Each class "
                "needs images from at least 2 groups. Add images, or leave these classes out."
            )
        missing = fewer
    return np.flatnonzero(validates)


def _moves(
    labels: Mapping[str, Labels], groups: NDArray[np.intp], validates: Mask
) -> list[tuple[Mask, list[ClassColumn]]]:
    """Each way to move one group that has the first missing class, and what is missing then."""
    name, column = _missing_classes(labels, validates)[0]
    candidates = np.unique(groups[labels[name].indicator[:, column]])
    moved = [validates ^ (groups == group) for group in candidates]
    return [(mask, _missing_classes(labels, mask)) for mask in moved]


def _missing_classes(labels: Mapping[str, Labels], validates: Mask) -> list[ClassColumn]:
    """The classes whose images are all on the same side."""
    missing: list[ClassColumn] = []
    for name, attribute in labels.items():
        n_validating = attribute.indicator[validates].sum(axis=0)
        n_all = attribute.indicator.sum(axis=0)
        is_missing = (n_all > 0) & ((n_validating == 0) | (n_validating == n_all))
        missing += [(name, int(column)) for column in np.flatnonzero(is_missing)]
    return missing
