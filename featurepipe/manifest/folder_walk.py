"""Walks through a folder of images, in the order of their ids."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from featurepipe.errors import ManifestError
from featurepipe.image_types import looks_like_image
from featurepipe.output_folders import MARKER


class _Entry(NamedTuple):
    """An image, or a folder to walk through.

    Attributes
    ----------
    key : str
        The path relative to the root; that of a folder ends with a slash, as it begins the ids of
        its images. So entries that are sorted by it give sorted ids.
    folder : str
        The folder; empty for an image.
    is_linked : bool
        Whether a link leads to the folder or to one above it.
    """

    key: str
    folder: str = ""
    is_linked: bool = False


def images_below(root: Path) -> Iterator[str]:
    """Files that look like images, except in hidden folders and in those that featurepipe wrote.

    Only the folders on the way to an image are in memory. A folder keeps its own name: a link to it
    is not followed, nor is one to a folder above `root`. Of several links to one folder elsewhere,
    the first is followed.

    Parameters
    ----------
    root : Path

    Yields
    ------
    str
        POSIX paths relative to `root`, sorted.

    Raises
    ------
    ManifestError
        If a folder cannot be listed.
    """
    links = _Links(str(root))
    opened = [iter([_Entry("", str(root))])]
    while opened:
        entry = next(opened[-1], None)
        if entry is None:
            opened.pop()
        elif not entry.folder:
            yield entry.key
        elif not entry.is_linked or links.lead_on(entry.folder):
            opened.append(iter(sorted(_entries(entry))))


def _entries(within: _Entry) -> Iterator[_Entry]:
    """What a folder holds; nothing if featurepipe wrote it."""
    try:
        with os.scandir(within.folder) as entries:
            found = [(entry.name, _is_folder(entry), entry.is_symlink()) for entry in entries]
    except OSError as error:
        raise ManifestError(
            f"Cannot list the folder {within.folder} ({error.strerror}). Change its permissions, "
            "or move it."
        ) from error
    if (MARKER, False) in ((name, is_folder) for name, is_folder, _ in found):
        return
    for name, is_folder, is_link in found:
        if name.startswith("."):
            continue
        if is_folder:
            folder = os.path.join(within.folder, name)  # noqa: PTH118
            yield _Entry(f"{within.key}{name}/", folder, within.is_linked or is_link)
        elif looks_like_image(name):
            yield _Entry(within.key + name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link to itself.
        return False


class _Links:
    """Which folders behind links are walked through.

    Parameters
    ----------
    root : str
        Where the walk begins.
    """

    def __init__(self, root: str) -> None:
        self._root = Path(root).resolve()
        self._walked: set[Path] = set()

    def lead_on(self, folder: str) -> bool:
        """Whether the images of a folder have no other path; asked once of each folder."""
        target = Path(folder).resolve()
        if self._root.is_relative_to(target) or target in self._walked:
            return False
        self._walked.add(target)
        return not self._is_walked_by_name(target)

    def _is_walked_by_name(self, target: Path) -> bool:
        if not target.is_relative_to(self._root):
            return False
        parts = target.relative_to(self._root).parts
        folders = [target, *target.parents][: len(parts) + 1]
        is_hidden = any(part.startswith(".") for part in parts)
        return not is_hidden and not any((folder / MARKER).is_file() for folder in folders)
