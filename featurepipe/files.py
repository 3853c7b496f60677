"""Atomic file writes, and locks for a single writer."""

import errno
import glob
import os
import platform
import re
import shutil
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

from featurepipe.errors import DiskFullError, LockedError, NotReadableError, NotWritableError

PART_SUFFIX = ".part"
"""Suffix of hidden, unfinished files and folders."""

REPLACED_SUFFIX = ".replaced"
"""Of a hidden folder that a complete one is about to replace."""

# Other machines may write to the same folder, and their processes cannot be seen here.
_MACHINE = f"{zlib.crc32(platform.node().encode()):08x}"
_UNFINISHED = re.compile(rf"\..+\.(\d{{1,9}})-{_MACHINE}{re.escape(PART_SUFFIX)}", re.DOTALL)

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
        after an error it is removed, and `path` stays as it was. What killed processes left in
        the folder is removed first.

    Raises
    ------
    DiskFullError
        If the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_unfinished_once(path.parent.absolute())
    beside = path.with_name(f".{path.name}.{os.getpid()}-{_MACHINE}{PART_SUFFIX}")
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
def replacing_folder(path: Path) -> Iterator[Path]:
    """Write a folder beside its place and move it there only once it is complete.

    Parameters
    ----------
    path : Path
        Where the folder will be; its parent is created if it is missing.

    Yields
    ------
    Path
        An empty folder to write into. On leaving, it is renamed to `path`; after an error it is
        removed, and the folder at `path` is left as it was. If the process is killed between the
        two renames that replacing takes, `restore_folders` finds the old folder again.

    Raises
    ------
    DiskFullError
        If the disk has no room left.
    """
    beside = path.with_name(f".{path.name}{PART_SUFFIX}")
    replaced = path.with_name(f".{path.name}{REPLACED_SUFFIX}")
    with disk_full_named(path):
        shutil.rmtree(beside, ignore_errors=True)
        _restore(replaced, path)
        beside.mkdir(parents=True)
        try:
            yield beside
            # A folder cannot be renamed onto one that is not empty.
            if path.exists():
                path.rename(replaced)
            beside.rename(path)
            _sync_folder(path.parent)
        finally:
            _restore(replaced, path)
            shutil.rmtree(beside, ignore_errors=True)


def replaced_folders(parent: Path) -> list[Path]:
    """What killed processes left of folders that they were replacing.

    Parameters
    ----------
    parent : Path
    """
    return sorted(parent.glob(f".*{REPLACED_SUFFIX}"))


def restore_folders(parent: Path) -> None:
    """Move replaced folders back whose successor is missing, and remove unfinished folders.

    Parameters
    ----------
    parent : Path
        A folder that nobody else is writing to.
    """
    for replaced in replaced_folders(parent):
        path = replaced.with_name(replaced.name[1:].removesuffix(REPLACED_SUFFIX))
        _restore(replaced, path)
    for unfinished in parent.glob(f".*{PART_SUFFIX}"):
        shutil.rmtree(unfinished, ignore_errors=True)


def _restore(replaced: Path, path: Path) -> None:
    """Move a replaced folder back if its successor is missing, else remove it."""
    if path.exists():
        shutil.rmtree(replaced, ignore_errors=True)
    elif replaced.exists():
        replaced.rename(path)


def remove_unfinished(folder: Path) -> None:
    """Remove the files that killed processes of this machine were writing to in a folder.

    Parameters
    ----------
    folder : Path
        Files of processes that are still running stay.
    """
    for path in folder.iterdir() if folder.is_dir() else []:
        unfinished = _UNFINISHED.fullmatch(path.name)
        if unfinished and not _is_running(int(unfinished[1])):
            # If this fails, the next writer tries again.
            with suppress(OSError):
                path.unlink()


# A process that writes thousands of files to a folder lists it only once.
_remove_unfinished_once = cache(remove_unfinished)


def _is_running(process: int) -> bool:
    # On Windows, this would end the process; there, unfinished files stay.
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except OSError as error:
        return error.errno != errno.ESRCH
    return True


def require_readable(path: Path, max_bytes: int | None = None) -> None:
    """Stop if a file may not or should not be read; a missing file is left to its reader.

    Readers call this first, so that a sound file is not called damaged, and a device, a pipe or a
    huge file is not read at all.

    Parameters
    ----------
    path : Path
    max_bytes : int, optional
        Largest size of such a file.

    Raises
    ------
    NotReadableError
        If permission is denied, it is no regular file, or it is larger than `max_bytes`.
    """
    try:
        status = path.stat()
    except OSError:
        return
    if not stat.S_ISREG(status.st_mode):
        raise NotReadableError(f"{path} is not a regular file. Remove it.")
    if not os.access(path, os.R_OK):
        raise NotReadableError(f"Permission to read {path} is denied. Change its permissions.")
    if max_bytes is not None and status.st_size > max_bytes:
        raise _too_large(path, max_bytes)


def read_file(path: Path, max_bytes: int) -> bytes:
    """Read a whole file; see `require_readable`.

    Parameters
    ----------
    path : Path
    max_bytes : int

    Raises
    ------
    OSError
        If the file is missing or cannot be read.
    NotReadableError
        As `require_readable`.
    """
    require_readable(path, max_bytes)
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    # Some files, such as those of /proc, have more content than size.
    if len(content) > max_bytes:
        raise _too_large(path, max_bytes)
    return content


def _too_large(path: Path, max_bytes: int) -> NotReadableError:
    return NotReadableError(
        f"{path} is larger than {max_bytes / 1e6:,.0f} MB, more than a file of its kind takes. "
        "Remove it, or replace it by a sound one."
    )


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
    """Raise a clear error if the disk is full, or would not hold so large a file.

    Raises
    ------
    DiskFullError
        If the block fails because the disk or the user's quota is full, or because a file is
        larger than the file system or the process may write.
    """
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        # HDF5 reports the system error only in its text, and h5py as any of these types.
        codes = [code for code in _DISK_FULL if os.strerror(code) in str(error)]
        code = codes[0] if codes else getattr(error, "errno", None)
        if code == errno.EFBIG:
            raise DiskFullError(
                f"The file is too large: cannot write {path}. Finished work is kept. Raise the "
                "limit (ulimit -f) or use a disk that holds larger files, and run the same command "
                "again."
            ) from error
        if code not in _DISK_FULL:
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
