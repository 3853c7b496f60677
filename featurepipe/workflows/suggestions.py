"""What a run suggests for unlabelled images, and what it is unsure of, in words."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurepipe.manifest import Manifest
from featurepipe.manifest.tables import Columns
from featurepipe.models.answers.arrays import Probabilities
from featurepipe.models.answers.head_model import HeadModel
from featurepipe.models.studies.label_choice import doubts
from featurepipe.words import counted
from featurepipe.workflows.unlabelled import Unlabelled


@dataclass(frozen=True)
class Suggestions:
    """What a run suggests for each image.

    Attributes
    ----------
    cells : dict of str to list of tuple of str
        For each attribute the label, where it is known, and otherwise the suggested classes.
    classes : dict of str to tuple of str
    exclusive : dict of str to bool
    probabilities : dict of str to ndarray of shape (n_images, n_classes), float64
    doubts : ndarray of shape (n_attributes, n_images), float64
        From 0 (sure, or the label is known) to 1.
    n_labelled : mapping of str to int
        Number of labelled images of each combination of exclusive classes.
    """

    cells: Columns
    classes: dict[str, tuple[str, ...]]
    exclusive: dict[str, bool]
    probabilities: dict[str, Probabilities]
    doubts: NDArray[np.float64]
    n_labelled: Mapping[str, int]

    @property
    def weights(self) -> NDArray[np.float64]:
        """How much each image counts: more if the run is unsure, and if its combination is rare.

        Returns
        -------
        ndarray of shape (n_images,), float64
            Doubt about the least sure attribute, over one more than the number of labelled images
            of the suggested combination.
        """
        doubt = self.doubts.max(axis=0)
        known = [self.n_labelled.get(self._combination(image), 0) for image in range(len(doubt))]
        return doubt / (1 + np.array(known))

    def reason(self, image: int, n_nearest: int) -> str:
        """Why to label an image.

        Parameters
        ----------
        image : int
            Its position.
        n_nearest : int
            How many other images it stands for.
        """
        name = list(self.cells)[self.doubts[:, image].argmax()]
        shares, classes = self.probabilities[name][image], self.classes[name]
        if self.exclusive[name]:
            likely = np.argsort(-shares, kind="stable")[:2]
        else:
            likely = np.abs(shares - 0.5).argsort(kind="stable")[:1]
        words = ", ".join(f"{classes[k]} {100 * shares[k]:.0f} %" for k in likely)
        doubtful = f"least sure of {name} ({words})"
        if np.round(100 * shares[likely[0]]) in (0, 100):
            doubtful = "sure of every attribute"
        combination = self._combination(image)
        is_new = sum(self.exclusive.values()) > 1 and combination not in self.n_labelled
        new = f"; no image of {combination} has a label" if is_new else ""
        others = f"; nearest to {counted(n_nearest, 'other image')}" if n_nearest else ""
        return f"{doubtful}{others}{new}"

    def _combination(self, image: int) -> str:
        """Its classes over all exclusive attributes, as in `Manifest.combinations`."""
        exclusive = [cells[image] for name, cells in self.cells.items() if self.exclusive[name]]
        return "_".join(cell[0] for cell in exclusive if cell)


def suggest(model: HeadModel, images: Unlabelled, manifest: Manifest) -> Suggestions:
    """What a run suggests for images.

    Parameters
    ----------
    model : HeadModel
        The run's heads.
    images : Unlabelled
    manifest : Manifest
        Whose labels say which combinations are known.
    """
    scores = model.predict(images.features)
    answers = model.in_words(scores)
    cells: Columns = {}
    unsure = []
    for name, (classes, probabilities) in answers.items():
        known = images.cells[name]
        given = model.given(name, scores[name])
        cells[name] = [
            _named(classes, row) if cell is None else cell
            for row, cell in zip(given, known, strict=True)
        ]
        is_missing = np.array([cell is None for cell in known])
        unsure.append(doubts(probabilities, exclusive=model.exclusive[name]) * is_missing)
    return Suggestions(
        cells=cells,
        classes=model.classes,
        exclusive=model.exclusive,
        probabilities={name: probabilities for name, (_, probabilities) in answers.items()},
        doubts=np.array(unsure),
        n_labelled=Counter(manifest.combinations().dropna()),
    )


def _named(classes: Sequence[str], given: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(classes[k] for k in np.flatnonzero(given).tolist())
