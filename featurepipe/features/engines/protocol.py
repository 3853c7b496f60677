"""The protocols of engines, and of what tells where features come from."""

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Engine(Protocol):
    """A loaded backbone; preprocessing is inside it.

    Attributes
    ----------
    name : str
        Such as ``"openvino"``, ``"keras-tensorflow"`` or ``"descriptors"``.
    versions : dict of str to str
        Versions of the libraries that compute.
    input_size : (int, int)
        Height and width of the images it is given.
    n_features : int
        Number of features of an image.
    batch_size : int
        Largest number of images computed at once.
    n_parallel : int
        Batches that it computes in parallel.
    """

    name: str
    versions: dict[str, str]
    input_size: tuple[int, int]
    n_features: int
    batch_size: int
    n_parallel: int

    def start(self, images: NDArray[np.uint8]) -> Future[NDArray[Any]]:
        """Begin to compute the features of a batch, without waiting for them.

        Batches that are started faster than they are computed wait.

        Parameters
        ----------
        images : ndarray of shape (n_images, height, width, 3), uint8
            RGB in [0, 255]; at least one image, at most `batch_size`. The caller does not
            change them until the features are there.

        Returns
        -------
        Future of ndarray of shape (n_images, n_features), float32; uint8 from `Pixels`
        """
        ...

    def embed(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        """Features of any number of images.

        Parameters
        ----------
        images : ndarray of shape (n_images, height, width, 3), uint8
            RGB in [0, 255].

        Returns
        -------
        ndarray of shape (n_images, n_features), float32; uint8 from `Pixels`
        """
        batches = [self.start(batch).result() for batch in _cut(images, self.batch_size)]
        return np.concatenate([np.empty((0, self.n_features), np.float32), *batches])


class LocatedFeatures(Protocol):
    """Features of pictures that are sums over the places of each picture."""

    def evidence(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """What each place contributes to a weighted sum of the features.

        Parameters
        ----------
        weights : ndarray of shape (n_features,), float64

        Returns
        -------
        ndarray of shape (n_pictures, n_rows, n_columns), float64
            Those of a picture sum to ``features @ weights``.
        """


class LocatesFeatures(Protocol):
    """Tells which places of pictures their features come from."""

    def locate(self, pictures: NDArray[np.uint8]) -> LocatedFeatures:
        """Compute the features of pictures, place by place.

        Parameters
        ----------
        pictures : ndarray of shape (n_pictures, height, width, 3), uint8
        """


def _cut(images: NDArray[np.uint8], length: int) -> Iterator[NDArray[np.uint8]]:
    return (images[start : start + length] for start in range(0, len(images), length))


def pad_batch(batch: NDArray[np.uint8], batch_size: int) -> NDArray[np.uint8]:
    """Pad a batch to a fixed size by repeating its last image.

    Parameters
    ----------
    batch : ndarray of shape (n_images, height, width, 3), uint8
        At least one image, at most `batch_size`.
    batch_size : int
    """
    n_missing = batch_size - len(batch)
    return np.concatenate([batch, np.repeat(batch[-1:], n_missing, axis=0)]) if n_missing else batch
