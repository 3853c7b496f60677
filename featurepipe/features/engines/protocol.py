"""What every engine is."""

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
        The libraries that compute, and their versions.
    input_size : (int, int)
        Height and width of the images it is given.
    n_features : int
        Width of what it returns.
    batch_size : int
        Images computed at once, at most.
    n_parallel : int
        Batches that it computes side by side.
    """

    name: str
    versions: dict[str, str]
    input_size: tuple[int, int]
    n_features: int
    batch_size: int
    n_parallel: int

    def start(self, images: NDArray[np.uint8]) -> Future[NDArray[Any]]:
        """Begin to compute the features of a batch, and do not wait for them.

        Batches that are started sooner than computed wait their turn.

        Parameters
        ----------
        images : ndarray of shape (n_images, height, width, 3), uint8
            RGB in [0, 255]; at least one, at most `batch_size`. The caller leaves
            them alone until the features are there.

        Returns
        -------
        Future of ndarray of shape (n_images, n_features), float32; of `Pixels` uint8
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
        ndarray of shape (n_images, n_features), float32; of `Pixels` uint8
        """
        batches = [self.start(batch).result() for batch in _cut(images, self.batch_size)]
        return np.concatenate([np.empty((0, self.n_features), np.float32), *batches])


def _cut(images: NDArray[np.uint8], length: int) -> Iterator[NDArray[np.uint8]]:
    return (images[start : start + length] for start in range(0, len(images), length))


def pad_batch(batch: NDArray[np.uint8], batch_size: int) -> NDArray[np.uint8]:
    """A batch of fixed size, its last image repeated as often as needed.

    Parameters
    ----------
    batch : ndarray of shape (n_images, height, width, 3), uint8
        At least one image, at most `batch_size`.
    batch_size : int
    """
    n_missing = batch_size - len(batch)
    return np.concatenate([batch, np.repeat(batch[-1:], n_missing, axis=0)]) if n_missing else batch
