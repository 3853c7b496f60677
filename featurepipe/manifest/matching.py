"""Matches the paths of a table with images, also where they are spelt differently."""

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import PurePath

from featurepipe.image_types import image_suffixes
from featurepipe.sources import is_url
from featurepipe.words import counted


@dataclass(frozen=True)
class Matches:
    """Which images the paths of a table name.

    Attributes
    ----------
    rows : dict of str to list of int
        Rows of each image.
    lost : list of str
        Paths that name no image, one for each row.
    differences : str
        How paths differ from the images that they name; empty if none does.
    """

    rows: dict[str, list[int]]
    lost: list[str]
    differences: str


@dataclass(frozen=True)
class _Name:
    """What a path may mean: an id or, `bare`, the name of a file in any folder."""

    text: str
    bare: bool = False


@dataclass(frozen=True)
class _Hit:
    """The image that a path names, and how both differ."""

    image_id: str
    differences: tuple[str, ...] = ()


class PathFinder:
    """Finds the images that the paths of a table name.

    A path that names no image as it is may differ from one in spaces around it, backslashes,
    letter case, Unicode form or extension, as long as no other path and no other image is equal
    then. If no path of a table names an image, the folders that all begin with are dropped.

    Parameters
    ----------
    root : str
        Path or URL that image ids are relative to.
    folders : sequence of str
        What paths may be relative to.
    exists : callable
        Whether an image has this id.
    list_ids : callable
        Ids of all images below `root`; called at most once, if a path names no image as it is.
    any_folder : bool
        Whether the name of a file that occurs once is a path, too.
    """

    def __init__(
        self,
        root: str,
        folders: Sequence[str],
        exists: Callable[[str], bool],
        list_ids: Callable[[], Collection[str]],
        *,
        any_folder: bool,
    ) -> None:
        self._top = PurePath(os.path.normpath(root))
        self._folders = tuple(dict.fromkeys(folders))
        self._exists = exists
        self._list_ids = list_ids
        self._any_folder = any_folder

    def match(self, paths: Sequence[str]) -> Matches:
        """Find the images of all rows.

        Parameters
        ----------
        paths : sequence of str
            One for each row; empty if missing.
        """
        exact = {path: self._exact(path) for path in dict.fromkeys(paths)}
        hits = {path: hit for path, hit in exact.items() if hit is not None}
        lost = [path for path in exact if path not in hits and path.strip()]
        if lost:
            taken = {hit.image_id for hit in hits.values()}
            hits |= self._similar({path: self._names(path) for path in lost}, taken)
            hits = hits or self._below_shared_folders(lost)
        rows: dict[str, list[int]] = defaultdict(list)
        for row, path in enumerate(paths):
            if path in hits:
                rows[hits[path].image_id].append(row)
        return Matches(
            dict(rows),
            [path or "(empty)" for path in paths if path not in hits],
            _in_words({path: hit for path, hit in hits.items() if hit.differences}, paths),
        )

    def cause(self, path: str) -> str:
        """Why a path names no image, as a sentence.

        Parameters
        ----------
        path : str
        """
        key = _folded_stem(_base(_tidy(path)))
        namesakes = [image_id for image_id in self._ids if _folded_stem(_base(image_id)) == key]
        if len(namesakes) > 1:
            return (
                f"{path!r} could be any of {counted(namesakes, 'image')}, such as {namesakes[0]} "
                f"and {namesakes[1]}."
            )
        if namesakes:
            return f"{path!r} has the name of {namesakes[0]}, but another folder."
        return f"Images there have names such as {self._ids[0]}." if self._ids else ""

    @cached_property
    def _ids(self) -> list[str]:
        return sorted(self._list_ids())

    @cached_property
    def _id_of_name(self) -> Mapping[str, str]:
        return _unique((_base(image_id), image_id) for image_id in self._ids)

    def _exact(self, path: str) -> _Hit | None:
        for text in dict.fromkeys([path, _tidy(path)]):
            image_id = next(filter(self._exists, self._relative(text)), None)
            if image_id is None and self._any_folder:
                image_id = self._id_of_name.get(text)
            if image_id is not None:
                return _Hit(image_id, () if text == path else tuple(_untidiness(path)))
        return None

    def _relative(self, path: str) -> Iterator[str]:
        """The path relative to the root, seen from each folder; nothing if it lies elsewhere."""
        for folder in self._folders:
            place = PurePath(os.path.normpath(path if is_url(path) else PurePath(folder, path)))
            if path and place != self._top and place.is_relative_to(self._top):
                yield place.relative_to(self._top).as_posix()

    def _names(self, path: str) -> list[_Name]:
        tidy = _tidy(path)
        names = [_Name(text) for text in self._relative(tidy)]
        return names if "/" in tidy else [*names, _Name(tidy, bare=True)]

    def _similar(
        self, names_of: Mapping[str, Sequence[_Name]], taken: Collection[str], prefix: str = ""
    ) -> dict[str, _Hit]:
        """Images that are not taken and that one path each names, compared ever more loosely."""
        hits: dict[str, _Hit] = {}
        for fold in (str, _folded, _folded_stem):
            ids = _unique((fold(image_id), image_id) for image_id in self._ids)
            bases = _unique((fold(_base(image_id)), image_id) for image_id in self._ids)
            for path in names_of.keys() - hits.keys():
                for name in names_of[path]:
                    image_id = (bases if name.bare else ids).get(fold(name.text))
                    if image_id is not None and image_id not in taken:
                        said = (*_untidiness(path), *_spelling(name, image_id))
                        hits[path] = _Hit(image_id, (prefix, *said) if prefix else said)
                        break
        claims = Counter(hit.image_id for hit in hits.values())
        return {path: hit for path, hit in hits.items() if claims[hit.image_id] == 1}

    def _below_shared_folders(self, paths: Sequence[str]) -> dict[str, _Hit]:
        """Images of paths without the first folders, as few as needed, that all share."""
        parts = {path: _tidy(path).split("/") for path in paths}
        columns = zip(*(levels[:-1] for levels in parts.values()), strict=False)
        shared = [names[0] for names in takewhile(lambda names: len(set(names)) == 1, columns)]
        for depth in range(1, len(shared) + 1):
            names = {path: [_Name("/".join(levels[depth:]))] for path, levels in parts.items()}
            prefix = f"leading folders {'/'.join(shared[:depth])}/"
            if hits := self._similar(names, (), prefix):
                return hits
        return {}


def _base(path: str) -> str:
    return path.rpartition("/")[2]


def _tidy(path: str) -> str:
    return path.strip().replace("\\", "/")


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _folded_stem(name: str) -> str:
    return _cut(_folded(name))[0]


def _cut(name: str) -> tuple[str, str]:
    """A name without its image suffix, and that suffix."""
    suffix = next((end for end in image_suffixes() if name.lower().endswith(end)), "")
    at = len(name) - len(suffix)
    return name[:at], name[at:]


def _unique(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """A mapping without the keys that have several values."""
    values: dict[str, set[str]] = defaultdict(set)
    for key, value in pairs:
        values[key].add(value)
    return {key: next(iter(group)) for key, group in values.items() if len(group) == 1}


def _untidiness(path: str) -> Iterator[str]:
    if path != path.strip():
        yield "surrounding spaces"
    if "\\" in path:
        yield "backslashes"


def _spelling(name: _Name, image_id: str) -> Iterator[str]:
    """In what a name differs from an image that it names."""
    stem, suffix = _cut(name.text)
    its_stem, its_suffix = _cut(_base(image_id) if name.bare else image_id)
    if name.bare and "/" in image_id:
        yield "missing folder"
    if suffix.lower() != its_suffix.lower():
        yield "other extension" if suffix else "missing extension"
        suffix = its_suffix
    own, its = stem + suffix, its_stem + its_suffix
    if unicodedata.normalize("NFC", own) != unicodedata.normalize("NFC", its):
        yield "letter case"
    elif own != its:
        yield "Unicode form"


def _in_words(hits: Mapping[str, _Hit], paths: Sequence[str]) -> str:
    """What differs in how many rows, with an example."""
    if not hits:
        return ""
    counts = Counter(cause for path in paths if path in hits for cause in hits[path].differences)
    causes = ", ".join(f"{cause} ({count:,})" for cause, count in counts.items())
    example = next(path for path in paths if path in hits)
    return f"{causes}; for example '{example}' means {hits[example].image_id}"
