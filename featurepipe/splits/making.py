"""Splits out of a manifest: given, or drawn at random beside held-out combinations."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from featurepipe.manifest import SPLIT_COLUMN, Manifest
from featurepipe.manifest.words import counted, examples
from featurepipe.splits.divisible import NO_DUPLICATES, divisible_images
from featurepipe.splits.drawing import draw_test, refuse_rare_classes
from featurepipe.splits.given import given_split
from featurepipe.splits.holding_out import held_out
from featurepipe.splits.split import Split, new_split
from featurepipe.splits.split_settings import SplitSettings, split_name


def make_splits(
    manifest: Manifest,
    digests: Mapping[str, bytes | str],
    settings: SplitSettings,
    alike: Mapping[str, int] = NO_DUPLICATES,
) -> list[Split]:
    """Divide the labelled and readable images.

    A split that came with the images serves, unless held-out combinations, a group
    or repeats are asked for; its training images that belong together with test
    images are left out. Otherwise groups are drawn at random, each set of labels in
    its share (rare sets together with others of their rarest label), so that every
    class has a group in training and in test; that goes before the share.

    Parameters
    ----------
    manifest : Manifest
    digests : mapping of str to bytes or str
        Digest of the bytes of each readable image, by its id.
    settings : SplitSettings
    alike : mapping of str to int, optional
        Number of the near-duplicates of each image that has any; they belong
        together if the settings say so.

    Returns
    -------
    list of Split
        One per repeat. The same arguments give the same splits.

    Raises
    ------
    SplitError
        If a class has too few images, or would not be trained on.
    UnknownNameError
        If there is no such combination or group column.
    """
    use_given = not settings.hold_out and settings.group is None and settings.repeats == 1
    images = divisible_images(manifest, digests, settings, alike)
    if use_given and SPLIT_COLUMN in manifest.table:
        given = manifest.table[SPLIT_COLUMN].loc[images.ids.tolist()]
        return [given_split(images, given.to_numpy(dtype=object), settings)]
    settings = replace(settings, group=images.group_column)
    unseen, left_out = held_out(images, settings.hold_out)
    rest = np.flatnonzero(~(unseen | left_out))
    refuse_rare_classes(images.take(rest), settings)
    findings = _grouping(alike) if settings.group_duplicates else []
    if left_out.any():
        findings.append(
            f"{counted(images.ids[left_out], 'image')} left out, belonging together with "
            f"held-out images: {examples(images.ids[left_out].tolist())}"
        )
    splits = []
    for repeat in range(settings.repeats):
        parts = np.where(unseen, "unseen", "train").astype(object)
        parts[rest[draw_test(images.take(rest), settings, repeat)]] = "test"
        name = split_name(settings, repeat)
        splits.append(new_split(images, parts, left_out, name, settings, repeat, findings))
    return splits


def _grouping(alike: Mapping[str, int]) -> list[str]:
    sizes = Counter(alike.values())
    if not sizes:
        return []
    return [
        f"{counted(alike, 'image')} kept together with near-duplicates, in "
        f"{counted(sizes, 'group')}; the largest has {max(sizes.values())}"
    ]
