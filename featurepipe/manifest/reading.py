"""Reads the manifest of a folder, archive, URL or table."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from featurepipe.errors import ManifestError, UsageError
from featurepipe.image_types import how_to_read, image_suffixes, is_image, unread_types
from featurepipe.manifest.cells import Columns
from featurepipe.manifest.folder_walk import images_among
from featurepipe.manifest.found_images import FoundImages, find_source, is_folder
from featurepipe.manifest.image_labels import Labelled, label_images
from featurepipe.manifest.kinds import Kinds
from featurepipe.manifest.labelling import Labelling
from featurepipe.manifest.listing import Listing, list_images
from featurepipe.manifest.lost_classes import require_readable_classes
from featurepipe.manifest.manifest import Manifest, new_manifest
from featurepipe.manifest.manifest_file import About
from featurepipe.manifest.manifest_rows import ManifestRows
from featurepipe.manifest.rows import read_columns, read_listed
from featurepipe.sources import (
    ImageSource,
    absolute_place,
    is_archive,
    is_url,
    is_web,
    open_remote,
    open_source,
    parent_place,
)
from featurepipe.words import is_utf8


@dataclass(frozen=True)
class ListedSource:
    """The images of a source as it is now; a context that closes their rows.

    Attributes
    ----------
    rows : ManifestRows
        Their manifest, which is not saved yet.
    images : ImageSource
        What reads them.
    """

    rows: ManifestRows
    images: ImageSource

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.rows.close()


def read_manifest(source: Path | str, **options: Any) -> Manifest:
    """The manifest of a folder, archive or table, with all images in memory.

    Parameters
    ----------
    source, **options
        As `list_source`.

    Raises
    ------
    FeaturepipeError
        As `list_source`.
    """
    with list_source(source, **options) as listed:
        return replace(Manifest.of(listed.rows), opened=listed.images)


def list_source(
    source: Path | str,
    *,
    attributes: Sequence[str] = (),
    labels: Path | str | None = None,
    group: str | None = None,
    label_separator: str = "|",
    min_per_class: int = 1,
    all_images: bool = False,
) -> ListedSource:
    """List the images and labels of a folder, archive or table, without opening an image.

    Without a label table, ids go to a file as they are listed. In memory is what the
    labels depend on: the folders, and how many images they have.

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
    if is_folder(place) or is_archive(place):
        return _list_images(place, labels, labelling, all_images)
    if labels is not None:
        raise UsageError(
            f"--labels {labels} cannot be combined with the table {source}, which has labels of "
            "its own. Pass the folder of the images as the source instead."
        )
    return _list_table(place, labelling)


def _require_there(path: Path, source: Path | str) -> None:
    if not path.exists() and not (is_archive(path.name) and any(path.parent.glob(path.name))):
        raise ManifestError(
            f"The source {source} does not exist. Expected a folder of images, a .tar file, a .csv "
            "or .parquet table, or a URL."
        )


def _list_table(table: str, labelling: Labelling) -> ListedSource:
    root = parent_place(table)
    if is_url(table):
        images = open_remote(root)
        # Web servers may not list files: missing ones fail when they are read.
        if is_web(table):
            found = read_listed(table, labelling, lambda _: True, None)
        else:
            names = set(images.names())
            found = read_listed(
                table, labelling, names.__contains__, lambda: list(Listing(images_among(names)))
            )
        opened: ImageSource = images
    else:
        found = read_listed(
            table,
            labelling,
            lambda name: Path(root, name).is_file(),
            lambda: list(Listing(list_images(Path(root)))),
        )
        opened = open_source(root)
    ids, columns, findings = found
    manifest = new_manifest(ids, root, table, None, labelling, columns, findings)
    return ListedSource(manifest.rows(), opened)


def _list_images(
    source: str, labels: Path | str | None, labelling: Labelling, all_images: bool
) -> ListedSource:
    found = find_source(source)
    about = About(
        root=found.root,
        source=source,
        labels_source=None if labels is None else absolute_place(labels),
        labelling=labelling,
        findings=(),
        all_images=all_images,
    )
    has_columns = bool(about.labels_source or found.columns)
    return ListedSource((_labelled if has_columns else _streamed)(found, about), found.images)


def _streamed(found: FoundImages, about: About) -> ManifestRows:
    """The manifest of images that their folders label, written as they are listed."""
    listing = Listing(found.list_names())

    def checked() -> About:
        if not any(listing.is_read):
            raise _no_images(about.source, listing)
        every = listing.kinds
        read = label_images(every.only(listing.is_read), {}, about.labelling)
        if not all(listing.is_read):
            require_readable_classes(
                read, lambda: (every, label_images(every, {}, about.labelling)), is_image
            )
        findings = (*listing.findings(), *found.findings, *read.findings)
        return about.model_copy(update={"findings": findings})

    return ManifestRows.unsaved(listing, {}, checked)


def _labelled(found: FoundImages, about: About) -> ManifestRows:
    """The manifest of images that columns label, with all of them in memory."""
    names = list(found.list_names())
    listing = Listing(names)
    listed = list(listing)
    if not listed:
        raise _no_images(about.source, listing)
    ids, columns, said = _columns(found, listed, about)
    read = label_images(Kinds.of(ids, columns), columns, about.labelling)

    def label_every() -> tuple[Kinds, Labelled]:
        ids, columns, _ = _columns(found, list(filter(is_utf8, names)), about)
        kinds = Kinds.of(ids, columns)
        return kinds, label_images(kinds, columns, about.labelling)

    if not all(listing.is_read):
        require_readable_classes(read, label_every, set(ids).__contains__)
    findings = (*listing.findings(), *found.findings, *said, *read.findings)
    about = about.model_copy(update={"findings": findings})
    return ManifestRows.unsaved(ids, columns, lambda: about)


def _columns(
    found: FoundImages, ids: list[str], about: About
) -> tuple[list[str], Columns, list[str]]:
    """Which of some images are kept, their columns, and findings about both."""
    if about.labels_source is None:
        return ids, found.columns_of(ids), []
    return read_columns(
        about.labels_source, ids, found.root, about.labelling, all_images=about.all_images
    )


def _no_images(source: str, listing: Listing) -> ManifestError:
    place = f"The {'folder' if is_folder(source) else 'archive'} {source}"
    suffixes, first = listing.unread()
    if suffixes:
        return ManifestError(
            f"{place} contains no images that can be read: {unread_types(suffixes)}, such as "
            f"{first}. To use them, {how_to_read(suffixes)}."
        )
    return ManifestError(
        f"{place} contains no images. Expected files ending in {' '.join(image_suffixes())}, also "
        "in folders below it."
    )
