"""What every engine is."""

from collections.abc import Iterable, Iterator
from typing import Protocol

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
    """

    name: str
    versions: dict[str, str]
    input_size: tuple[int, int]
    n_features: int

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features of some images.

        Parameters
        ----------
        images : ndarray of shape (n_images, height, width, 3), uint8
            RGB in [0, 255].

        Returns
        -------
        ndarray of shape (n_images, n_features), float32
        """
        ...

    def embed_batches(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Features batch by batch, in order.

        An engine may ask for batches ahead of the features that it yields, to
        compute several at once.

        Parameters
        ----------
        batches : iterable of ndarray of shape (n_images, height, width, 3), uint8
            None larger than the engine's batch size.

        Yields
        ------
        ndarray of shape (n_images, n_features), float32
        """
        return map(self.embed, batches)


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
