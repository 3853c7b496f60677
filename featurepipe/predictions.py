"""What a head predicts for some images, beside the truth: where models and reports meet."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import UnknownNameError
from featurepipe.manifest import ALL as ALL
from featurepipe.manifest import Labels
from featurepipe.metrics import label_set_log_losses, log_losses
from featurepipe.probabilities import answer_confidence, normalized, usual_thresholds

PARTS = ("train", "test", "unseen")
COVERAGE = 0.95
"""Target share of familiar images that get an answer, unless another is given."""

_NO_ARRAYS: Mapping[str, NDArray[np.float64]] = MappingProxyType({})


class Task(StrEnum):
    """How heads share the attributes of a run."""

    PER_ATTRIBUTE = "per-attribute"
    """One head for each attribute."""

    MULTI_LABEL = "multi-label"
    """One head with an independent probability for each label of all attributes."""

    JOINT = "joint"
    """One head over the combinations of classes that training images have."""

    @classmethod
    def named(cls, name: str) -> Self:
        """The task of this name.

        Parameters
        ----------
        name : str

        Raises
        ------
        UnknownNameError
            If there is no such task.
        """
        if name not in list(cls):
            raise UnknownNameError("task", name, [task.value for task in cls])
        return cls(name)


@dataclass(frozen=True)
class Predictions:
    """Probabilities that the heads of one run give to some images, beside the truth.

    `Predictions.of` fills in the usual thresholds and p-values.

    Attributes
    ----------
    ids : ndarray of shape (n_images,), str
        Image ids.
    parts : ndarray of shape (n_images,), str
        ``"train"`` for rows predicted out of fold, ``"test"`` or ``"unseen"``.
    groups : ndarray of shape (n_images,), int64
        Images with the same number belong together, such as copies or photographs of one
        patient. They are not independent evidence.
    task : Task
    labels : dict of str to Labels
        The truth for each attribute, over all classes that the manifest knows.
    scores : dict of str to ndarray of shape (n_images, n_classes), float64
        Raw probabilities for each attribute, in [0, 1]. Rows of an exclusive attribute sum
        to 1, except in the multi-label task, where each label has an independent
        probability. A class without training images has 0.
    thresholds : dict of str to ndarray of shape (n_classes,), float64
        A label of a set is given where its score is above its threshold.
    p_values : dict of str to ndarray of shape (n_images,), float64
        How similar each image is to the training images, in (0, 1], for each attribute. See
        `featurepipe.models.answers.rejection.Rejector.p_values`.
    image_p_values : dict of str to ndarray of shape (n_images,), float64
        The same over all attributes together; see
        `featurepipe.models.answers.head_model.HeadModel.image_p_values`.

    Raises
    ------
    ValueError
        If shapes, names or parts do not fit each other.
    """

    ids: NDArray[np.str_]
    parts: NDArray[np.str_]
    groups: NDArray[np.int64]
    task: Task
    labels: dict[str, Labels]
    scores: dict[str, NDArray[np.float64]]
    thresholds: dict[str, NDArray[np.float64]]
    p_values: dict[str, NDArray[np.float64]]
    image_p_values: dict[str, NDArray[np.float64]]

    def __post_init__(self) -> None:
        names, n_images = list(self.labels), len(self.ids)
        by_attribute = (self.scores, self.thresholds, self.p_values, self.image_p_values)
        fits = (
            self.parts.shape == self.groups.shape == self.ids.shape == (n_images,)
            and np.issubdtype(self.groups.dtype, np.integer)
            and np.isin(self.parts, PARTS).all()
            and all(list(arrays) == names for arrays in by_attribute)
            and all(self._fits(name, n_images) for name in names)
        )
        if not fits:
            raise ValueError("ids, parts, groups, labels, scores do not fit each other")

    def _fits(self, attribute: str, n_images: int) -> bool:
        n_classes = len(self.labels[attribute].classes)
        return (
            len(self.labels[attribute]) == n_images
            and self.scores[attribute].shape == (n_images, n_classes)
            and self.thresholds[attribute].shape == (n_classes,)
            and self.p_values[attribute].shape == (n_images,)
            and self.image_p_values[attribute].shape == (n_images,)
        )

    @classmethod
    def of(
        cls,
        ids: NDArray[np.str_],
        parts: NDArray[np.str_],
        groups: NDArray[np.int64],
        task: str,
        labels: dict[str, Labels],
        scores: dict[str, NDArray[np.float64]],
        thresholds: Mapping[str, NDArray[np.float64]] = _NO_ARRAYS,
        p_values: Mapping[str, NDArray[np.float64]] = _NO_ARRAYS,
        image_p_values: Mapping[str, NDArray[np.float64]] = _NO_ARRAYS,
    ) -> Self:
        """Predictions whose missing thresholds are 0.5 and whose missing p-values are 1.

        Parameters
        ----------
        ids, parts, groups, labels, scores
            See `Predictions`.
        task : str
            A `Task` or its value.
        thresholds, p_values, image_p_values : mapping of str to ndarray, optional
            Those of some attributes; see `Predictions`.

        Raises
        ------
        ValueError
            If there is no such task, or the arrays do not fit each other.
        """
        usual = usual_thresholds(labels)
        familiar = {name: np.ones(len(ids)) for name in labels}
        return cls(
            ids=ids,
            parts=parts,
            groups=groups,
            task=Task(task),
            labels=labels,
            scores=scores,
            thresholds={**usual, **thresholds},
            p_values={**familiar, **p_values},
            image_p_values={**familiar, **image_p_values},
        )

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
            For an exclusive attribute of a multi-label run, the labels' probabilities
            divided by their sum, uniform where all are 0. Otherwise `scores`.
        """
        scores = self.scores[attribute]
        if self.task == Task.MULTI_LABEL and self.labels[attribute].exclusive:
            return normalized(scores)
        return scores

    def given(self, attribute: str) -> NDArray[np.bool_]:
        """Which labels each image is given: those with a score above their threshold.

        Parameters
        ----------
        attribute : str

        Returns
        -------
        ndarray of shape (n_images, n_classes), bool
        """
        return self.scores[attribute] > self.thresholds[attribute]

    def correct(self, attribute: str) -> NDArray[np.bool_]:
        """Which images are answered correctly.

        Parameters
        ----------
        attribute : str

        Returns
        -------
        ndarray of shape (n_images,), bool
            For an exclusive attribute, True where the most probable class is the true one.
            Otherwise, True where the `given` labels are exactly the true ones. False where
            the label is missing.
        """
        labels = self.labels[attribute]
        if labels.exclusive:
            return self.probabilities(attribute).argmax(axis=1) == labels.codes
        right = self.given(attribute) == labels.indicator
        return right.all(axis=1) & labels.labelled

    def log_losses(self, attribute: str) -> NDArray[np.float64]:
        """Negative logarithm of the probability of each image's true class or label set.

        Parameters
        ----------
        attribute : str
            All images are labelled for it.

        Returns
        -------
        ndarray of shape (n_images,), float64
            See `featurepipe.metrics.log_losses` and
            `featurepipe.metrics.label_set_log_losses`.
        """
        labels, probabilities = self.labels[attribute], self.probabilities(attribute)
        if labels.exclusive:
            return log_losses(labels.codes, probabilities)
        return label_set_log_losses(labels.indicator, probabilities)

    def highest_log_losses(self, attribute: str) -> NDArray[np.float64]:
        """The `log_losses` if the least probable class or label set of each image were true.

        Parameters
        ----------
        attribute : str

        Returns
        -------
        ndarray of shape (n_images,), float64
        """
        probabilities = self.probabilities(attribute)
        if self.labels[attribute].exclusive:
            return log_losses(probabilities.argmin(axis=1), probabilities)
        return label_set_log_losses(probabilities < 0.5, probabilities)

    def confidence(self, attribute: str) -> NDArray[np.float64]:
        """Probability of each image's answer; see `featurepipe.probabilities.answer_confidence`.

        Parameters
        ----------
        attribute : str

        Returns
        -------
        ndarray of shape (n_images,), float64
            In [0, 1].
        """
        return answer_confidence(
            self.probabilities(attribute),
            self.thresholds[attribute],
            exclusive=self.labels[attribute].exclusive,
        )

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> "Predictions":
        """Predictions for some of the images.

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
            image_p_values={name: values[rows] for name, values in self.image_p_values.items()},
        )

    def select(self, part: str) -> "Predictions":
        """The images of one part.

        Parameters
        ----------
        part : str
            ``"train"``, ``"test"`` or ``"unseen"``.
        """
        rows = self.parts == part
        # Of a million images, a copy takes as much memory as the features of a chunk.
        return self if rows.all() else self.take(rows)
