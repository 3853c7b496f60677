"""Folders of pictures that featurepipe wrote: a marker tells them from folders of images."""

from pathlib import Path

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
