"""Verification: whether two images show the same, from the distance of their embeddings."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit

Indices = NDArray[np.intp]

_PAIRS_PER_IMAGE = 20


def same_scores(distances: NDArray[np.float64], weights: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Scores that pairs show the same.

    Parameters
    ----------
    distances : ndarray of shape (n_pairs,)
    weights : sequence of ndarray
        Kernel of shape (1, 1) and bias of shape (1,) of `Network.same`.

    Returns
    -------
    ndarray of shape (n_pairs,), float64
    """
    kernel, bias = weights
    return distances * float(kernel[0, 0]) + float(bias[0])


def same_probability(first: Any, second: Any, slope: float, intercept: float) -> NDArray[Any]:
    """Probability that two images show the same.

    Parameters
    ----------
    first, second : ndarray of shape (n_pairs, width)
        Embeddings of the images.
    slope, intercept : float
        Weights of `Network.same`.

    Returns
    -------
    ndarray of shape (n_pairs,), float64
        In [0, 1]. As in training, it assumes that about half of the pairs show the same.
    """
    return expit(slope * pair_distances(first, second) + intercept)


def pair_distances(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Root mean square of the differences of embeddings.

    Parameters
    ----------
    first, second : ndarray of shape (n_pairs, width)

    Returns
    -------
    ndarray of shape (n_pairs,), float64
    """
    return np.sqrt(np.mean(np.square(first.astype(np.float64) - second), axis=-1))


def draw_pairs(identities: Indices, seed: int = 0) -> tuple[Indices, Indices]:
    """Draw pairs of images, equally many that show the same and that do not.

    Parameters
    ----------
    identities : ndarray of shape (n_images,), intp
        See `featurepipe.models.networks.outputs.Targets`; images with -1 are not drawn.
    seed : int

    Returns
    -------
    first, second : ndarray of shape (n_pairs,), intp
    """
    rng = np.random.default_rng(seed)
    known = np.flatnonzero(identities >= 0)
    first, second = np.triu_indices(len(known), 1)
    is_same = identities[known[first]] == identities[known[second]]
    n_each = min(is_same.sum(), (~is_same).sum(), _PAIRS_PER_IMAGE * len(known))
    drawn = [
        rng.choice(np.flatnonzero(mask), n_each, replace=False) for mask in (is_same, ~is_same)
    ]
    pairs = np.concatenate(drawn)
    return known[first[pairs]], known[second[pairs]]


def pair_figures(
    embeddings: NDArray[np.float32], identities: Indices, weights: Sequence[NDArray[Any]]
) -> tuple[float, float]:
    """Loss and accuracy of "same or different" on pairs drawn from some images.

    Parameters
    ----------
    embeddings : ndarray of shape (n_images, width), float32
    identities : ndarray of shape (n_images,), intp
    weights : sequence of ndarray
        As in `same_scores`.

    Returns
    -------
    loss : float
        In nats; NaN if there are no pairs.
    accuracy : float
        In [0, 1]; NaN if there are no pairs.
    """
    first, second = draw_pairs(identities)
    if not len(first):
        return float("nan"), float("nan")
    scores = same_scores(pair_distances(embeddings[first], embeddings[second]), weights)
    is_same = identities[first] == identities[second]
    losses = -np.where(is_same, log_expit(scores), log_expit(-scores))
    return float(losses.mean()), float(((scores > 0) == is_same).mean())
