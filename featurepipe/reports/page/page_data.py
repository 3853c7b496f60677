"""PageData: what a page needs to know of images, labels and splits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from featurepipe.manifest import Labels


@dataclass(frozen=True)
class PageSplit:
    """A split as the page shows it.

    Attributes
    ----------
    name : str
    parts : ndarray of shape (n_images,), str objects
        ``"train"``, ``"test"`` or ``"unseen"`` for each image of the manifest; empty for others.
    held_out : tuple of str
        Combinations that training never saw.
    left_out : int
        Images that could be on no side without a leak.
    n_groups, n_grouped : int
        Groups of several images that stay on one side, and their images.
    group : str or None
        Column whose values name images that belong together.
    groups_duplicates : bool
        Whether near-duplicates stay on one side.
    leaks : sequence of (str, str), or None
        Pairs of near-duplicates, one in training and the other not; None if nobody searched.
    findings : tuple of str
    """

    name: str
    parts: NDArray[np.object_]
    held_out: tuple[str, ...] = ()
    left_out: int = 0
    n_groups: int = 0
    n_grouped: int = 0
    group: str | None = None
    groups_duplicates: bool = False
    leaks: Sequence[tuple[str, str]] | None = None
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class PageData:
    """Images and labels as the page shows them.

    Attributes
    ----------
    root : str
        Where the images are.
    labels : mapping of str to Labels
        Of all images of the manifest, by attribute.
    n_images : int
    refused : mapping of str to str
        Images that could not be read, with the reason.
    unknown_stores : sequence of str
        Stores that runs read and that are gone, so that the images they refused are not known.
    imagenet_classes : sequence of str
        Classes that pretrained backbones may have seen, by their names.
    findings : tuple of str
        What reading images and labels found.
    splits : mapping of str to PageSplit
        Those of the runs, by name, in order of creation.
    """

    root: str
    labels: Mapping[str, Labels]
    n_images: int
    refused: Mapping[str, str] = field(default_factory=dict)
    unknown_stores: Sequence[str] = ()
    imagenet_classes: Sequence[str] = ()
    findings: tuple[str, ...] = ()
    splits: Mapping[str, PageSplit] = field(default_factory=dict)

    @property
    def exclusive(self) -> list[str]:
        """Attributes of which every labelled image has exactly one class."""
        return [name for name, labels in self.labels.items() if labels.exclusive]
