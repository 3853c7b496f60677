"""Predictions for one attribute, or for all together, judged image by image."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from featurepipe.predictions import ALL, Predictions


@dataclass(frozen=True)
class AttributePredictions:
    """Predictions for one attribute, or for all together, and how good they are.

    Attributes
    ----------
    predictions : Predictions
        The images labelled for the attribute, or for all of them.
    right : ndarray of shape (n_images,), bool
    losses : ndarray of shape (n_images,), float64
        Negative logarithm of the probability of the truth.
    highest_losses : ndarray of shape (n_images,), float64
        The same if the truth were what the run believes least.
    confidence : ndarray of shape (n_images,), float64
        Probability of the given answer.
    p_values : ndarray of shape (n_images,), float64
        How similar the image is to the training images.
    image_p_values : ndarray of shape (n_images,), float64
        The same over all attributes together.
    """

    predictions: Predictions
    right: NDArray[np.bool_]
    losses: NDArray[np.float64]
    highest_losses: NDArray[np.float64]
    confidence: NDArray[np.float64]
    p_values: NDArray[np.float64]
    image_p_values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.right)

    @classmethod
    def of(cls, predictions: Predictions, attribute: str) -> Self:
        """Judge the predictions for one attribute on the images labelled for it.

        Parameters
        ----------
        predictions : Predictions
        attribute : str
            Or ``"all"``: an image is right if it is right for every attribute. Losses add up,
            confidences are multiplied, and the lowest p-values count.
        """
        names = list(predictions.labels) if attribute == ALL else [attribute]
        is_labelled = np.all([predictions.labels[name].labelled for name in names], axis=0)
        labelled = predictions if is_labelled.all() else predictions.take(is_labelled)
        return cls(
            predictions=labelled,
            right=np.all([labelled.correct(name) for name in names], axis=0),
            losses=np.sum([labelled.log_losses(name) for name in names], axis=0),
            highest_losses=np.sum([labelled.highest_log_losses(name) for name in names], axis=0),
            confidence=np.prod([labelled.confidence(name) for name in names], axis=0),
            p_values=np.min([labelled.p_values[name] for name in names], axis=0),
            image_p_values=np.min([labelled.image_p_values[name] for name in names], axis=0),
        )
