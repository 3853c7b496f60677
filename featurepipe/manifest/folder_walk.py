"""Walks through a folder of images, in the order of their ids."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from featurepipe.errors import ManifestError
from featurepipe.image_types import looks_like_image
from featurepipe.output_folders import MARKER


class _Opened(NamedTuple):
    """A folder on the way.

    Attributes
    ----------
    keys : list of str
        What is left of it, the next one last: images and folders, as paths relative to the root. A
        folder ends with a slash, as it begins the ids of its images, so sorted keys give sorted
        ids.
    links : set of str
        Keys of the folders that are links.
    is_linked : bool
        Whether a link leads to it or to one above it.
    """

    keys: list[str]
    links: set[str]
    is_linked: bool


def images_below(root: Path) -> Iterator[str]:
    """Files that look like images, except in hidden folders and in those that featurepipe wrote.

    In memory are the names in the folders on the way to an image. A folder keeps its own name: a
    link to it is not followed, nor is one to a folder above `root`. Of several links to one folder
    elsewhere, the first is followed.

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
    opened = [_open(str(root), "", is_linked=False)]
    while opened:
        within = opened[-1]
        if not within.keys:
            opened.pop()
            continue
        key = within.keys.pop()
        if not key.endswith("/"):
            yield key
            continue
        folder = os.path.join(root, key[:-1])  # noqa: PTH118
        is_linked = within.is_linked or key in within.links
        if not is_linked or links.lead_on(folder):
            opened.append(_open(folder, key, is_linked=is_linked))


def _open(folder: str, prefix: str, *, is_linked: bool) -> _Opened:
    """What a folder holds; nothing if featurepipe wrote it."""
    keys: list[str] = []
    links: set[str] = set()
    is_written = False
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if _is_folder(entry):
                    if not name.startswith("."):
                        keys.append(f"{prefix}{name}/")
                        links.update(keys[-1:] if entry.is_symlink() else ())
                elif name == MARKER:
                    is_written = True
                elif looks_like_image(name) and not name.startswith("."):
                    keys.append(prefix + name)
    except OSError as error:
        raise ManifestError(
            f"Cannot list the folder {folder} ({error.strerror}). Change its permissions, "
            "or move it."
        ) from error
    keys = [] if is_written else sorted(keys, reverse=True)
    return _Opened(keys, links, is_linked)


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
