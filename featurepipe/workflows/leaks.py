"""Warnings about what makes test figures too good."""

import logging
from collections.abc import Collection, Sequence

import pandas as pd

from featurepipe.features.imagenet import imagenet_classes_among
from featurepipe.manifest import Manifest
from featurepipe.models.studies.near_duplicates import NearDuplicates
from featurepipe.reports.csv_text import write_csv
from featurepipe.splits import Split
from featurepipe.words import counted
from featurepipe.workflows.dividing import ImagesToSplit
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)

COLUMNS = ["image", "part", "other_image", "other_part", "distance", "store"]


def warn_of_imagenet_classes(manifest: Manifest, weights: Collection[str]) -> None:
    """Warn of classes that the backbones were trained to tell apart.

    Parameters
    ----------
    manifest : Manifest
    weights : collection of str
        Kinds of the backbones' weights; see `featurepipe.features.weights.Weights`.
    """
    if not set(weights) - {"random", "none"}:
        return
    labels = manifest.labels()
    classes = dict.fromkeys(name for truth in labels.values() for name in truth.classes)
    known = imagenet_classes_among(classes)
    if known:
        logger.warning(
            "%d of %d classes have names of ImageNet's own 1,000. If the weights were trained on "
            "ImageNet, the backbone has seen this task before: %s",
            len(known), len(classes), ", ".join(known),
        )  # fmt: skip


def warn_of_near_duplicates(images: ImagesToSplit, splits: Sequence[Split]) -> None:
    """Warn of near-duplicates across training and other images, and list them beside the split.

    They are also remembered, since finding them takes long.

    Parameters
    ----------
    images : ImagesToSplit
    splits : sequence of Split
    """
    near_duplicates = images.known_near_duplicates()
    if near_duplicates is not None:
        images.remember_near_duplicates()
        for split in splits:
            _list_near_duplicates(images.workspace, split, near_duplicates)


def _list_near_duplicates(
    workspace: Workspace, split: Split, near_duplicates: NearDuplicates
) -> None:
    path = workspace.near_duplicates(split.name)
    part_of = dict(zip(split.ids, split.parts, strict=True))
    leaks = near_duplicates.across(part_of)
    if not len(leaks):
        path.unlink(missing_ok=True)
        return
    rows = [
        [first, part_of[first], second, part_of[second], distance, leaks.store]
        for (first, second), distance in zip(leaks.ids, leaks.distances, strict=True)
    ]
    write_csv(pd.DataFrame(rows, columns=COLUMNS), path, "%.4f")
    first, second = leaks.ids[0]
    logger.warning(
        "Split %s: %s of near-duplicates (by %s) between training and other images, for example "
        "%s and %s. Test figures may be too good. All pairs are in %s; --group-duplicates keeps "
        "them on one side.",
        split.name, counted(leaks, "pair"), leaks.store, first, second, path,
    )  # fmt: skip
