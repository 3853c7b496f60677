"""From a folder or a table to its manifest."""

from collections.abc import Sequence
from pathlib import Path

from featurepipe.errors import ManifestError, UsageError
from featurepipe.manifest.labelling import Labelling
from featurepipe.manifest.listing import IMAGE_SUFFIXES, list_images
from featurepipe.manifest.manifest import Manifest, new_manifest
from featurepipe.manifest.rows import read_columns, read_listed
from featurepipe.manifest.tables import Columns


def read_manifest(
    source: Path | str,
    *,
    attributes: Sequence[str] = (),
    labels: Path | str | None = None,
    group: str | None = None,
    label_separator: str = "|",
) -> Manifest:
    """Images and labels of a folder or a table. No image is opened.

    Parameters
    ----------
    source : Path or str
        A folder, whose images are all those below it except in hidden folders and
        in runs of a workspace; or a CSV or Parquet table with a column of paths
        relative to the table's folder.
    attributes : sequence of str, optional
        Names of the attributes. For a folder, the levels of its class folders
        (``black/dress``) or the parts of their names (``black_dress``); for a table,
        its label columns. By default a folder's first level of class folders is the
        attribute ``label``, and all of a table's columns are attributes.
    labels : Path or str, optional
        A table of the labels of a folder's images, its paths relative to the folder
        or to the table, absolute, or file names that occur once.
    group : str, optional
        Column of the table whose values name images that belong together.
    label_separator : str, optional
        What parts several labels in one cell; empty if nothing does.

    Raises
    ------
    ManifestError
        If there are no images, or labels cannot be made as asked.
    UnknownNameError
        If the table has no such attribute or group column.
    UsageError
        If the options contradict each other.
    """
    labelling = Labelling(tuple(attributes), group, label_separator)
    path = Path(source).absolute()
    if not path.exists():
        raise ManifestError(
            f"Source {source} does not exist: expected a folder of images or a .csv or .parquet "
            "table. Check the path."
        )
    if path.is_dir():
        return _read_folder(path, labels, labelling)
    if labels is not None:
        raise UsageError(
            f"Labels {labels} contradict the table {source}, which holds the labels already; "
            "give the images' folder as source."
        )
    ids, columns, findings = read_listed(path, labelling)
    return new_manifest(ids, path.parent, str(path), None, labelling, columns, findings)


def _read_folder(root: Path, labels: Path | str | None, labelling: Labelling) -> Manifest:
    ids, findings = list_images(root)
    if not ids:
        raise ManifestError(
            f"Folder {root} holds no image: expected files that end in {' '.join(IMAGE_SUFFIXES)}, "
            "in it or in folders below it. Check the path."
        )
    labels_source: str | None = None
    columns: Columns = {}
    if labels is not None:
        labels_source = str(Path(labels).absolute())
        columns, found = read_columns(Path(labels_source), ids, root, labelling)
        findings += found
    return new_manifest(ids, root, str(root), labels_source, labelling, columns, findings)
