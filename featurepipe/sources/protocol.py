"""The protocol of image sources."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

UNKNOWN = -1
"""Stands for an unknown size or modification time."""

MAX_IMAGE_BYTES = 512_000_000
"""Larger files are refused unread, to bound memory."""


class ImageSource(Protocol):
    """A source of images. Safe to use from several threads.

    Attributes
    ----------
    n_readers : int
        Number of threads for fast reading: many for slow connections.
    """

    n_readers: int = 1

    def stamps(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Size and modification time of images, without reading them.

        Parameters
        ----------
        ids : sequence of str
            Image ids.

        Returns
        -------
        ndarray of shape (n_images, 2), int64
            Size in bytes, and modification time in ns since 1970 or another number
            that changes with the bytes; both `UNKNOWN` if the image is missing or the
            source has neither.
        """
        ...

    def read(self, image_id: str) -> bytes:
        """The bytes of an image.

        Raises
        ------
        OSError
            If they cannot be read, or exceed `MAX_IMAGE_BYTES`; its text (or ``strerror``)
            is the reason shown to people.
        SourceError
            If the source as a whole no longer answers.
        """
        ...


def is_large(n_bytes: int) -> bool:
    """Whether a size exceeds `MAX_IMAGE_BYTES`.

    Parameters
    ----------
    n_bytes : int
    """
    return n_bytes > MAX_IMAGE_BYTES


def refuse_large(n_bytes: int) -> None:
    """Refuse sizes above `MAX_IMAGE_BYTES`.

    Parameters
    ----------
    n_bytes : int

    Raises
    ------
    OSError
        With the limit.
    """
    if is_large(n_bytes):
        raise OSError(f"larger than {MAX_IMAGE_BYTES / 1e6:g} MB")
