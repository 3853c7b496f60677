"""Walks through a folder of images, in the order of their ids."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from featurepipe.errors import ManifestError
from featurepipe.image_types import looks_like_image
from featurepipe.output_folders import MARKER
from featurepipe.sources import walk


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
    folders = _Folders(str(root))
    return walk(lambda key: images_among(folders.keys_in(key)))


def images_among(keys: Collection[str]) -> list[str]:
    """What of the files and folders of a listing leads to images, by the rules of `images_below`.

    Parameters
    ----------
    keys : collection of str
        POSIX paths relative to the source, as in `walk`: those of folders end with a slash. Where
        one listing has files of several folders, all files of each.

    Returns
    -------
    list of str, sorted
        Images of all types, and folders.
    """
    written = tuple(key.removesuffix(MARKER) for key in keys if key.rpartition("/")[2] == MARKER)
    return sorted(
        key
        for key in keys
        if (key.endswith("/") or looks_like_image(key))
        and not (key.startswith(".") or "/." in key)
        and not key.startswith(written)
    )


class _Folders:
    """What local folders hold.

    Parameters
    ----------
    root : str
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._links = _Links(root)
        # Keys of the folders that are links.
        self._linked: set[str] = set()

    def keys_in(self, folder: str) -> list[str]:
        """The keys in a folder; none if it is walked through elsewhere.

        Parameters
        ----------
        folder : str
            Its key.
        """
        path = os.path.join(self._root, folder[:-1]) if folder else self._root  # noqa: PTH118
        if self._is_linked(folder) and not self._links.lead_on(path):
            return []
        keys = []
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    key = folder + entry.name
                    if _is_folder(entry):
                        key += "/"
                        self._linked.update([key] if entry.is_symlink() else ())
                    keys.append(key)
        except OSError as error:
            raise ManifestError(
                f"Cannot list the folder {path} ({error.strerror}). Change its permissions, or "
                "move it."
            ) from error
        return keys

    def _is_linked(self, folder: str) -> bool:
        """Whether a link leads to a folder or to one above it."""
        slashes = (place for place, letter in enumerate(folder) if letter == "/")
        return bool(self._linked) and any(folder[: end + 1] in self._linked for end in slashes)


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
