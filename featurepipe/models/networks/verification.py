"""Verification: whether two images show the same, by the distance of their features."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit

Rows = NDArray[np.intp]

_PAIRS_AN_IMAGE = 20


def same_scores(distances: NDArray[np.float64], weights: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Scores that pairs show the same.

    Parameters
    ----------
    distances : ndarray of shape (n_pairs,)
    weights : sequence of ndarray
        Kernel of shape (1, 1) and bias of shape (1,) of the network's layer ``same``.
    """
    kernel, bias = weights
    return distances * float(kernel[0, 0]) + float(bias[0])


def same_probability(first: Any, second: Any, slope: float, intercept: float) -> NDArray[Any]:
    """Probability that images of these embeddings show the same.

    Parameters
    ----------
    first, second : ndarray of shape (n_pairs, width)
    slope, intercept : float
        What the network has learnt.

    Returns
    -------
    ndarray of shape (n_pairs,), float64
        In [0, 1]; of pairs of which about half show the same, as in training.
    """
    return expit(slope * pair_distances(first, second) + intercept)


def pair_distances(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Root mean square of the differences: ndarray of shape (n_pairs,), float64."""
    return np.sqrt(np.mean(np.square(first.astype(np.float64) - second), axis=-1))


def draw_pairs(kinds: Rows, seed: int = 0) -> tuple[Rows, Rows]:
    """Pairs of images, one half of which show the same where there are so many.

    Parameters
    ----------
    kinds : ndarray of shape (n_images,), intp
        Images of one number show the same; those of -1 are left out.
    seed : int

    Returns
    -------
    first, second : ndarray of shape (n_pairs,), intp
    """
    rng = np.random.default_rng(seed)
    known = np.flatnonzero(kinds >= 0)
    first, second = np.triu_indices(len(known), 1)
    same = kinds[known[first]] == kinds[known[second]]
    n_each = min(same.sum(), (~same).sum(), _PAIRS_AN_IMAGE * len(known))
    drawn = [rng.choice(np.flatnonzero(side), n_each, replace=False) for side in (same, ~same)]
    pairs = np.concatenate(drawn)
    return known[first[pairs]], known[second[pairs]]


def pair_figures(
    embeddings: NDArray[np.float32], kinds: Rows, weights: Sequence[NDArray[Any]]
) -> tuple[float, float]:
    """Loss (nats) and accuracy of "same or different" on drawn pairs; NaN if there is none."""
    first, second = draw_pairs(kinds)
    if not len(first):
        return float("nan"), float("nan")
    scores = same_scores(pair_distances(embeddings[first], embeddings[second]), weights)
    same = kinds[first] == kinds[second]
    losses = -np.where(same, log_expit(scores), log_expit(-scores))
    return float(losses.mean()), float(((scores > 0) == same).mean())
