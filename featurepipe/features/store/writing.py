"""HDF5 files that are written to, and what happens where that fails."""

import io
import os
from pathlib import Path

import h5py


class WritableHDF5(h5py.File):
    """An HDF5 file that is written to; a write that fails is an error of `flush` or `close`.

    HDF5 itself cannot go on after one, such as on a full disk: it can neither flush nor close the
    file, and crashes the process later. So it writes to a `_QuietFile`.

    Parameters
    ----------
    path : Path
    mode : {"w", "r+"}
        Create or replace the file, or change it.

    Raises
    ------
    OSError
        If the file cannot be opened.
    """

    def __init__(self, path: Path, mode: str) -> None:
        self._quiet = _QuietFile(path, mode)
        try:
            super().__init__(self._quiet, mode)
        except BaseException:
            self._quiet.close()
            raise

    def flush(self) -> None:
        """Write what HDF5 still holds.

        Raises
        ------
        OSError
            The first write that failed, with the path; raised once.
        """
        super().flush()
        self._quiet.require_written()

    def close(self) -> None:
        """Write what HDF5 still holds, and close the file; errors as in `flush`."""
        super().close()
        self._quiet.close()
        self._quiet.require_written()


class _QuietFile(io.RawIOBase):
    """A file that keeps its first error, and to which nothing is written after it.

    The file then is what a kill at that moment would have left.
    """

    def __init__(self, path: Path, mode: str) -> None:
        super().__init__()
        self._path = path
        self._file = path.open("w+b" if mode == "w" else "r+b", buffering=0)
        self._position = 0
        self._n_bytes = os.fstat(self._file.fileno()).st_size
        self._error: OSError | None = None
        self._is_told = False

    def require_written(self) -> None:
        if self._error is not None and not self._is_told:
            self._is_told = True
            raise OSError(self._error.errno, self._error.strerror, str(self._path))

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        left = memoryview(data)
        end = self._position + len(left)
        try:
            while left and self._error is None:
                self._file.seek(end - len(left))
                left = left[self._file.write(left) :]
        except OSError as error:
            self._error = error
        self._position, self._n_bytes = end, max(self._n_bytes, end)
        return len(data)

    def truncate(self, size: int | None = None, /) -> int:
        self._n_bytes = self._position if size is None else size
        try:
            if self._error is None:
                self._file.truncate(self._n_bytes)
        except OSError as error:
            self._error = error
        return self._n_bytes

    def readinto(self, buffer: bytearray, /) -> int:  # type: ignore[override]
        left = memoryview(buffer)
        self._file.seek(self._position)
        while n_read := self._file.readinto(left):
            left = left[n_read:]
        # Zeros stand for what could not be written.
        left[:] = bytes(len(left))
        self._position += len(buffer)
        return len(buffer)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._n_bytes}
        self._position = start[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            # Some network file systems report only now that a write failed.
            self._error = self._error or error
        super().close()
