"""Makes splits: predefined, or drawn at random, with held-out combinations."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from featurepipe.manifest import SPLIT_COLUMN, Manifest
from featurepipe.splits.divisible import NO_DUPLICATES, divisible_images
from featurepipe.splits.drawing import draw_test, refuse_rare_classes
from featurepipe.splits.given import given_split
from featurepipe.splits.holding_out import held_out
from featurepipe.splits.split import Split, new_split
from featurepipe.splits.split_settings import SplitSettings, split_name
from featurepipe.words import counted, examples


def make_splits(
    manifest: Manifest,
    digests: Mapping[str, bytes | str],
    settings: SplitSettings,
    alike: Mapping[str, int] = NO_DUPLICATES,
) -> list[Split]:
    """Split the images that have labels and features.

    A predefined split is used unless the settings hold out combinations, group or repeat;
    its training images that share a group with test images are left out. Otherwise groups
    are drawn at random, stratified by sets of labels (rare sets by their rarest label).
    Every class gets a group on both sides, even if that changes the test size.

    Parameters
    ----------
    manifest : Manifest
    digests : mapping of str to bytes or str
        Digest of the bytes of each readable image, by its id.
    settings : SplitSettings
    alike : mapping of str to int, optional
        Near-duplicate group of each image that has near-duplicates; used if the
        settings group duplicates.

    Returns
    -------
    list of Split
        One per repeat. The same arguments give the same splits.

    Raises
    ------
    SplitError
        If a class has too few images, or would have no training image.
    UnknownNameError
        If there is no such combination or group column.
    """
    use_given = not settings.hold_out and settings.group is None and settings.repeats == 1
    images = divisible_images(manifest, digests, settings, alike)
    if use_given and SPLIT_COLUMN in manifest.cells:
        given = manifest.table[SPLIT_COLUMN].loc[images.ids.tolist()]
        return [given_split(images, given.to_numpy(dtype=object), settings)]
    settings = replace(settings, group=images.group_column)
    unseen, left_out = held_out(images, settings.hold_out)
    rest = np.flatnonzero(~(unseen | left_out))
    refuse_rare_classes(images.take(rest), settings)
    findings = _grouping(alike) if settings.group_duplicates else []
    if left_out.any():
        findings.append(
            f"Leaving out {counted(images.ids[left_out], 'image')} in one group with held-out "
            f"images: {examples(images.ids[left_out].tolist())}"
        )
    splits = []
    for repeat in range(settings.repeats):
        # Objects made from an array of text would be one for each image.
        parts = np.full(len(unseen), "train", dtype=object)
        parts[unseen] = "unseen"
        parts[rest[draw_test(images.take(rest), settings, repeat)]] = "test"
        name = split_name(settings, repeat)
        splits.append(new_split(images, parts, left_out, name, settings, repeat, findings))
    return splits


def _grouping(alike: Mapping[str, int]) -> list[str]:
    sizes = Counter(alike.values())
    if not sizes:
        return []
    return [
        f"Keeping {counted(alike, 'near-duplicate image')} together in {counted(sizes, 'group')}; "
        f"the largest has {max(sizes.values())}"
    ]
