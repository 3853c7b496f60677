"""HeadModel: the fitted heads of one run, and what they predict."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from featurepipe.models.answers.arrays import Features, Probabilities, Rows, Truth
from featurepipe.models.answers.head import FeatureHead, Head
from featurepipe.models.answers.questions import ALL_LABELS, COMBINATIONS
from featurepipe.models.answers.rejection import Rejector, conformal_p_values
from featurepipe.predictions import Task
from featurepipe.probabilities import answer_confidence, normalized


@dataclass(frozen=True)
class HeadModel:
    """The fitted heads of one run.

    Attributes
    ----------
    task : Task
    classes : dict of str to tuple of str
        The classes of each attribute, in the order of the columns.
    exclusive : dict of str to bool
        Whether an image has exactly one class of an attribute.
    heads : dict of str to Head
        By attribute. In the multi-label task a single head, over the labels of all attributes
        in their order; in the joint task a single head, over `combinations`.
    combinations : ndarray of shape (n_combinations, n_attributes), intp
        The class of each attribute in each combination that the joint task knows; empty in
        the other tasks.
    thresholds : dict of str to ndarray of shape (n_classes,), float64
        For each attribute the probabilities above which labels of a set are given.
    rejectors : dict of str to Rejector
        For each attribute, what recognises images unlike the training images.
    lowest_p_values : ndarray of shape (n_judged,), float64
        Of training images, the lowest p-value over all attributes, without the image's group
        and out of fold; ascending.
    group_size : float
        How many of these images are in the group of one of them, on average.
    """

    task: Task
    classes: dict[str, tuple[str, ...]]
    exclusive: dict[str, bool]
    heads: dict[str, Head]
    combinations: Rows
    thresholds: dict[str, Probabilities] = field(default_factory=dict)
    rejectors: dict[str, Rejector] = field(default_factory=dict)
    lowest_p_values: Probabilities = field(default_factory=lambda: np.empty(0))
    group_size: float = 1.0

    @property
    def tuned(self) -> dict[str, dict[str, Any]]:
        """What tuning chose for each head; empty if nothing was tuned."""
        return {
            name: head.tuned
            for name, head in self.heads.items()
            if isinstance(head, FeatureHead) and head.tuned
        }

    def predict(self, X: Features) -> dict[str, Probabilities]:
        """Raw probabilities, as `featurepipe.predictions.Predictions.scores` has them.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)

        Returns
        -------
        dict of str to ndarray of shape (n_samples, n_classes), float64
            For each attribute.
        """
        return self.by_attribute({name: head.predict_proba(X) for name, head in self.heads.items()})

    def by_attribute(self, by_head: Mapping[str, Probabilities]) -> dict[str, Probabilities]:
        """Turn the heads' probabilities into probabilities of each attribute's classes.

        Parameters
        ----------
        by_head : mapping of str to ndarray of shape (n_samples, n_classes of the head), float64

        Returns
        -------
        dict of str to ndarray of shape (n_samples, n_classes), float64
            In the joint task, a class has the sum over its combinations.
        """
        n_classes = [len(names) for names in self.classes.values()]
        if self.task == Task.MULTI_LABEL:
            blocks = np.split(by_head[ALL_LABELS], np.cumsum(n_classes)[:-1], axis=1)
            return dict(zip(self.classes, blocks, strict=True))
        if self.task == Task.JOINT:
            return {
                name: np.minimum(by_head[COMBINATIONS] @ (codes[:, None] == np.arange(n)), 1)
                for name, codes, n in zip(self.classes, self.combinations.T, n_classes, strict=True)
            }
        return {name: by_head[name] for name in self.classes}

    def p_values(
        self, X: Features, scores: Mapping[str, Probabilities]
    ) -> dict[str, Probabilities]:
        """How similar images are to the training images, in the columns of each attribute's head.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)
        scores : mapping of str to ndarray of shape (n_samples, n_classes), float64
            What `predict` returns for them.

        Returns
        -------
        dict of str to ndarray of shape (n_samples,), float64
            See `featurepipe.models.answers.rejection.Rejector.p_values`.
        """
        return {
            name: rejector.p_values(
                self.head_for(name).select(X), self.confidence(name, scores[name])
            )
            for name, rejector in self.rejectors.items()
        }

    def image_p_values(self, p_values: Mapping[str, Probabilities]) -> dict[str, Probabilities]:
        """How similar images are to the training images, over all attributes together.

        Each p-value is ranked among the lowest of training images, the single-step minP
        adjustment of Westfall & Young (1993, Resampling-based multiple testing): among images
        like the training images, at most a share p has a p-value of p or less for any
        attribute. With one attribute, they stay what they are.

        Parameters
        ----------
        p_values : mapping of str to ndarray of shape (n_samples,), float64
            What `p_values` returns.

        Returns
        -------
        dict of str to ndarray of shape (n_samples,), float64
            In (0, 1]. At a coverage of c, all attributes of a share c of images are above
            1 - c.
        """
        return {
            name: conformal_p_values(self.lowest_p_values, values, self.group_size)
            for name, values in p_values.items()
        }

    def head_for(self, attribute: str) -> Head:
        """The head that answers for an attribute."""
        return self.heads.get(attribute) or next(iter(self.heads.values()))

    def confidence(self, attribute: str, scores: Probabilities) -> Probabilities:
        """Probability of each answer for an attribute; see `answer_confidence`.

        Parameters
        ----------
        attribute : str
        scores : ndarray of shape (n_samples, n_classes), float64
            What `predict` returns for it.

        Returns
        -------
        ndarray of shape (n_samples,), float64
        """
        exclusive = self.exclusive[attribute]
        return answer_confidence(
            normalized(scores) if exclusive else scores,
            self.thresholds[attribute],
            exclusive=exclusive,
        )

    def in_words(
        self, scores: Mapping[str, Probabilities]
    ) -> dict[str, tuple[tuple[str, ...], Probabilities]]:
        """Class names of each attribute, and their probabilities as a person reads them.

        Parameters
        ----------
        scores : mapping of str to ndarray of shape (n_samples, n_classes), float64
            What `predict` returns.

        Returns
        -------
        dict of str to tuple of (classes, ndarray of shape (n_samples, n_classes), float64)
            Rows of exclusive attributes sum to 1.
        """
        return {
            name: (
                self.classes[name],
                normalized(probabilities) if self.exclusive[name] else probabilities,
            )
            for name, probabilities in scores.items()
        }

    def given(self, attribute: str, scores: Probabilities) -> Truth:
        """Which classes are the answer.

        Parameters
        ----------
        attribute : str
        scores : ndarray of shape (n_samples, n_classes), float64
            What `predict` returns for it.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), bool
            The most probable one of exclusive classes, otherwise all above their thresholds.
        """
        if self.exclusive[attribute]:
            return np.asarray(scores.argmax(axis=1)[:, None] == np.arange(scores.shape[1]))
        return scores > self.thresholds[attribute]
