"""What every source of images is."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

UNKNOWN = -1
"""Size or modification time of an image of which none is known."""

MAX_IMAGE_BYTES = 512_000_000
"""Larger files are refused before they are read: they would fill the memory."""


class ImageSource(Protocol):
    """Where some images lie. Safe to use from several threads.

    Attributes
    ----------
    n_readers : int
        Threads that it takes to read fast: many where an answer takes long.
    """

    n_readers: int = 1

    def stamps(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """What changes with the images' bytes, and costs little to ask.

        Parameters
        ----------
        ids : sequence of str
            Image ids.

        Returns
        -------
        ndarray of shape (n_images, 2), int64
            Size in bytes, and modification time in ns since 1970 or another number
            that changes with the bytes; both `UNKNOWN` if the image is not there or
            the source does not tell.
        """
        ...

    def read(self, image_id: str) -> bytes:
        """The bytes of an image.

        Raises
        ------
        OSError
            If they cannot be read, or are more than `MAX_IMAGE_BYTES`; its text (or
            its ``strerror``) is a reason for a person.
        SourceError
            If the source as a whole no longer answers.
        """
        ...


def is_large(n_bytes: int) -> bool:
    """Whether bytes are more than `MAX_IMAGE_BYTES`.

    Parameters
    ----------
    n_bytes : int
    """
    return n_bytes > MAX_IMAGE_BYTES


def refuse_large(n_bytes: int) -> None:
    """Refuse what is too large for an image file.

    Parameters
    ----------
    n_bytes : int

    Raises
    ------
    OSError
        If they are more than `MAX_IMAGE_BYTES`.
    """
    if is_large(n_bytes):
        raise OSError(f"larger than {MAX_IMAGE_BYTES / 1e6:g} MB")
