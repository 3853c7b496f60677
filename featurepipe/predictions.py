"""What a head said about some images: where models and reports meet."""

import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import RunError
from featurepipe.files import replacing
from featurepipe.manifest import Labels

PARTS = ("train", "test", "unseen")
TASKS = ("per-attribute", "multi-label", "joint")
ALL = "all"
COVERAGE = 0.95
"""Share of images like those trained on that are to be answered, unless said otherwise."""


@dataclass(frozen=True)
class Predictions:
    """Probabilities that one head gave to some images, beside the truth.

    Attributes
    ----------
    ids : ndarray of shape (n_images,), str
        Image ids.
    parts : ndarray of shape (n_images,), str
        ``"train"`` for rows predicted out of fold, ``"test"`` or ``"unseen"``.
    groups : ndarray of shape (n_images,), int64
        Images of one number belong together, such as copies or photographs of one
        patient: they are no independent evidence.
    task : str
        ``"per-attribute"``, ``"multi-label"`` or ``"joint"``.
    labels : dict of str to Labels
        The truth for each attribute, over all classes that the manifest knows.
    scores : dict of str to ndarray of shape (n_images, n_classes), float64
        Raw probabilities for each attribute, in [0, 1]. Rows of an exclusive
        attribute sum to 1, but for the multi-label task, where each label has a
        probability of its own. A class that was never trained has 0.
    thresholds : dict of str to ndarray of shape (n_classes,), float64
        A label is given where its score is above this; 0.5 each unless said.
    p_values : dict of str to ndarray of shape (n_images,), float64
        How much each image is like those trained on, in (0, 1], for each attribute;
        1 unless said. See `featurepipe.models.answers.rejection.Rejector.p_values`.
    """

    ids: NDArray[np.str_]
    parts: NDArray[np.str_]
    groups: NDArray[np.int64]
    task: str
    labels: dict[str, Labels]
    scores: dict[str, NDArray[np.float64]]
    thresholds: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    p_values: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        usual = {name: np.full(len(each.classes), 0.5) for name, each in self.labels.items()}
        object.__setattr__(self, "thresholds", usual | self.thresholds)
        familiar = {name: np.ones(len(self.ids)) for name in self.labels}
        object.__setattr__(self, "p_values", familiar | self.p_values)
        shapes_fit = (
            self.parts.shape == self.groups.shape == self.ids.shape == (len(self.ids),)
            and np.issubdtype(self.groups.dtype, np.integer)
            and list(self.labels) == list(self.scores) == list(self.thresholds)
            and all(self.scores[name].shape == _shape(self.labels[name]) for name in self.labels)
            and all(len(labels) == len(self.ids) for labels in self.labels.values())
            and all(self.thresholds[name].shape == usual[name].shape for name in usual)
            and list(self.labels) == list(self.p_values)
            and all(values.shape == self.ids.shape for values in self.p_values.values())
        )
        if not (shapes_fit and self.task in TASKS and np.isin(self.parts, PARTS).all()):
            raise ValueError("ids, parts, groups, task, labels and scores do not fit each other")

    def __len__(self) -> int:
        return len(self.ids)

    def probabilities(self, attribute: str) -> NDArray[np.float64]:
        """Probability of each class of an attribute.

        Parameters
        ----------
        attribute : str

        Returns
        -------
        ndarray of shape (n_images, n_classes), float64
            For an exclusive attribute of a multi-label run the labels'
            probabilities over their sum, uniform where all are 0; else `scores`.
        """
        scores = self.scores[attribute]
        if self.task == "multi-label" and self.labels[attribute].exclusive:
            return normalized(scores)
        return scores

    def given(self, attribute: str) -> NDArray[np.bool_]:
        """Which labels each image is given, each by its own threshold.

        Parameters
        ----------
        attribute : str

        Returns
        -------
        ndarray of shape (n_images, n_classes), bool
        """
        return self.scores[attribute] > self.thresholds[attribute]

    def correct(self, attribute: str) -> NDArray[np.bool_]:
        """Which images' answers are right.

        Parameters
        ----------
        attribute : str

        Returns
        -------
        ndarray of shape (n_images,), bool
            Exclusive attribute: the most probable class is the true one. Else:
            the labels that are `given` are exactly the true ones.
            False where the label is missing.
        """
        labels = self.labels[attribute]
        if labels.exclusive:
            return self.probabilities(attribute).argmax(axis=1) == labels.codes
        right = self.given(attribute) == labels.indicator
        return right.all(axis=1) & labels.labelled

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> "Predictions":
        """The same for some of the images.

        Parameters
        ----------
        rows : ndarray of int or bool
            Positions or a mask.
        """
        return replace(
            self,
            ids=self.ids[rows],
            parts=self.parts[rows],
            groups=self.groups[rows],
            labels={name: labels.take(rows) for name, labels in self.labels.items()},
            scores={name: scores[rows] for name, scores in self.scores.items()},
            p_values={name: values[rows] for name, values in self.p_values.items()},
        )

    def select(self, part: str) -> "Predictions":
        """The images of one part.

        Parameters
        ----------
        part : str
            ``"train"``, ``"test"`` or ``"unseen"``.
        """
        return self.take(self.parts == part)

    def save(self, path: Path) -> None:
        """Write to an ``.npz`` file of plain arrays, whole or not at all.

        Parameters
        ----------
        path : Path

        Raises
        ------
        DiskFullError
            If the disk has no room left.
        """
        arrays = {
            "ids": self.ids.astype(np.str_),
            "parts": self.parts.astype(np.str_),
            "groups": self.groups.astype(np.int64),
            "task": np.array(self.task),
            "attributes": np.array(list(self.labels), dtype=np.str_),
        }
        for position, (name, labels) in enumerate(self.labels.items()):
            arrays[f"classes_{position}"] = np.array(labels.classes, dtype=np.str_)
            arrays[f"exclusive_{position}"] = np.array(labels.exclusive)
            arrays[f"indicator_{position}"] = labels.indicator
            arrays[f"labelled_{position}"] = labels.labelled
            arrays[f"scores_{position}"] = self.scores[name]
            arrays[f"p_values_{position}"] = self.p_values[name]
            arrays[f"thresholds_{position}"] = self.thresholds[name]
        with replacing(path) as beside, beside.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Predictions":
        """Read what `save` wrote; nothing in the file is executed.

        Parameters
        ----------
        path : Path

        Raises
        ------
        RunError
            If the file is missing, damaged or another kind of file.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls._from_arrays(arrays)
        # What a damaged archive raises depends on the byte that is damaged.
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            reason = "is missing" if isinstance(error, FileNotFoundError) else "cannot be read"
            raise RunError(
                f"The predictions {path} {reason} ({error}). Expected a file that featurepipe "
                "fit has written; fit the run again."
            ) from error

    @classmethod
    def _from_arrays(cls, arrays: np.lib.npyio.NpzFile) -> "Predictions":
        names = [str(name) for name in arrays["attributes"]]
        labels = {
            name: Labels(
                attribute=name,
                classes=tuple(str(label) for label in arrays[f"classes_{position}"]),
                exclusive=bool(arrays[f"exclusive_{position}"]),
                indicator=arrays[f"indicator_{position}"],
                labelled=arrays[f"labelled_{position}"],
            )
            for position, name in enumerate(names)
        }
        scores = {name: arrays[f"scores_{position}"] for position, name in enumerate(names)}
        thresholds = {name: arrays[f"thresholds_{position}"] for position, name in enumerate(names)}
        p_values = {name: arrays[f"p_values_{position}"] for position, name in enumerate(names)}
        return cls(
            ids=arrays["ids"],
            parts=arrays["parts"],
            groups=arrays["groups"],
            task=str(arrays["task"]),
            labels=labels,
            scores=scores,
            thresholds=thresholds,
            p_values=p_values,
        )


def normalized(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each row over its sum.

    Parameters
    ----------
    scores : ndarray of shape (n_images, n_classes), float64
        Not negative.

    Returns
    -------
    ndarray of shape (n_images, n_classes), float64
        Rows sum to 1; rows of zeros become uniform.
    """
    total = scores.sum(axis=1, keepdims=True)
    uniform = np.full_like(scores, 1 / scores.shape[1])
    return np.divide(scores, total, out=uniform, where=total > 0)


def answer_confidence(
    probabilities: NDArray[np.float64], thresholds: NDArray[np.float64], *, exclusive: bool
) -> NDArray[np.float64]:
    """Probability of the answer that is given: a class, or a set of independent labels.

    Parameters
    ----------
    probabilities : ndarray of shape (n_images, n_classes), float64
    thresholds : ndarray of shape (n_classes,), float64
        Above them labels of a set are given; without meaning for exclusive classes.
    exclusive : bool
        True if each image has exactly one class.

    Returns
    -------
    ndarray of shape (n_images,), float64
        In [0, 1].
    """
    if exclusive:
        return probabilities.max(axis=1)
    return np.where(probabilities > thresholds, probabilities, 1 - probabilities).prod(axis=1)


def _shape(labels: Labels) -> tuple[int, int]:
    return labels.indicator.shape[0], len(labels.classes)
