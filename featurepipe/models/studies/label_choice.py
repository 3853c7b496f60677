"""Which unlabelled images to label next."""

import numpy as np
from numpy.typing import NDArray

from featurepipe.models.answers.arrays import Columns, Features, Probabilities, Rows, unit_blocks

MAX_COMPARED = 5000
"""Most images that are compared with each other: 100 MB of distances."""


def doubts(probabilities: Probabilities, *, exclusive: bool) -> NDArray[np.float64]:
    """How unsure the answers for one attribute are.

    Parameters
    ----------
    probabilities : ndarray of shape (n_images, n_classes), float64
        Rows of exclusive classes sum to 1.
    exclusive : bool
        Whether an image has exactly one class.

    Returns
    -------
    ndarray of shape (n_images,), float64
        From 0 (sure) to 1. Of exclusive classes 1 minus the margin between the two most
        probable ones, of sets of labels the doubt about the label nearest to 0.5.

    Examples
    --------
    >>> doubts(np.array([[0.5, 0.25, 0.25], [1, 0, 0]]), exclusive=True).tolist()
    [0.75, 0.0]
    """
    if not exclusive:
        return 1 - np.abs(2 * probabilities - 1).min(axis=1)
    if probabilities.shape[1] < 2:
        return np.zeros(len(probabilities))
    ordered = np.sort(probabilities, axis=1)
    return 1 - (ordered[:, -1] - ordered[:, -2])


def choose_images(
    X: Features,
    weights: NDArray[np.float64],
    n_chosen: int,
    blocks: Columns,
) -> tuple[Rows, Rows]:
    """Choose images so that each image with a large weight has a chosen one near.

    Greedy weighted k-medoids: every choice lowers the sum over all images of weight times
    distance to the nearest chosen image as much as possible. So an image is chosen because
    it, and many like it, have large weights, and none of those chosen before is like it.

    Parameters
    ----------
    X : ndarray of shape (n_images, n_features)
    weights : ndarray of shape (n_images,), float64
        Not negative. Of more than `MAX_COMPARED` images, only those of the largest weights
        are compared.
    n_chosen : int
    blocks : tuple of (int, int)
        Columns that distances are measured in; see `unit_blocks`.

    Returns
    -------
    chosen : ndarray of shape (min(n_chosen, n_images),), intp
        Positions, the most useful first.
    n_nearest : ndarray of the same shape, intp
        Number of the other images compared that are nearest to each.

    Examples
    --------
    >>> X = np.array([[1.0, 0.0], [0.9, 0.1], [0.8, 0.2], [0.0, 1.0]])
    >>> chosen, n_nearest = choose_images(X, np.ones(4), 2, ((0, 2),))
    >>> chosen.tolist(), n_nearest.tolist()
    ([1, 3], [2, 0])
    """
    rows = np.sort(np.argsort(-weights, kind="stable")[: max(MAX_COMPARED, n_chosen)])
    distances = _distances(unit_blocks(X[rows], blocks))
    weight = weights[rows].astype(np.float32)
    nearest = np.full(len(rows), distances.max(initial=0), np.float32)
    chosen: list[int] = []
    while len(chosen) < min(n_chosen, len(rows)):
        gains = np.maximum(nearest - distances, 0) @ weight
        gains[chosen] = -1
        best = int(gains.argmax())
        chosen.append(best)
        nearest = np.minimum(nearest, distances[best])
    others = np.delete(distances[chosen], chosen, axis=1)
    return rows[chosen], np.bincount(others.argmin(axis=0), minlength=len(chosen))


def _distances(X: NDArray[np.float32]) -> NDArray[np.float32]:
    squares = np.square(X).sum(axis=1)
    apart = squares[:, None] + squares - 2 * (X @ X.T)
    return np.sqrt(np.maximum(apart, 0))
