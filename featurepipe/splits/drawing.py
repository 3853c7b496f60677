"""Draws the test images, group by group."""

import math

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import SplitError
from featurepipe.splits.divisible import MIN_GROUPS, Bools, Images, Integers
from featurepipe.splits.split_settings import SplitSettings
from featurepipe.words import counted, listed

_MAX_DRAWS = 50
_ROUNDING = 1e-9
_OPEN, _TRAIN, _TEST = 0, 1, 2


def refuse_rare_classes(images: Images, settings: SplitSettings) -> None:
    """Refuse classes with too few groups to split.

    Parameters
    ----------
    images : Images
    settings : SplitSettings

    Raises
    ------
    SplitError
        Naming these classes.
    """
    n_groups = images.groups_have().sum(axis=0)
    rare = n_groups < MIN_GROUPS
    if not rare.any():
        return
    what = f"distinct values of {settings.group!r}" if settings.group else "distinct images"
    if settings.group_duplicates:
        what += " that are not near-duplicates"
    names = [
        f"{label!r} of {attribute!r} ({n_groups[k]})"
        for k, (attribute, label) in enumerate(images.classes)
        if rare[k]
    ]
    grouped = (
        " Without --group-duplicates, near-duplicates count separately."
        if settings.group_duplicates
        else ""
    )
    raise SplitError(
        f"{counted(names, 'class has', 'classes have')} fewer than the {MIN_GROUPS} readable "
        f"{what} that a split needs: {listed(names)}. Add images, merge classes, or "
        f"{_how_to_leave_out(images, rare)}.{grouped}"
    )


def _how_to_leave_out(images: Images, rare: Bools) -> str:
    least = max(MIN_GROUPS, images.n_listed[rare].max() + 1)
    # Held-out combinations and groups make large classes rare, too: no number tells these apart.
    is_apart = (images.n_listed[~rare] >= least).all()
    left = {attribute for k, (attribute, _) in enumerate(images.classes) if not rare[k]}
    if is_apart and left == {attribute for attribute, _ in images.classes}:
        return f"leave them out with --min-per-class {least}"
    return "remove their labels"


def draw_test(images: Images, settings: SplitSettings, repeat: int) -> Bools:
    """Draw the test images at random.

    Parameters
    ----------
    images : Images
    settings : SplitSettings
    repeat : int
        Index of the repeat, from 0.

    Returns
    -------
    ndarray of shape (n_images,), bool

    Raises
    ------
    SplitError
        If no split has every class on both sides.
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
        f"No split of {len(images.ids)} images has every class on both sides ({_MAX_DRAWS} tries). "
        "Add images of the rarest classes, or use another --seed."
    )


def _strata(have: Bools, test_size: float) -> Integers:
    """Stratum of each group: its set of classes or, if the set is rare, its rarest class."""
    # Eight classes in a byte sort as they do themselves, in a fraction of the time and memory.
    packed = np.packbits(have, axis=1)
    _, strata, counts = np.unique(packed, axis=0, return_inverse=True, return_counts=True)
    strata = strata.reshape(-1)
    by_rarity = np.argsort(have.sum(axis=0), kind="stable")
    rarest = by_rarity[have.take(by_rarity, axis=1).argmax(axis=1)]
    rarest[~have.any(axis=1)] = 0
    pooled = np.where(counts[strata] < math.ceil(1 / test_size), -1 - rarest, strata)
    return np.unique(pooled, return_inverse=True)[1].astype(np.int64)


def _reserve(order: Integers, sizes: Integers, have: Bools) -> NDArray[np.int8] | None:
    """Sides with one group of each class in test and one in training, the others open.

    None if this order has no solution, which takes many classes that share few groups.
    """
    sides = np.full(len(sizes), _OPEN, dtype=np.int8)
    n_groups = have.sum(axis=0)
    # Number of groups of each class that are, or can still be put, on a side.
    chances = {_TEST: n_groups.copy(), _TRAIN: n_groups.copy()}
    by_size = order[np.argsort(sizes[order], kind="stable")]
    for k in np.argsort(n_groups, kind="stable"):
        members = by_size[have[by_size, k]]
        # A small test group and a large training group leave most freedom for the test size.
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
    """Add open groups to the test: the share of each stratum, then the largest remainders."""
    in_test = sizes * (sides == _TEST)
    missing = test_size * sizes.sum() - in_test.sum()
    quotas = test_size * np.bincount(strata, sizes) - np.bincount(strata, in_test)
    quotas = np.maximum(quotas, 0)
    if quotas.sum() > max(missing, 0):
        # Rare strata reserved more than their share: the other strata get less.
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
    for _, _, group in sorted(remaining, key=lambda ranked: (ranked[0], -quotas[ranked[1]])):
        if sizes[group] < 2 * missing - _ROUNDING:
            sides[group] = _TEST
            missing -= sizes[group]
