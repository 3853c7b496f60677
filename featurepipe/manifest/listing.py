"""Lists images on disk: in folders, archives and patterns."""

import glob
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from featurepipe.errors import ManifestError
from featurepipe.image_types import image_suffixes, is_image, looks_like_image, unread_finding
from featurepipe.manifest.folder_walk import images_below
from featurepipe.manifest.kinds import N_FIRST, KindCounter, Kinds
from featurepipe.output_folders import MARKER
from featurepipe.words import counted, examples, is_utf8


class Listing:
    """The images of a source, counted while they are listed.

    Iterating once gives the ids of those that are read, sorted. Few ids are kept. What it says
    concerns the images that were listed so far.

    Parameters
    ----------
    names : iterable of str
        POSIX paths of files that look like images, relative to the source, sorted.

    Attributes
    ----------
    is_read : list of bool
        Whether images of each kind are of a type that is read.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.is_read: list[bool] = []
        self._names = names
        self._counter = KindCounter()
        self._first_ids: list[str] = []
        self._first_kinds: list[int] = []
        self._n_refused = 0
        self._refused: list[str] = []

    def __iter__(self) -> Iterator[str]:
        counts, is_read = self._counter.counts, self.is_read
        for name in self._names:
            # Neither Parquet, HDF5 nor JSON can hold every name.
            if not is_utf8(name):
                self._n_refused += 1
                self._refused += [name] if self._n_refused <= N_FIRST else []
                continue
            kind = self._counter.add(name)
            if kind == len(is_read):
                is_read.append(is_image(name))
            if counts[kind] <= N_FIRST:
                self._first_ids.append(name)
                self._first_kinds.append(kind)
            if is_read[kind]:
                yield name

    @property
    def kinds(self) -> Kinds:
        """The images of all types, as far as their names are UTF-8."""
        return self._counter.kinds(self._first_ids, self._first_kinds)

    def unread(self) -> tuple[Counter[str], str]:
        """Suffixes of the images that are not read, and the first id; empty if there are none."""
        unread, kinds = (
            [kind for kind, is_read in enumerate(self.is_read) if not is_read],
            self.kinds,
        )
        return kinds.suffixes(unread), kinds.firsts[unread[0]] if unread else ""

    def findings(self) -> list[str]:
        """Messages about images that are not read."""
        suffixes, first = self.unread()
        findings = [unread_finding(suffixes, first)] if suffixes else []
        if self._n_refused:
            findings.append(
                f"Ignoring {counted(self._n_refused, 'image')} with a name that is not UTF-8: "
                f"{examples([ascii(name) for name in self._refused])}"
            )
        return findings


@dataclass(frozen=True)
class GivenImage:
    """An image that was given by a path, or why there is none.

    Attributes
    ----------
    image_id : str
        The POSIX path as given, extended by the path below a folder.
    path : Path
    reason : str
        Why it is not read; empty if it may be.
    """

    image_id: str
    path: Path
    reason: str = ""


def find_images(paths: Iterable[Path | str]) -> list[GivenImage]:
    """Images to predict, in the order given and each once.

    Parameters
    ----------
    paths : iterable of Path or str
        Files, folders and glob patterns (``new/*.jpg``). A file given by its path may have
        any suffix. Below folders and patterns, everything that looks like an image counts.

    Returns
    -------
    list of GivenImage
        Paths without an image, and names that no table can hold, have a reason.

    Raises
    ------
    ManifestError
        If no path leads to an image.
    """
    found: dict[Path, GivenImage] = {}
    for given in map(str, paths):
        for image in _images_at(given) or [_nothing_at(given)]:
            # Unlike `Path.resolve`, it takes links that lead to themselves.
            place = image.path if image.reason else Path(os.path.realpath(image.path))
            found.setdefault(place, image)
    images = list(found.values())
    if all(image.reason for image in images):
        raise _no_image(images)
    return images


def _no_image(images: list[GivenImage]) -> ManifestError:
    more = f" and {counted(len(images) - 1, 'other path')}" if len(images) > 1 else ""
    first = images[0]
    return ManifestError(
        f"No image found at {first.image_id!a}{more} ({first.reason}). Expected a file, a folder "
        f"or a pattern such as 'new/*.jpg' with files ending in {' '.join(image_suffixes())}."
        if is_utf8(first.image_id)
        else f"The image {first.image_id!a} cannot be used: {first.reason}."
    )


def list_images(root: Path) -> Iterator[str]:
    """Images of all types below a folder, except in hidden folders and in featurepipe's own.

    Parameters
    ----------
    root : Path

    Returns
    -------
    iterator of str
        POSIX paths relative to `root`, sorted.

    Raises
    ------
    ManifestError
        If featurepipe wrote `root` itself; while iterating, if a folder cannot be listed.
    """
    if (root / MARKER).exists():
        raise ManifestError(
            f"featurepipe wrote the folder {root}, so its pictures are no source of images. Give "
            f"another folder, or delete the file {MARKER} in it."
        )
    return images_below(root)


def holds_images(folder: Path) -> bool:
    """Whether a folder, or one below it, holds what looks like an image and is not hidden.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    ManifestError
        If a folder cannot be listed.
    """
    return any(True for _ in images_below(folder))


def images_among(names: Collection[str]) -> list[str]:
    """Images of all types among the files of an archive or URL, by the rules of `list_images`.

    Parameters
    ----------
    names : collection of str
        POSIX paths of files.

    Returns
    -------
    list of str, sorted
    """
    written = tuple(
        name.removesuffix(MARKER) for name in names if name.rpartition("/")[2] == MARKER
    )
    return sorted(
        name
        for name in names
        if looks_like_image(name)
        and not any(part.startswith(".") for part in name.split("/"))
        and not name.startswith(written or ("\0",))
    )


def _images_at(given: str) -> list[GivenImage]:
    path = Path(given)
    if os.path.isdir(given):  # noqa: PTH112
        return [_given(path / image_id) for image_id in images_below(path)]
    # Unlike `Path.exists`, it takes names that no file can have.
    if os.path.exists(given):  # noqa: PTH110
        return [_given(path)]
    # Path.glob takes no absolute pattern and finds hidden files.
    matches = map(Path, sorted(glob.glob(given, recursive=True)))  # noqa: PTH207
    return [
        image
        for match in matches
        for image in (_images_at(str(match)) if match.is_dir() else [_given(match)])
        if looks_like_image(image.path.name)
    ]


def _given(path: Path) -> GivenImage:
    name = path.as_posix()
    # No table can hold it.
    reason = "" if is_utf8(name) else "its name is not UTF-8: rename it"
    return GivenImage(name, path, reason)


def _nothing_at(given: str) -> GivenImage:
    path = Path(given)
    if not os.path.isdir(given):  # noqa: PTH112
        reason = "no image matches" if glob.has_magic(given) else "no such file"
    elif (path / MARKER).exists():
        reason = "featurepipe wrote this folder"
    else:
        reason = "a folder without images"
    return GivenImage(path.as_posix(), path, reason)
