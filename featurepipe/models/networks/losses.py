"""Losses and accuracy of scores, computed by NumPy in float64 and without Keras."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit, log_softmax

from featurepipe.models.networks.outputs import Output, Targets

Scores = NDArray[np.float32]


def cross_entropies(
    output: Output, scores: Scores, truth: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Cross-entropy of each image, in nats.

    Parameters
    ----------
    output : Output
    scores : ndarray of shape (..., n_images, n_classes), float32
        Scores of this output.
    truth : ndarray of shape (n_images, n_classes), float32

    Returns
    -------
    ndarray of shape (..., n_images), float64
        For a softmax, the negative log-probability of the true class; otherwise the mean over the
        labels.
    """
    scores = scores.astype(np.float64)
    if output.softmax:
        return -(truth * log_softmax(scores, axis=-1)).sum(axis=-1)
    return -(truth * log_expit(scores) + (1 - truth) * log_expit(-scores)).mean(axis=-1)


def image_accuracies(
    output: Output, scores: Scores, truth: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Accuracy of each image.

    Parameters
    ----------
    output : Output
    scores : ndarray of shape (n_images, n_classes), float32
    truth : ndarray of shape (n_images, n_classes), float32

    Returns
    -------
    ndarray of shape (n_images,), float64
        For an exclusive attribute, 1 where the true class has the highest score, else 0; otherwise
        the share of labels whose score has the right sign.
    """
    if output.exclusive:
        return (scores.argmax(axis=1) == truth.argmax(axis=1)).astype(np.float64)
    return ((scores > 0) == (truth > 0)).mean(axis=1)


def total_losses(
    outputs: Sequence[Output],
    scores: Scores,
    targets: Targets,
    images: NDArray[np.intp] | slice = np.s_[:],
) -> NDArray[np.float64]:
    """Loss over some images: the weighted sum over the outputs.

    Missing labels do not count. Class weights are not applied.

    Parameters
    ----------
    outputs : sequence of Output
    scores : ndarray of shape (..., n_images, n_scores), float32
    targets : Targets
    images : ndarray of int or slice
        Positions of the images that count; default: all.

    Returns
    -------
    ndarray of shape (...), float64
    """
    total = np.zeros(scores.shape[:-2])
    for output in outputs:
        truth, weights = targets.truth[output.attribute], targets.weights[output.attribute]
        counts = np.zeros(len(truth), dtype=bool)
        counts[images] = weights[images] > 0
        if counts.any():
            losses = cross_entropies(output, scores[..., counts, output.columns], truth[counts])
            total = total + output.weight * losses.mean(axis=-1)
    return total
