"""Images that were given one by one: as paths, bytes or pixels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurepipe.sources.local import LocalFolder
from featurepipe.sources.protocol import UNKNOWN, ImageSource


class GivenImages(ImageSource):
    """Images that were given one by one; their ids are their positions.

    Parameters
    ----------
    images : sequence of Path, str, bytes or ndarray of shape (height, width, 3), uint8
        Paths of image files, their bytes, or RGB in [0, 255].
    """

    def __init__(self, images: Sequence[Path | str | bytes | NDArray[np.uint8]]) -> None:
        self._images = images
        self._files = LocalFolder(Path())

    def stamps(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """`UNKNOWN`: they are read once."""
        return np.full((len(ids), 2), UNKNOWN, np.int64)

    def read(self, image_id: str) -> bytes:
        """The bytes of an image; pixels become a file in PPM, which keeps them as they are."""
        image = self._images[int(image_id)]
        if isinstance(image, Path | str):
            return self._files.read(str(image))
        if isinstance(image, bytes):
            return image
        height, width, _ = image.shape
        return b"P6 %d %d 255\n" % (width, height) + image.tobytes()
