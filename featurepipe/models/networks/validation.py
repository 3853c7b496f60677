"""The validation part: training images that no weight is learnt from."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import FitError
from featurepipe.manifest import Labels
from featurepipe.models.networks.outputs import Targets
from featurepipe.splits import inner_folds

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
        Rising positions. Where an eighth cannot hold every class, it is more: up to one half.

    Raises
    ------
    FitError
        If no such part has every class and leaves some of it to be trained on.
    """
    missing: list[str] = []
    for n_folds in range(SHARE, 1, -1):
        for _, validation in inner_folds(targets.kinds, groups, n_folds, seed):
            missing = _missing_classes(labels, validation)
            if not missing:
                return np.sort(validation)
    raise FitError(
        f"No validation part of the {len(groups)} training images has some of every class: "
        f"{', '.join(missing[:5])} would be missing there or in training. Expected images of 2 "
        "groups or more of each class; add images, or leave these classes out."
    )


def _missing_classes(labels: Mapping[str, Labels], validation: NDArray[np.intp]) -> list[str]:
    missing = []
    for name, each in labels.items():
        of_validation = each.indicator[validation].sum(axis=0)
        of_all = each.indicator.sum(axis=0)
        absent = (of_all > 0) & ((of_validation == 0) | (of_validation == of_all))
        missing += [f"{name}={each.classes[k]}" for k in np.flatnonzero(absent)]
    return missing
