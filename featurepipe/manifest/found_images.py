"""Finds the images of a folder, an archive or a URL, and labels that lie beside them."""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from featurepipe.image_types import is_image, looks_like_image
from featurepipe.manifest.archives import LABEL_SUFFIXES, sample_columns
from featurepipe.manifest.cells import Columns
from featurepipe.manifest.listing import images_among, list_images
from featurepipe.manifest.tables import is_table
from featurepipe.sources import (
    ImageSource,
    TarArchive,
    is_archive,
    is_url,
    open_archive,
    open_remote,
    open_source,
)
from featurepipe.words import counted, examples, is_utf8

_SHARDS = "*.tar"


@dataclass(frozen=True)
class FoundImages:
    """Images of all types below a root.

    Attributes
    ----------
    root : str
        Folder, archive or URL.
    images : ImageSource
        What reads them.
    list_names : callable
        Gives their paths relative to the root, sorted; those of a folder as they are listed.
    findings : list of str
    columns : dict of str to list of (tuple of str or None)
        Label columns of an archive, in the order of the names that are UTF-8.
    """

    root: str
    images: ImageSource
    list_names: Callable[[], Iterable[str]]
    findings: list[str] = field(default_factory=list)
    columns: Columns = field(default_factory=dict)

    def columns_of(self, ids: Sequence[str]) -> Columns:
        """The label columns of some of the images.

        Parameters
        ----------
        ids : sequence of str
        """
        if not self.columns:
            return {}
        row_of = {name: row for row, name in enumerate(filter(is_utf8, self.list_names()))}
        return {
            name: [cells[row_of[image_id]] for image_id in ids]
            for name, cells in self.columns.items()
        }


def is_folder(place: str) -> bool:
    """Whether a source is a folder.

    Parameters
    ----------
    place : str
        Absolute path or URL.
    """
    if is_url(place):
        # Only the name can tell: object stores have no folders.
        return not is_table(place) and not is_archive(place)
    return Path(place).is_dir()


def find_source(place: str) -> FoundImages:
    """Find the images of a folder or of archives; a folder is not listed yet.

    Parameters
    ----------
    place : str
        Absolute path or URL.

    Raises
    ------
    ManifestError
        If a folder cannot be listed, or a tar file is damaged.
    SourceError
        If a URL cannot be reached.
    """
    if not is_folder(place):
        return _in_archive(place)
    found, has_shards = (_at_url if is_url(place) else _in_folder)(place)
    if has_shards and not any(is_image(name) and is_utf8(name) for name in found.list_names()):
        return _in_archive(f"{place}/{_SHARDS}")
    return found


def _in_folder(folder: str) -> tuple[FoundImages, bool]:
    """Images below a folder, and whether it holds tar files."""
    found = FoundImages(folder, open_source(folder), partial(list_images, Path(folder)))
    # Unlike `Path.glob`, it keeps no list of what a huge folder holds. Why a folder cannot be
    # listed is said when its images are.
    with suppress(OSError), os.scandir(folder) as entries:
        return found, any(fnmatchcase(entry.name, _SHARDS) for entry in entries)
    return found, False


def _at_url(url: str) -> tuple[FoundImages, bool]:
    images = open_remote(url)
    files = images.names()
    has_shards = any(fnmatchcase(name, _SHARDS) and "/" not in name for name in files)
    return FoundImages(url, images, partial(images_among, files)), has_shards


def _in_archive(place: str) -> FoundImages:
    archive = open_archive(place, LABEL_SUFFIXES)
    names = images_among(archive.names)
    columns, said = sample_columns(list(filter(is_utf8, names)), archive.texts)
    # There may be many, and they are no longer needed.
    archive.texts.clear()
    return FoundImages(place, archive, lambda: names, _left_out(archive) + said, columns)


def _left_out(archive: TarArchive) -> list[str]:
    findings = []
    for reason, names in archive.left_out.items():
        wanted = [name for name in names if looks_like_image(name) or name.endswith(LABEL_SUFFIXES)]
        if wanted:
            findings.append(
                f"Ignoring {counted(wanted, 'file')} of the archive ({reason}): {examples(wanted)}"
            )
    return findings
