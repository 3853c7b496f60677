"""Held-out combinations: class combinations without training images."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from featurepipe.errors import SplitError, UnknownNameError
from featurepipe.manifest import Manifest
from featurepipe.splits.divisible import MIN_GROUPS, NO_DUPLICATES, Bools, Images, divisible_images
from featurepipe.splits.drawing import refuse_rare_classes
from featurepipe.splits.split_settings import SplitSettings


def each_held_out(
    manifest: Manifest,
    digests: Mapping[str, bytes | str],
    settings: SplitSettings,
    alike: Mapping[str, int] = NO_DUPLICATES,
) -> tuple[list[SplitSettings], list[str]]:
    """Settings that hold out each combination in turn.

    Only combinations whose classes occur in other combinations too can be held out.

    Parameters
    ----------
    manifest : Manifest
    digests : mapping of str to bytes or str
        Digest of the bytes of each readable image, by its id.
    settings : SplitSettings
        Settings of the splits apart from the held-out combination.
    alike : mapping of str to int, optional
        Near-duplicate group of each image that has near-duplicates; used if the
        settings group duplicates.

    Returns
    -------
    settings_of_each : list of SplitSettings
        One per combination, equal to those of ``--hold-out`` with its name.
    findings : list of str
        Which combinations cannot be held out, and why.

    Raises
    ------
    SplitError
        If a class has too few images, or no combination can be held out.
    """
    images = divisible_images(manifest, digests, settings, alike)
    refuse_rare_classes(images, settings)
    names = sorted({name for name in images.combinations if name is not None})
    separable = [name for name in names if _is_separable(images, name, settings)]
    others = sorted(set(names) - set(separable))
    why = f"a class would have fewer than {MIN_GROUPS} distinct images left"
    if not separable:
        raise SplitError(
            f"None of the {len(names)} combinations can be held out: {why}. Holding out needs "
            "combinations that share classes, such as those of two attributes."
        )
    findings = [f"Combinations not held out, because {why}: {', '.join(others)}"] if others else []
    return [replace(settings, hold_out=(name,)) for name in separable], findings


def held_out(images: Images, names: Sequence[str]) -> tuple[Bools, Bools]:
    """Images of held-out combinations, and other images in their groups.

    Parameters
    ----------
    images : Images
    names : sequence of str
        Combinations.

    Returns
    -------
    unseen, left_out : ndarray of shape (n_images,), bool

    Raises
    ------
    SplitError
        If a class would have no image left to train on.
    UnknownNameError
        If there is no such combination.
    """
    known = {name for name in images.combinations if name is not None}
    for name in names:
        if name not in known:
            raise UnknownNameError("combination", name, known)
    unseen = np.array([combination in names for combination in images.combinations], dtype=bool)
    left_out = np.isin(images.groups, images.groups[unseen]) & ~unseen
    trained = images.has[~(unseen | left_out)].any(axis=0)
    for k in np.flatnonzero(images.has[unseen].any(axis=0) & ~trained):
        attribute, label = images.classes[k]
        raise SplitError(
            f"Holding out {', '.join(names)} leaves no training image of the class {label!r} of "
            f"{attribute!r}. Hold out fewer combinations."
        )
    return unseen, left_out


def _is_separable(images: Images, name: str, settings: SplitSettings) -> bool:
    try:
        unseen, left_out = held_out(images, (name,))
        refuse_rare_classes(images.take(np.flatnonzero(~(unseen | left_out))), settings)
    except SplitError:
        return False
    return True
