"""Reads the manifest of a folder, archive, URL or table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from featurepipe.errors import ManifestError, UsageError
from featurepipe.image_types import how_to_read, image_suffixes, looks_like_image, unread_types
from featurepipe.manifest.archives import LABEL_SUFFIXES, sample_columns
from featurepipe.manifest.cells import Columns
from featurepipe.manifest.labelling import Labelling
from featurepipe.manifest.listing import Listing, images_among, list_images
from featurepipe.manifest.manifest import Manifest, new_manifest
from featurepipe.manifest.rows import read_columns, read_listed
from featurepipe.manifest.tables import is_table
from featurepipe.sources import (
    ImageSource,
    TarArchive,
    absolute_place,
    is_archive,
    is_url,
    is_web,
    open_archive,
    open_remote,
    open_source,
    parent_place,
)
from featurepipe.words import counted, examples

_SHARDS = "*.tar"


@dataclass(frozen=True)
class _Found:
    """Images below a root, and the label columns of them and of those that are not read."""

    root: str
    images: ImageSource
    listing: Listing
    findings: list[str] = field(default_factory=list)
    columns: Columns = field(default_factory=dict)

    def columns_of(self, ids: Sequence[str]) -> Columns:
        """The label columns of some of the images."""
        row_of = {image_id: row for row, image_id in enumerate(_all_ids(self.listing))}
        return {
            name: [cells[row_of[image_id]] for image_id in ids]
            for name, cells in self.columns.items()
        }


def read_manifest(
    source: Path | str,
    *,
    attributes: Sequence[str] = (),
    labels: Path | str | None = None,
    group: str | None = None,
    label_separator: str = "|",
    min_per_class: int = 1,
    all_images: bool = False,
) -> Manifest:
    """List the images and labels of a folder, archive or table, without opening an image.

    Parameters
    ----------
    source : Path or str
        A path or URL (``s3://``, ``gs://``, ``https://``, or any other fsspec URL) of

        * a folder: all images below it, except in hidden folders and in those that
          featurepipe wrote;
        * an uncompressed tar file, or a folder or pattern (``train-*.tar``) of several;
          with several, ids begin with the name of the tar file;
        * a CSV or Parquet table with a column of paths relative to the table's folder.
    attributes : sequence of str, optional
        Names of the attributes. For a folder, they name the levels of its class folders
        (``black/dress``) or the words of their names (``black_dress``); for a table, its
        label columns. By default, the first level of class folders is the attribute
        ``label``, and all columns of a table are attributes, except those that cannot be: of
        identifiers, of a single value, or of the sides of a split. A tar file with ``.cls`` or
        ``.json`` members is treated as a table, any other as a folder.
    labels : Path or str, optional
        Table of labels for the images of a folder or archive. Its paths are absolute,
        relative to the folder or to the table, or unique file names.
    group : str, optional
        Column of the table that groups images, for example by patient.
    label_separator : str, optional
        Separator between several labels in one cell; empty for one label a cell.
    min_per_class : int, optional
        Classes of fewer images are left out: their images lose that label.
    all_images : bool
        Whether images of a folder or archive that the table of `labels` does not name are
        included too, without labels.

    Raises
    ------
    ManifestError
        If there are no images, or a class has none that can be read, or the labels do not
        match the request.
    SourceError
        If a URL cannot be reached.
    UnknownNameError
        If the table has no such attribute or group column.
    UsageError
        If the options conflict, or a URL contains a password.
    """
    labelling = Labelling(tuple(attributes), group, label_separator, min_per_class)
    place = absolute_place(source)
    if not is_url(place):
        _require_there(Path(place), source)
    if _is_folder(place) or is_archive(place):
        return _read_images(place, labels, labelling, all_images)
    if labels is not None:
        raise UsageError(
            f"--labels {labels} cannot be combined with the table {source}, which has labels of "
            "its own. Pass the folder of the images as the source instead."
        )
    return _read_table(place, labelling)


def _require_there(path: Path, source: Path | str) -> None:
    if not path.exists() and not (is_archive(path.name) and any(path.parent.glob(path.name))):
        raise ManifestError(
            f"The source {source} does not exist. Expected a folder of images, a .tar file, a .csv "
            "or .parquet table, or a URL."
        )


def _is_folder(place: str) -> bool:
    if is_url(place):
        # Only the name can tell: object stores have no folders.
        return not is_table(place) and not is_archive(place)
    return Path(place).is_dir()


def _read_table(table: str, labelling: Labelling) -> Manifest:
    root = parent_place(table)
    if is_url(table):
        images = open_remote(root)
        # Web servers may not list files: missing ones fail when they are read.
        if is_web(table):
            found = read_listed(table, labelling, lambda _: True, None)
        else:
            names = set(images.names())
            found = read_listed(
                table, labelling, names.__contains__, lambda: images_among(names).ids
            )
        opened: ImageSource = images
    else:
        found = read_listed(
            table,
            labelling,
            lambda name: Path(root, name).is_file(),
            lambda: list_images(Path(root)).ids,
        )
        opened = open_source(root)
    ids, columns, findings = found
    manifest = new_manifest(ids, root, table, None, labelling, columns, findings)
    return replace(manifest, opened=opened)


def _read_images(
    source: str, labels: Path | str | None, labelling: Labelling, all_images: bool
) -> Manifest:
    found = _find(source)
    if not found.listing.ids:
        raise _no_images(source, found.listing.unread)

    def manifest_of(ids: list[str]) -> Manifest:
        return _label(found, ids, source, labels, labelling, all_images)

    manifest = manifest_of(found.listing.ids)
    if found.listing.unread:
        try:
            everything = manifest_of(_all_ids(found.listing))
        except ManifestError:
            # Images that are not read lie where no class is.
            return manifest
        _require_readable_classes(everything, manifest)
    return manifest


def _label(
    found: _Found,
    ids: list[str],
    source: str,
    labels: Path | str | None,
    labelling: Labelling,
    all_images: bool,
) -> Manifest:
    """The manifest of some of the images that were found."""
    labels_source: str | None = None
    columns, findings = found.columns_of(ids), found.listing.findings + found.findings
    if labels is not None:
        labels_source = absolute_place(labels)
        ids, columns, said = read_columns(
            labels_source, ids, found.root, labelling, all_images=all_images
        )
        findings = findings + said
    manifest = new_manifest(ids, found.root, source, labels_source, labelling, columns, findings)
    return replace(manifest, all_images=all_images, opened=found.images)


def _no_images(source: str, unread: Sequence[str]) -> ManifestError:
    place = f"The {'folder' if _is_folder(source) else 'archive'} {source}"
    if unread:
        return ManifestError(
            f"{place} contains no images that can be read: {unread_types(unread)}, such as "
            f"{unread[0]}. To use them, {how_to_read(unread)}."
        )
    return ManifestError(
        f"{place} contains no images. Expected files ending in {' '.join(image_suffixes())}, also "
        "in folders below it."
    )


def _require_readable_classes(everything: Manifest, manifest: Manifest) -> None:
    """Stop if a class has images, but none of a type that is read.

    Parameters
    ----------
    everything : Manifest
        The images of all types.
    manifest : Manifest
        Those that are read.
    """
    read = np.isin(everything.ids, manifest.ids)
    for name in manifest.attribute_names:
        if name not in everything.cells:
            return
        cells = [
            cell for cell, is_read in zip(everything.cells[name], read, strict=True) if is_read
        ]
        if cells != list(manifest.cells[name]):
            # Folders beside those of the classes, such as one of raw files for all of them.
            return
    for name, labels in everything.labels().items():
        lost = {
            label: everything.ids[has].tolist()
            for label, has in zip(labels.classes, labels.indicator.T, strict=True)
            if not (has & read).any()
        }
        if lost:
            raise _lost_classes(name, lost)


def _lost_classes(attribute: str, images_of: Mapping[str, list[str]]) -> ManifestError:
    classes = [f"{name!r} ({unread_types(images)})" for name, images in images_of.items()]
    images = [image for images in images_of.values() for image in images]
    return ManifestError(
        f"No image of {counted(classes, 'label')} of {attribute!r} can be read: "
        f"{', '.join(classes)}. To use them, {how_to_read(images)}. Else move them out of the "
        "source."
    )


def _all_ids(listing: Listing) -> list[str]:
    return sorted([*listing.ids, *listing.unread])


def _find(source: str) -> _Found:
    """Images of a folder or of archives."""
    if not _is_folder(source):
        return _find_in_archive(source)
    found, has_shards = (_list_url if is_url(source) else _list_folder)(source)
    is_empty = not found.listing.ids
    return _find_in_archive(f"{source}/{_SHARDS}") if has_shards and is_empty else found


def _list_folder(folder: str) -> tuple[_Found, bool]:
    """Images below a folder, and whether it holds tar files."""
    listing = list_images(Path(folder))
    has_shards = any(Path(folder).glob(_SHARDS))
    return _Found(folder, open_source(folder), listing), has_shards


def _list_url(url: str) -> tuple[_Found, bool]:
    images = open_remote(url)
    names = images.names()
    has_shards = any(fnmatchcase(name, _SHARDS) and "/" not in name for name in names)
    return _Found(url, images, images_among(names)), has_shards


def _find_in_archive(place: str) -> _Found:
    archive = open_archive(place, LABEL_SUFFIXES)
    listing = images_among(archive.names)
    columns, said = sample_columns(_all_ids(listing), archive.texts)
    # There may be many, and they are no longer needed.
    archive.texts.clear()
    return _Found(place, archive, listing, _left_out(archive) + said, columns)


def _left_out(archive: TarArchive) -> list[str]:
    findings = []
    for reason, names in archive.left_out.items():
        wanted = [name for name in names if looks_like_image(name) or name.endswith(LABEL_SUFFIXES)]
        if wanted:
            findings.append(
                f"Ignoring {counted(wanted, 'file')} of the archive ({reason}): {examples(wanted)}"
            )
    return findings
