"""The images to split: their classes and groups."""

from collections.abc import Container, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from featurepipe.errors import SplitError
from featurepipe.manifest import Labels, Manifest
from featurepipe.splits.split_settings import SplitSettings

# One for training, one for testing, and one more for the inner folds.
MIN_GROUPS = 3

NO_DUPLICATES: Mapping[str, int] = MappingProxyType({})

Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Images:
    """Images to split.

    Attributes
    ----------
    ids : ndarray of shape (n_images,), str objects, sorted
    groups : ndarray of shape (n_images,), int64
        Group of each image, numbered from 0 without gaps.
    combinations : ndarray of shape (n_images,), str objects or None
    classes : tuple of (str, str)
        Attribute and class of each column of `has`.
    has : ndarray of shape (n_images, n_classes), bool
    n_listed : ndarray of shape (n_classes,), int64
        Images of each class in the manifest, also those that are not split.
    group_column : str or None
        Column of the label table that `groups` includes.
    """

    ids: NDArray[np.object_]
    groups: Integers
    combinations: NDArray[np.object_]
    classes: tuple[tuple[str, str], ...]
    has: Bools
    n_listed: Integers
    group_column: str | None

    def take(self, rows: NDArray[np.intp]) -> "Images":
        """Some of the images, with groups renumbered.

        Parameters
        ----------
        rows : ndarray of int
        """
        groups = np.unique(self.groups[rows], return_inverse=True)[1].astype(np.int64)
        return replace(
            self,
            ids=self.ids[rows],
            groups=groups,
            combinations=self.combinations[rows],
            has=self.has[rows],
        )

    def groups_have(self) -> Bools:
        """Which classes each group has: bool of shape (n_groups, n_classes)."""
        rows, columns = np.nonzero(self.has)
        have = np.zeros((self.groups.max(initial=-1) + 1, len(self.classes)), dtype=bool)
        have[self.groups[rows], columns] = True
        return have


def divisible_ids(manifest: Manifest, readable: Container[str]) -> NDArray[np.object_]:
    """Ids of the images to split: those with labels and features.

    Parameters
    ----------
    manifest : Manifest
    readable : container of str
        Ids of readable images.

    Returns
    -------
    ndarray of shape (n_images,), str objects, sorted
    """
    return manifest.ids[_divisible_rows(manifest, manifest.labels(), readable)]


def _divisible_rows(
    manifest: Manifest, labels: Mapping[str, Labels], readable: Container[str]
) -> NDArray[np.intp]:
    labelled = np.any([of_attribute.labelled for of_attribute in labels.values()], axis=0)
    is_readable = np.array([image_id in readable for image_id in manifest.ids], dtype=bool)
    return np.flatnonzero(labelled & is_readable)


def divisible_images(
    manifest: Manifest,
    digests: Mapping[str, bytes | str],
    settings: SplitSettings,
    alike: Mapping[str, int],
) -> Images:
    """The images to split, with their groups.

    Parameters
    ----------
    manifest : Manifest
    digests : mapping of str to bytes or str
        Digest of the bytes of each readable image, by its id.
    settings : SplitSettings
        Defines the groups.
    alike : mapping of str to int
        Near-duplicate group of each image that has near-duplicates.

    Raises
    ------
    SplitError
        If there is no image to split.
    UnknownNameError
        If there is no such group column.
    """
    if settings.group not in (None, manifest.group_column):
        manifest = manifest.relabelled(group=settings.group)
    labels = manifest.labels()
    rows = _divisible_rows(manifest, labels, digests)
    ids = manifest.ids[rows]
    if not len(ids):
        raise SplitError(
            f"None of the {len(manifest)} images has a label and features ({len(digests)} have "
            f"features). Each class needs at least {MIN_GROUPS}. Pass labels with --labels, or "
            "check the images."
        )
    keys: list[Sequence[Hashable]] = [[digests[image_id] for image_id in ids]]
    if manifest.group_column is not None:
        values = manifest.cells[manifest.group_column]
        keys.append([values[row] for row in rows])
    if settings.group_duplicates:
        keys.append([alike.get(image_id) for image_id in ids])
    return Images(
        ids=ids,
        groups=_join(len(ids), keys),
        combinations=manifest.combinations().to_numpy(dtype=object)[rows],
        classes=tuple((name, label) for name in labels for label in labels[name].classes),
        has=np.hstack([of_attribute.indicator[rows] for of_attribute in labels.values()]),
        n_listed=np.hstack([each.indicator.sum(axis=0) for each in labels.values()]),
        group_column=manifest.group_column,
    )


def _join(n_rows: int, keys: Sequence[Sequence[Hashable]]) -> Integers:
    """Number rows so that rows with an equal key, directly or through others, share a number."""
    edges: list[tuple[int, int]] = []
    for values in keys:
        row_of: dict[Hashable, int] = {}
        edges += [
            (row, row_of.setdefault(value, row))
            for row, value in enumerate(values)
            if value is not None
        ]
    rows, firsts = np.array(edges, np.intp).reshape(-1, 2).T
    graph = coo_array((np.ones(len(rows)), (rows, firsts)), shape=(n_rows, n_rows))
    return connected_components(graph, directed=False)[1].astype(np.int64)
