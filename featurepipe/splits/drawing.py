"""Which groups of images are drawn for the test."""

import math

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import SplitError
from featurepipe.splits.divisible import MIN_GROUPS, Bools, Images, Integers
from featurepipe.splits.split_settings import SplitSettings

_MAX_DRAWS = 50
_ROUNDING = 1e-9
_OPEN, _TRAIN, _TEST = 0, 1, 2


def refuse_rare_classes(images: Images, settings: SplitSettings) -> None:
    """Stop at a class with too few groups to divide.

    Parameters
    ----------
    images : Images
    settings : SplitSettings

    Raises
    ------
    SplitError
        Naming the first such class.
    """
    n_groups = images.groups_have().sum(axis=0)
    rare = np.flatnonzero(n_groups < MIN_GROUPS)
    if not len(rare):
        return
    attribute, label = images.classes[rare[0]]
    what = f"distinct values of {settings.group!r}" if settings.group else "distinct images"
    advice = "Add images of it, join it with another class, or leave its label empty."
    if settings.group_duplicates:
        what += " that are no near-duplicates of each other"
        advice += " Without --group-duplicates, near-duplicates count apart."
    others = f" (other classes that have too few: {len(rare) - 1})" if len(rare) > 1 else ""
    raise SplitError(
        f"Class {label!r} of {attribute!r} has {n_groups[rare[0]]} readable {what} to divide, "
        f"expected at least {MIN_GROUPS}{others}. {advice}"
    )


def draw_test(images: Images, settings: SplitSettings, repeat: int) -> Bools:
    """Which images are drawn for the test.

    Parameters
    ----------
    images : Images
    settings : SplitSettings
    repeat : int
        Which of the settings' repeats is drawn, from 0.

    Returns
    -------
    ndarray of shape (n_images,), bool

    Raises
    ------
    SplitError
        If no division has every class on both sides.
    """
    rng = np.random.default_rng(np.random.SeedSequence([settings.seed, repeat]))
    have, sizes = images.groups_have(), np.bincount(images.groups)
    strata = _strata(have, settings.test_size)
    for _ in range(_MAX_DRAWS):
        order = rng.permutation(len(sizes))
        sides = _reserve(order, sizes, have)
        if sides is not None:
            _fill(sides, order, sizes, strata, settings.test_size)
            return (sides == _TEST)[images.groups]
    raise SplitError(
        f"No division of {len(images.ids)} images was found that has every class in training and "
        f"in test; {_MAX_DRAWS} were tried. Add images of the rarest classes, or try another seed."
    )


def _strata(have: Bools, test_size: float) -> Integers:
    """Stratum of each group: its classes, or if they are rare together, the rarest of them."""
    _, strata, counts = np.unique(have, axis=0, return_inverse=True, return_counts=True)
    strata = strata.reshape(-1)
    rarest = np.where(have, have.sum(axis=0), len(have) + 1).argmin(axis=1)
    pooled = np.where(counts[strata] < math.ceil(1 / test_size), -1 - rarest, strata)
    return np.unique(pooled, return_inverse=True)[1].astype(np.int64)


def _reserve(order: Integers, sizes: Integers, have: Bools) -> NDArray[np.int8] | None:
    """Sides with one group of each class in test and one in training, the others open.

    None if this order leads into a dead end, which takes many classes that share
    their few groups.
    """
    sides = np.full(len(sizes), _OPEN, dtype=np.int8)
    n_groups = have.sum(axis=0)
    # How many groups of each class are or may still come on a side.
    chances = {_TEST: n_groups.copy(), _TRAIN: n_groups.copy()}
    by_size = order[np.argsort(sizes[order], kind="stable")]
    for k in np.argsort(n_groups, kind="stable"):
        members = by_size[have[by_size, k]]
        # A small group in test and a large one in training leave the share free.
        for side, other, candidates in (
            (_TEST, _TRAIN, members),
            (_TRAIN, _TEST, members[::-1]),
        ):
            if (sides[members] == side).any():
                continue
            for group in candidates[sides[candidates] == _OPEN]:
                if (chances[other][have[group]] > 1).all():
                    sides[group] = side
                    chances[other][have[group]] -= 1
                    break
            else:
                return None
    return sides


def _fill(
    sides: NDArray[np.int8], order: Integers, sizes: Integers, strata: Integers, test_size: float
) -> None:
    """Add open groups to the test: the whole share of each stratum, then largest remainders."""
    in_test = sizes * (sides == _TEST)
    missing = test_size * sizes.sum() - in_test.sum()
    quotas = test_size * np.bincount(strata, sizes) - np.bincount(strata, in_test)
    quotas = np.maximum(quotas, 0)
    if quotas.sum() > max(missing, 0):
        # Rare strata had more reserved than their share: the others give way.
        quotas *= max(missing, 0) / quotas.sum()
    rank = np.zeros(len(quotas), dtype=np.int64)
    remaining = []
    for group in order[sides[order] == _OPEN]:
        stratum = strata[group]
        if sizes[group] <= quotas[stratum] + _ROUNDING:
            sides[group] = _TEST
            quotas[stratum] -= sizes[group]
            missing -= sizes[group]
        else:
            remaining.append((rank[stratum], stratum, group))
            rank[stratum] += 1
    for _, _, group in sorted(remaining, key=lambda place: (place[0], -quotas[place[1]])):
        if sizes[group] < 2 * missing - _ROUNDING:
            sides[group] = _TEST
            missing -= sizes[group]
