"""Pixels as the engine: the images themselves in place of features."""

from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from featurepipe.features.engines.protocol import Engine

# A batch is committed at once: small enough that little is lost, large enough to be fast.
_BATCH_BYTES, _MAX_BATCH_SIZE = 2**23, 64


class Pixels(Engine):
    """The pixels of an image, row by row from the top left, as its features.

    Parameters
    ----------
    size_px : int
        Side of the square images.

    Attributes
    ----------
    name : str
        ``"pixels"``.
    versions : dict of str to str
        Empty: nothing is computed.
    input_size : (int, int)
        Height and width of the images.
    n_features : int
        ``size_px * size_px * 3``.
    batch_size : int
        At most 64, and about 8 MB.
    n_parallel : int
        1.
    """

    name = "pixels"
    n_parallel = 1

    def __init__(self, size_px: int) -> None:
        self.versions: dict[str, str] = {}
        self.input_size = size_px, size_px
        self.n_features = size_px * size_px * 3
        self.batch_size = max(1, min(_MAX_BATCH_SIZE, _BATCH_BYTES // self.n_features))

    def start(self, images: NDArray[np.uint8]) -> Future[NDArray[np.uint8]]:
        """The pixels of a batch; see `Engine`.

        Returns
        -------
        Future of ndarray of shape (n_images, n_features), uint8
            Done already.
        """
        done: Future[NDArray[np.uint8]] = Future()
        done.set_result(self.embed(images))
        return done

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The pixels of any number of images.

        Returns
        -------
        ndarray of shape (n_images, n_features), uint8
        """
        return images.reshape(len(images), self.n_features)
