"""The split that came with the images."""

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import SplitError
from featurepipe.manifest.words import counted, examples
from featurepipe.splits.divisible import Images
from featurepipe.splits.split import Split, new_split
from featurepipe.splits.split_settings import DUPLICATES_GROUPED, GIVEN, SplitSettings


def given_split(images: Images, given: NDArray[np.object_], asked: SplitSettings) -> Split:
    """The given division, without training images that belong together with test images.

    Parameters
    ----------
    images : Images
    given : ndarray of shape (n_images,), str objects
        ``"train"`` or ``"test"``.
    asked : SplitSettings

    Raises
    ------
    SplitError
        If there is nothing to test on, or a class would not be trained on.
    """
    is_test = given == "test"
    left_out = ~is_test & np.isin(images.groups, images.groups[is_test])
    is_train = ~is_test & ~left_out
    findings = []
    if asked.test_size != SplitSettings.test_size:
        findings.append(f"The images come with a split: the test size {asked.test_size} is unused")
    if left_out.any():
        findings.append(
            f"{counted(images.ids[left_out], 'image')} of the given training part left out, "
            f"belonging together with test images: {examples(images.ids[left_out].tolist())}"
        )
    if not is_test.any():
        raise SplitError(
            "The given split has no test image that is labelled and readable: expected some. Mend "
            "them, or ask for another split, such as --repeats 2."
        )
    has_train, has_test = images.has[is_train].any(axis=0), images.has[is_test].any(axis=0)
    untrained = [images.classes[k] for k in np.flatnonzero(~has_train)]
    if untrained:
        attribute, label = untrained[0]
        raise SplitError(
            f"Class {label!r} of {attribute!r} has no training image in the given split: expected "
            "some of every class. Change its labels, or ask for another split, such as --repeats 2."
        )
    untested = [f"{label} ({attribute})" for attribute, label in images.classes]
    untested = [name for name, tested in zip(untested, has_test, strict=True) if not tested]
    if untested:
        findings.append(f"Classes without a test image in the given split: {examples(untested)}")
    # No other setting plays a role in a given split, so it is the same whatever they are.
    settings = SplitSettings(group_duplicates=asked.group_duplicates)
    name = f"{GIVEN}{DUPLICATES_GROUPED if settings.group_duplicates else ''}"
    return new_split(images, given, left_out, name, settings, 0, findings)
