"""Reads the manifest of a folder, archive, URL or table."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from featurepipe.errors import ManifestError, UsageError
from featurepipe.manifest.archives import LABEL_SUFFIXES, sample_columns
from featurepipe.manifest.cells import Columns
from featurepipe.manifest.labelling import Labelling
from featurepipe.manifest.listing import IMAGE_SUFFIXES, images_among, is_image, list_images
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
    """Images below a root, and their label columns."""

    root: str
    images: ImageSource
    ids: list[str]
    findings: list[str]
    columns: Columns = field(default_factory=dict)


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

        * a folder: all images below it, except in hidden folders and in runs of a
          workspace;
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
        If there are no images, or the labels do not match the request.
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
                table, labelling, names.__contains__, lambda: images_among(names)[0]
            )
        opened: ImageSource = images
    else:
        found = read_listed(
            table,
            labelling,
            lambda name: Path(root, name).is_file(),
            lambda: list_images(Path(root))[0],
        )
        opened = open_source(root)
    ids, columns, findings = found
    manifest = new_manifest(ids, root, table, None, labelling, columns, findings)
    return replace(manifest, opened=opened)


def _read_images(
    source: str, labels: Path | str | None, labelling: Labelling, all_images: bool
) -> Manifest:
    found = _find(source)
    if not found.ids:
        raise ManifestError(
            f"The {'folder' if _is_folder(source) else 'archive'} {source} contains no images. "
            f"Expected files ending in {' '.join(IMAGE_SUFFIXES)}, also in folders below it."
        )
    labels_source: str | None = None
    ids, columns, findings = found.ids, found.columns, found.findings
    if labels is not None:
        labels_source = absolute_place(labels)
        ids, columns, said = read_columns(
            labels_source, ids, found.root, labelling, all_images=all_images
        )
        findings = findings + said
    manifest = new_manifest(ids, found.root, source, labels_source, labelling, columns, findings)
    return replace(manifest, all_images=all_images, opened=found.images)


def _find(source: str) -> _Found:
    """Images of a folder or of archives."""
    if not _is_folder(source):
        return _find_in_archive(source)
    found, has_shards = (_list_url if is_url(source) else _list_folder)(source)
    return _find_in_archive(f"{source}/{_SHARDS}") if has_shards and not found.ids else found


def _list_folder(folder: str) -> tuple[_Found, bool]:
    """Images below a folder, and whether it holds tar files."""
    ids, findings = list_images(Path(folder))
    has_shards = any(Path(folder).glob(_SHARDS))
    return _Found(folder, open_source(folder), ids, findings), has_shards


def _list_url(url: str) -> tuple[_Found, bool]:
    images = open_remote(url)
    names = images.names()
    ids, findings = images_among(names)
    has_shards = any(fnmatchcase(name, _SHARDS) and "/" not in name for name in names)
    return _Found(url, images, ids, findings), has_shards


def _find_in_archive(place: str) -> _Found:
    archive = open_archive(place, LABEL_SUFFIXES)
    ids, findings = images_among(archive.names)
    columns, said = sample_columns(ids, archive.texts)
    # There may be many, and they are no longer needed.
    archive.texts.clear()
    return _Found(place, archive, ids, findings + _left_out(archive) + said, columns)


def _left_out(archive: TarArchive) -> list[str]:
    findings = []
    for reason, names in archive.left_out.items():
        wanted = [name for name in names if is_image(name) or name.endswith(LABEL_SUFFIXES)]
        if wanted:
            findings.append(
                f"Ignoring {counted(wanted, 'file')} of the archive ({reason}): {examples(wanted)}"
            )
    return findings
