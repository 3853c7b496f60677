"""Map: the features of training images in two dimensions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

MAX_ROWS = 10_000
"""Rows that are drawn at random for the projection, if there are more."""

MAX_POINTS = 1500
"""Images that are shown one by one at most."""


@dataclass(frozen=True)
class FeatureMap:
    """Images in the plane of the first two principal components.

    Attributes
    ----------
    features : str
        Name of the features.
    attribute : str
    classes : tuple of str
    positions : ndarray of shape (n_rows, 2), float64
        Of the images that the projection was fitted on.
    codes : ndarray of shape (n_rows,), intp
        Their classes; -1 without a label.
    explained : tuple of (float, float)
        Share of the variance that each axis explains.
    n_images : int
        All images, of which these are a sample.
    """

    features: str
    attribute: str
    classes: tuple[str, ...]
    positions: NDArray[np.float64]
    codes: NDArray[np.intp]
    explained: tuple[float, float]
    n_images: int

    def centroids(self) -> dict[int, NDArray[np.float64]]:
        """Mean position of each class that has an image, by its code."""
        return {
            int(code): self.positions[self.codes == code].mean(axis=0)
            for code in np.unique(self.codes[self.codes >= 0])
        }

    def shown(self) -> NDArray[np.intp]:
        """Positions of the rows that are shown as points: at most `MAX_POINTS`, at random."""
        return sampled(len(self.codes), MAX_POINTS)


def sampled(n: int, most: int) -> NDArray[np.intp]:
    """Ascending positions, at most so many, drawn at random by a fixed seed.

    Parameters
    ----------
    n, most : int
    """
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).choice(n, most, replace=False))


def feature_map(
    features: str,
    X: NDArray[np.floating],
    attribute: str,
    codes: NDArray[np.intp],
    classes: Sequence[str],
    n_images: int,
) -> FeatureMap | None:
    """Project features of training images onto their first two principal components.

    Parameters
    ----------
    features : str
        Name of the features.
    X : ndarray of shape (n_rows, n_features)
        Finite features of training images, or of a sample of them: see `MAX_ROWS`. Test images
        are never given.
    attribute : str
    codes : ndarray of shape (n_rows,), intp
        The class of each image; -1 without a label.
    classes : sequence of str
    n_images : int
        All training images.

    Returns
    -------
    FeatureMap or None
        None if there are fewer than three images or two features, or nothing varies. The same
        features give the same map.
    """
    if len(X) < 3 or X.shape[1] < 2 or not X.var(axis=0).any():
        return None
    projection = PCA(2, random_state=0).fit(X)
    first, second = projection.explained_variance_ratio_
    return FeatureMap(
        features=features,
        attribute=attribute,
        classes=tuple(classes),
        positions=projection.transform(X).astype(np.float64),
        codes=codes,
        explained=(float(first), float(second)),
        n_images=n_images,
    )
