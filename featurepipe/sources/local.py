"""Images in a local folder."""

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
        path = self._path(image_id)
        status = os.stat(path)  # noqa: PTH116
        if not stat.S_ISREG(status.st_mode):
            # Opening a pipe would block until another process writes to it.
            raise OSError("not a regular file")
        refuse_large(status.st_size)
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read()

    def _stamp(self, image_id: str) -> tuple[int, int]:
        try:
            status = os.stat(self._path(image_id))  # noqa: PTH116
        except OSError:
            return UNKNOWN, UNKNOWN
        return status.st_size, status.st_mtime_ns

    def _path(self, image_id: str) -> str:
        # Building a `Path` takes longer than the stat itself.
        return os.path.join(self._root, image_id)  # noqa: PTH118
