"""Files with random access."""

import os
import weakref
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Protocol

MAX_OPEN_FILES = 64


class RangeFile(Protocol):
    """A file with random access from several threads.

    Attributes
    ----------
    place : str
        Path or URL.
    n_bytes : int
    mtime : int
        Modification time in ns since 1970, or another number that changes with the
        bytes; `featurepipe.sources.UNKNOWN` if none is known.
    block_bytes : int
        Block size for sequential reading.
    n_readers : int
        As of `ImageSource`.
    """

    place: str
    n_bytes: int
    mtime: int
    block_bytes: int
    n_readers: int = 1

    def read(self, start: int, n_bytes: int) -> bytes:
        """Read a range of bytes.

        Parameters
        ----------
        start, n_bytes : int
            Offset and number of bytes; the range lies within the file.

        Raises
        ------
        OSError
            If the range cannot be read completely.
        """
        ...


class _Handle:
    """An open file that closes itself when it is no longer used."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self.number)


Handles = Callable[[str], _Handle]


def open_handles() -> Handles:
    """A function that opens files, and keeps the most recently used ones open."""
    return lru_cache(maxsize=MAX_OPEN_FILES)(_Handle)


class LocalFile(RangeFile):
    """A local file, as it was when this object was made.

    Parameters
    ----------
    path : Path
    handles : callable
        Opens the file; see `open_handles`.

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
        """Read a range of bytes; see `RangeFile`."""
        handle = self._handles(self.place)
        if _size_and_time(handle) != (self.n_bytes, self.mtime):
            # The index of its members is no longer valid.
            raise OSError(f"{self.place} has changed since it was opened; run the command again")
        data = os.pread(handle.number, n_bytes, start)
        if len(data) < n_bytes:
            raise OSError(f"{self.place} is truncated")
        return data


def _size_and_time(handle: _Handle) -> tuple[int, int]:
    status = os.fstat(handle.number)
    return status.st_size, status.st_mtime_ns
