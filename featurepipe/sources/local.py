"""Images in a folder of this machine."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurepipe.sources.protocol import UNKNOWN, ImageSource, refuse_large


class LocalFolder(ImageSource):
    """Images as files below a folder.

    Parameters
    ----------
    root : Path
        Folder that image ids are relative to.
    """

    def __init__(self, root: Path) -> None:
        self._root = str(root)

    def stamps(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Sizes and modification times; see `ImageSource`."""
        return np.array([self._stamp(image_id) for image_id in ids], np.int64).reshape(-1, 2)

    def read(self, image_id: str) -> bytes:
        """The bytes of an image; see `ImageSource`."""
        place = self._place(image_id)
        found = os.stat(place)  # noqa: PTH116
        if not stat.S_ISREG(found.st_mode):
            # Opening a pipe would wait for whoever writes to it.
            raise OSError("not a file")
        refuse_large(found.st_size)
        with open(place, "rb") as file:  # noqa: PTH123
            return file.read()

    def _stamp(self, image_id: str) -> tuple[int, int]:
        try:
            found = os.stat(self._place(image_id))  # noqa: PTH116
        except OSError:
            return UNKNOWN, UNKNOWN
        return found.st_size, found.st_mtime_ns

    def _place(self, image_id: str) -> str:
        # Not `Path`: it costs more than the stat itself.
        return os.path.join(self._root, image_id)  # noqa: PTH118
