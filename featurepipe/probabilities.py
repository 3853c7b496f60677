"""From probabilities to answers: the usual thresholds, and how probable an answer is."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from featurepipe.manifest import Labels

USUAL_THRESHOLD = 0.5
"""A label is given above this probability where no threshold was chosen."""


def usual_thresholds(labels: Mapping[str, Labels]) -> dict[str, NDArray[np.float64]]:
    """`USUAL_THRESHOLD` for every label.

    Parameters
    ----------
    labels : mapping of str to Labels

    Returns
    -------
    dict of str to ndarray of shape (n_classes,), float64
    """
    return {
        name: np.full(len(of_attribute.classes), USUAL_THRESHOLD)
        for name, of_attribute in labels.items()
    }


def normalized(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide each row by its sum.

    Parameters
    ----------
    scores : ndarray of shape (n_images, n_classes), float64
        Not negative.

    Returns
    -------
    ndarray of shape (n_images, n_classes), float64
        Rows sum to 1. Rows of zeros become uniform.
    """
    total = scores.sum(axis=1, keepdims=True)
    uniform = np.full_like(scores, 1 / scores.shape[1])
    return np.divide(scores, total, out=uniform, where=total > 0)


def answer_confidence(
    probabilities: NDArray[np.float64], thresholds: NDArray[np.float64], *, exclusive: bool
) -> NDArray[np.float64]:
    """Probability of the given answer: a class, or a set of independent labels.

    Parameters
    ----------
    probabilities : ndarray of shape (n_images, n_classes), float64
    thresholds : ndarray of shape (n_classes,), float64
        Labels of a set are given above them. Ignored for exclusive classes.
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
