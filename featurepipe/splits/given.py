"""The predefined split of the images."""

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import SplitError
from featurepipe.splits.divisible import Images
from featurepipe.splits.split import Split, new_split
from featurepipe.splits.split_settings import DUPLICATES_GROUPED, GIVEN, SplitSettings
from featurepipe.words import counted, examples, listed


def given_split(images: Images, given: NDArray[np.object_], asked: SplitSettings) -> Split:
    """The predefined split, without training images that share a group with test images.

    Parameters
    ----------
    images : Images
    given : ndarray of shape (n_images,), str objects
        ``"train"`` or ``"test"``.
    asked : SplitSettings

    Raises
    ------
    SplitError
        If there are no test images, or a class has no training image.
    """
    is_test = given == "test"
    left_out = ~is_test & np.isin(images.groups, images.groups[is_test])
    is_train = ~is_test & ~left_out
    findings = []
    if asked.test_size != SplitSettings.test_size:
        findings.append(
            f"The images have a predefined split: ignoring --test-size {asked.test_size}"
        )
    if left_out.any():
        findings.append(
            f"Leaving out {counted(images.ids[left_out], 'training image')} in one group with test "
            f"images: {examples(images.ids[left_out].tolist())}"
        )
    if not is_test.any():
        raise SplitError(
            "The predefined split has no test image with a label and features. Check the images, "
            "or draw another split, for example with --repeats 2."
        )
    has_train, has_test = images.has[is_train].any(axis=0), images.has[is_test].any(axis=0)
    names = [f"{label!r} of {attribute!r}" for attribute, label in images.classes]
    untrained = [name for name, trained in zip(names, has_train, strict=True) if not trained]
    if untrained:
        raise SplitError(
            f"Classes without a training image in the predefined split: {listed(untrained)}. "
            "Change the labels, or draw another split, for example with --repeats 2."
        )
    untested = [name for name, tested in zip(names, has_test, strict=True) if not tested]
    if untested:
        findings.append(f"Classes without a test image in the predefined split: {listed(untested)}")
    # A predefined split does not depend on the other settings.
    settings = SplitSettings(group_duplicates=asked.group_duplicates)
    name = f"{GIVEN}{DUPLICATES_GROUPED if settings.group_duplicates else ''}"
    return new_split(images, given, left_out, name, settings, 0, findings)
