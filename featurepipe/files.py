"""Atomic file writes, and locks for a single writer."""

import errno
import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from featurepipe.errors import DiskFullError, LockedError, NotWritableError

PART_SUFFIX = ".part"
"""Suffix of hidden, unfinished files and folders."""

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file under a temporary name and rename it once it is complete.

    Parameters
    ----------
    path : Path
        Final path; a missing folder is created.

    Yields
    ------
    Path
        Temporary path to write to. On exit, the file is synced and renamed to `path`;
        after an error it is removed, and `path` stays as it was.

    Raises
    ------
    DiskFullError
        If the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}{PART_SUFFIX}")
    try:
        with disk_full_named(path):
            yield beside
            with beside.open("rb+") as file:
                os.fsync(file.fileno())
            beside.replace(path)
            _sync_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Lock a file or folder for writing by this process alone.

    The lock is a hidden file beside the file, or inside the folder; the operating
    system releases it when its process ends, even if killed. Unfinished files of
    killed processes are removed.

    Parameters
    ----------
    path : Path
        The file, or a folder that exists.

    Raises
    ------
    LockedError
        If another process holds the lock.
    NotWritableError
        If permission is denied.
    """
    lock_path = path / ".lock" if path.is_dir() else path.with_name(f".{path.name}.lock")
    lock = FileLock(lock_path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise LockedError(
            f"Another featurepipe process is writing to {path}. Wait until it ends, or use another "
            "--workspace."
        ) from None
    except OSError as error:
        raise NotWritableError(
            f"Cannot write to {path} ({error.strerror or error}). Use a --workspace that you can "
            "write to."
        ) from error
    try:
        if lock_path.parent != path:
            remove_leftovers(path)
        yield
    finally:
        lock.release()


def remove_leftovers(path: Path) -> None:
    """Remove the unfinished files of killed processes beside a file.

    Parameters
    ----------
    path : Path
        A file that no other process is writing.
    """
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*{PART_SUFFIX}"):
        # If this fails, the next writer tries again.
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            with suppress(OSError):
                leftover.unlink()


@contextmanager
def disk_full_named(path: Path) -> Iterator[None]:
    """Raise a clear error if the disk is full.

    Raises
    ------
    DiskFullError
        If the block fails because the disk or the user's quota is full.
    """
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        # HDF5 reports the system error only in its text, and h5py as any of these types.
        is_full = getattr(error, "errno", None) in _DISK_FULL
        if not is_full and not any(os.strerror(code) in str(error) for code in _DISK_FULL):
            raise
        raise DiskFullError(
            f"The disk is full: cannot write {path}. Finished work is kept. Free some space, and "
            "run the same command again."
        ) from error


def user_cache() -> Path:
    """Folder for files that can be recomputed: ``$FEATUREPIPE_CACHE``, or the system's cache."""
    from platformdirs import user_cache_path

    given = os.environ.get("FEATUREPIPE_CACHE")
    return Path(given) if given else user_cache_path("featurepipe", appauthor=False)


def _sync_folder(folder: Path) -> None:
    # A rename is durable only after the folder is synced; Windows cannot open folders.
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
