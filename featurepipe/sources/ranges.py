"""Files of which any part can be read."""

import os
import weakref
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Protocol

MAX_OPEN_FILES = 64


class RangeFile(Protocol):
    """A file of which any part can be read, by several threads at once.

    Attributes
    ----------
    place : str
        Path or URL.
    n_bytes : int
    mtime : int
        Modification time in ns since 1970, or another number that changes with the
        bytes; `featurepipe.sources.UNKNOWN` if none is known.
    block_bytes : int
        How much to read at once when reading on and on.
    n_readers : int
        As of `ImageSource`.
    """

    place: str
    n_bytes: int
    mtime: int
    block_bytes: int
    n_readers: int = 1

    def read(self, start: int, n_bytes: int) -> bytes:
        """Some bytes of the file.

        Parameters
        ----------
        start, n_bytes : int
            Where they begin, and how many; both within the file.

        Raises
        ------
        OSError
            If they cannot be read, or are fewer.
        """
        ...


class _Handle:
    """An open file, closed when nobody uses it any more."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self.number)


Handles = Callable[[str], _Handle]


def open_handles() -> Handles:
    """Opens files and keeps those open that were read last."""
    return lru_cache(maxsize=MAX_OPEN_FILES)(_Handle)


class LocalFile(RangeFile):
    """A file of this machine, as it is when this is made.

    Parameters
    ----------
    path : Path
    handles : callable
        What opens it; see `open_handles`.

    Raises
    ------
    OSError
        If it cannot be opened.
    """

    block_bytes = 2**16

    def __init__(self, path: Path, handles: Handles) -> None:
        self.place = str(path)
        self._handles = handles
        self.n_bytes, self.mtime = _size_and_time(handles(self.place))

    def read(self, start: int, n_bytes: int) -> bytes:
        """Some bytes of the file; see `RangeFile`."""
        handle = self._handles(self.place)
        if _size_and_time(handle) != (self.n_bytes, self.mtime):
            # What is known of its insides no longer holds.
            raise OSError(f"{self.place} has changed since it was opened; run the command again")
        data = os.pread(handle.number, n_bytes, start)
        if len(data) < n_bytes:
            raise OSError(f"{self.place} ends too early")
        return data


def _size_and_time(handle: _Handle) -> tuple[int, int]:
    found = os.fstat(handle.number)
    return found.st_size, found.st_mtime_ns
