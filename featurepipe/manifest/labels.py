"""Labels of images for one attribute."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from featurepipe.manifest.cells import Cell

ALL = "all"
"""Stands for all attributes together, so that no attribute has this name."""


@dataclass(frozen=True)
class Labels:
    """The labels of some images for one attribute.

    Attributes
    ----------
    attribute : str
        Name, such as ``"color"``.
    classes : tuple of str, sorted
        Possible classes.
    exclusive : bool
        True if every labelled image has exactly one class; False if images have sets of them.
    indicator : ndarray of shape (n_images, n_classes), bool
        Which classes each image has; all False where the label is missing.
    labelled : ndarray of shape (n_images,), bool
        False where the label is missing.
    """

    attribute: str
    classes: tuple[str, ...]
    exclusive: bool
    indicator: NDArray[np.bool_]
    labelled: NDArray[np.bool_]

    @property
    def codes(self) -> NDArray[np.intp]:
        """Index of each image's class, -1 where missing; for exclusive attributes.

        Returns
        -------
        ndarray of shape (n_images,), intp
        """
        return np.where(self.labelled, self.indicator.argmax(axis=1), -1)

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> "Labels":
        """The same for some of the images.

        Parameters
        ----------
        rows : ndarray of int or bool
            Positions or a mask.
        """
        return replace(self, indicator=self.indicator[rows], labelled=self.labelled[rows])

    def __len__(self) -> int:
        return len(self.labelled)


def labels_of(attribute: str, cells: Sequence[Cell]) -> Labels:
    """Labels from one cell per image.

    Parameters
    ----------
    attribute : str
        The attribute's name.
    cells : sequence of (tuple of str or None)
        Class names of each image; None where the label is missing.
    """
    classes = tuple(sorted({name for cell in set(cells) for name in cell or ()}))
    column_of = {name: column for column, name in enumerate(classes)}
    indicator = np.zeros((len(cells), len(classes)), dtype=bool)
    counts = np.fromiter((len(cell or ()) for cell in cells), np.intp, len(cells))
    columns = (column_of[name] for cell in cells for name in cell or ())
    rows = np.repeat(np.arange(len(cells)), counts)
    indicator[rows, np.fromiter(columns, np.intp, len(rows))] = True
    return Labels(
        attribute=attribute,
        classes=classes,
        exclusive=are_exclusive(cells),
        indicator=indicator,
        labelled=np.fromiter((cell is not None for cell in cells), bool, len(cells)),
    )


def are_exclusive(cells: Iterable[Cell]) -> bool:
    """Whether no image has several classes, or none of them, instead of one.

    Parameters
    ----------
    cells : iterable of (tuple of str or None)
        Class names of each image; None where the label is missing.
    """
    return all(len(cell) == 1 for cell in cells if cell is not None)
