"""Folders of pictures that featurepipe wrote: a marker tells them from folders of images."""

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from featurepipe.errors import NotWritableError, UsageError

MARKER = ".featurepipe-output"
"""Name of the marker: the images beside and below it are never read as images of a source."""

MARK = b"featurepipe wrote this folder. It is never read as a source of images.\n"


def mark(folder: Path) -> None:
    """Mark a folder, which is created if it is missing.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    OSError
        If it cannot be created or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_bytes(MARK)


def is_marked(folder: Path) -> bool:
    """Whether a folder, or one that it lies in, is marked.

    Parameters
    ----------
    folder : Path
        It need not exist.
    """
    place = folder.resolve()
    return any((around / MARKER).exists() for around in (place, *place.parents))


def require_possible_file(
    path: Path, suffixes: Iterable[str], what: str, created: Path | None = None
) -> None:
    """Stop unless a file can be written at a path.

    Parameters
    ----------
    path : Path
    suffixes : iterable of str
        Suffixes that it may have, in lower case.
    what : str
        What would be written, such as ``"a contact sheet"``.
    created : Path, optional
        A folder that will be created before.

    Raises
    ------
    UsageError
        If it has another suffix, is a folder or lies in none.
    NotWritableError
        If permission is denied.
    """
    cannot = f"Cannot write {what} to {path}"
    if path.suffix.lower() not in suffixes:
        *others, last = suffixes
        raise UsageError(
            f"{cannot}: its suffix is {path.suffix!r}. Use {', '.join(others)} or {last}."
        )
    if path.is_dir():
        raise UsageError(f"{cannot}: it is a folder. Name a file.")
    if path.parent == created:
        return
    if not path.parent.is_dir():
        raise UsageError(f"{cannot}: there is no folder {path.parent}. Create it.")
    if not os.access(path.parent, os.W_OK):
        raise NotWritableError(f"{cannot} ({os.strerror(errno.EACCES)}). Name another folder.")
