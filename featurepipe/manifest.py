"""Images and their labels: folders and tables become a Manifest."""

import csv
import glob
import json
import os
import re
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from featurepipe.errors import ManifestError, UnknownNameError, UsageError
from featurepipe.files import replacing

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff",
)  # fmt: skip
SPLIT_COLUMN = "split"

# What a table holds for one image in one column, or a folder for one attribute;
# None where it holds nothing, an empty tuple where it says "none of the classes".
Cell = tuple[str, ...] | None
Columns = dict[str, list[Cell]]
Folders = tuple[str, ...]

_DEFAULT_ATTRIBUTE = "label"
_PATH_COLUMNS = (
    "path", "image", "file", "filename", "file_name", "filepath", "image_id", "id", "image_path",
)  # fmt: skip
_GIVEN_PARTS = {
    "train": "train", "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test",
}  # fmt: skip
_NAME_SEPARATORS = ("_", "-", " ")
_FLAG_COLUMN = re.compile(r"([^=:]+)[=:](.+)")
# As spreadsheets and pandas write 0 and 1, also beside empty cells.
_FLAGS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
_METADATA_KEY = b"featurepipe.manifest"
_STORED_COLUMN = "table."
_FORMAT = 1


@dataclass(frozen=True)
class Labels:
    """The labels of some images for one attribute.

    Attributes
    ----------
    attribute : str
        The question asked of an image, such as ``"color"``.
    classes : tuple of str, sorted
        Its possible answers.
    exclusive : bool
        True if every labelled image has exactly one class; False if it has a set.
    indicator : ndarray of shape (n_images, n_classes), bool
        Which classes each image has; all False where the label is missing.
    labelled : ndarray of shape (n_images,), bool
        False where the label is missing.
    """

    attribute: str
    classes: tuple[str, ...]
    exclusive: bool
    indicator: NDArray[np.bool_]
    labelled: NDArray[np.bool_]

    @property
    def codes(self) -> NDArray[np.intp]:
        """Index of each image's class, -1 where missing; for exclusive attributes.

        Returns
        -------
        ndarray of shape (n_images,), intp
        """
        return np.where(self.labelled, self.indicator.argmax(axis=1), -1)

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> "Labels":
        """The same for some of the images.

        Parameters
        ----------
        rows : ndarray of int or bool
            Positions or a mask.
        """
        return replace(self, indicator=self.indicator[rows], labelled=self.labelled[rows])

    def __len__(self) -> int:
        return len(self.labelled)


@dataclass(frozen=True)
class Labelling:
    """How labels are to be made of a table's columns or of folder names.

    Attributes
    ----------
    attributes : tuple of str
        Names of the attributes; empty for all there are.
    group : str or None
        Column whose values name images that belong together, such as a patient.
    label_separator : str
        What parts several labels in one cell; empty if nothing does.
    """

    attributes: tuple[str, ...] = ()
    group: str | None = None
    label_separator: str = "|"

    def __post_init__(self) -> None:
        names = [*self.attributes, *([] if self.group is None else [self.group])]
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            raise UsageError(
                f"{repeated[0]!r} is named twice among attributes {list(self.attributes)} and "
                f"group {self.group!r}; name each once."
            )
        if SPLIT_COLUMN in names:
            raise UsageError(
                f"{SPLIT_COLUMN!r} can be neither attribute nor group: a column of that name is "
                "a given split. Rename it."
            )


@dataclass(frozen=True, eq=False)
class Manifest:
    """The ordered table of images and their labels.

    Attributes
    ----------
    root : Path
        Absolute folder that image ids are relative to.
    source : str
        Absolute path of the folder or table that the images came from.
    labels_source : str or None
        Absolute path of the table that the labels came from, if it is another.
    table : DataFrame, indexed by sorted unique image id
        One object column per attribute, each cell a sorted tuple of class names,
        or None where the label is missing (an empty tuple is a label: none of the
        classes); the group column, str or None; where the images came with a
        split, a column ``split`` of ``"train"`` or ``"test"``.
    attribute_names : tuple of str
    labelling : Labelling
        How `table` was made of `columns`.
    columns : dict of str to list of (tuple of str or None)
        The columns of the labels' table as they were read, in the order of the ids;
        empty where labels come from folder names.
    findings : tuple of str
        What a person must be told about this reading.
    """

    root: Path
    source: str
    labels_source: str | None
    table: pd.DataFrame
    attribute_names: tuple[str, ...]
    labelling: Labelling
    columns: Columns
    findings: tuple[str, ...]

    @property
    def ids(self) -> NDArray[np.object_]:
        """Image ids, sorted.

        Returns
        -------
        ndarray of shape (n_images,), str objects
        """
        return self.table.index.to_numpy(dtype=object)

    @property
    def group_column(self) -> str | None:
        """Name of the column whose values name images that belong together."""
        return self.labelling.group

    def __len__(self) -> int:
        return len(self.table)

    def path(self, image_id: str) -> Path:
        """Where an image lies.

        Raises
        ------
        ManifestError
            If the manifest has no such image.
        """
        if image_id not in self.table.index:
            raise self._no_such_image(image_id)
        return self.root / image_id

    def labels(self, ids: Iterable[str] | None = None) -> dict[str, Labels]:
        """Labels of some images, or of all.

        Parameters
        ----------
        ids : iterable of str, optional
            Image ids; the rows of the result are in their order.

        Returns
        -------
        dict of str to Labels
            One per attribute. `classes` and `exclusive` are those of the whole
            manifest, whatever `ids` are.

        Raises
        ------
        ManifestError
            If the manifest has no image of one of the ids.
        """
        rows = np.arange(len(self)) if ids is None else self._rows(ids)
        return {
            name: _labels(name, self.table[name].tolist()).take(rows)
            for name in self.attribute_names
        }

    def combinations(self) -> "pd.Series[Any]":
        """Classes of each image over all exclusive attributes, such as ``"black_dress"``.

        Returns
        -------
        Series of object, indexed by image id
            None where one of the labels is missing, or if no attribute is exclusive.
        """
        exclusive = [name for name, labels in self.labels().items() if labels.exclusive]
        cells = zip(*(self.table[name] for name in exclusive), strict=True)
        names = [None if None in row else "_".join(cell[0] for cell in row) for row in cells]
        return pd.Series(names or [None] * len(self), index=self.table.index, dtype=object)

    def relabelled(
        self,
        *,
        attributes: Sequence[str] | None = None,
        labels: Path | str | None = None,
        group: str | None = None,
        label_separator: str | None = None,
    ) -> "Manifest":
        """The same images with other labels; nothing but `labels` need be on disk.

        Parameters
        ----------
        attributes, group, label_separator : optional
            As in `read_manifest`. None (or no attributes) keeps what is; with `labels`
            it is the default.
        labels : Path or str, optional
            Another table of labels; None keeps the present table or folder names.

        Returns
        -------
        Manifest
            Its `findings` are about the new labels alone.

        Raises
        ------
        ManifestError, UnknownNameError, UsageError
            As `read_manifest`.
        """
        asked: dict[str, Any] = {"attributes": tuple(attributes or ()) or None, "group": group}
        asked["label_separator"] = label_separator
        asked = {name: value for name, value in asked.items() if value is not None}
        if labels is None:
            labelling = replace(self.labelling, **asked)
            return _labelled(replace(self, labelling=labelling, findings=()))
        labelling, table = Labelling(**asked), Path(labels).absolute()
        columns, findings = _columns_of(table, self.ids.tolist(), self.root, labelling)
        return _labelled(
            replace(
                self,
                labels_source=str(table),
                labelling=labelling,
                columns=columns,
                findings=tuple(findings),
            )
        )

    def save(self, path: Path | str) -> None:
        """Write the manifest as one Parquet file, whole or not at all.

        The same manifest gives the same bytes. The file holds the ids and the
        columns as they were read; labels are made of them anew on loading.
        """
        about: dict[str, Any] = {
            "format": _FORMAT,
            "root": str(self.root),
            "source": self.source,
            "labels_source": self.labels_source,
            "labelling": asdict(self.labelling),
            "findings": self.findings,
        }
        names = ["id", *(f"{_STORED_COLUMN}{name}" for name in self.columns)]
        arrays = [pa.array(self.ids, pa.string())]
        arrays += [pa.array(cells, pa.list_(pa.string())) for cells in self.columns.values()]
        about["checksum"] = _checksum(about, self.ids.tolist(), self.columns)
        metadata = {_METADATA_KEY: json.dumps(about, sort_keys=True)}
        with replacing(Path(path)) as beside:
            pq.write_table(pa.table(arrays, names=names, metadata=metadata), beside)

    @classmethod
    def load(cls, path: Path | str) -> "Manifest":
        """Read a saved manifest; its images need not be there any more.

        Raises
        ------
        ManifestError
            If the file is missing, damaged or something else.
        """
        try:
            with pq.ParquetFile(path) as file:
                stored = file.read()
            about = json.loads((stored.schema.metadata or {}).get(_METADATA_KEY, b"{}"))
            if about.get("format") != _FORMAT:
                raise ValueError(f"its format is {about.get('format')}, not {_FORMAT}")
            return _stored_manifest(stored, about)
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise ManifestError(
                f"{path} is not a sound manifest ({_one_line(error)}): expected a file that "
                "featurepipe wrote. Make it again: featurepipe extract SOURCE."
            ) from error

    def _rows(self, ids: Iterable[str]) -> NDArray[np.intp]:
        wanted = pd.Index(list(ids), dtype=object)
        rows = self.table.index.get_indexer(wanted)
        if (rows < 0).any():
            raise self._no_such_image(wanted[rows < 0][0])
        return rows

    def _no_such_image(self, image_id: str) -> ManifestError:
        return ManifestError(
            f"Image {image_id!r} is not among the {len(self)} images of {self.source}: expected "
            f"a path relative to {self.root}. If it is new, read the images anew."
        )


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
    return _read_listed(path, labelling)


def find_images(paths: Iterable[Path | str]) -> list[tuple[str, Path]]:
    """Images to predict, in the order given and each once.

    Parameters
    ----------
    paths : iterable of Path or str
        Files, folders and glob patterns (``new/*.jpg``). A file that is named itself
        is taken whatever its suffix.

    Returns
    -------
    list of (str, Path)
        Image id (the POSIX path as given, in a folder with the relative path behind
        it) and where the image lies.

    Raises
    ------
    ManifestError
        If one of the paths leads to no image.
    """
    found: dict[Path, str] = {}
    for given in paths:
        images = _images_at(str(given))
        if not images:
            raise ManifestError(
                f"{str(given)!r} leads to no image: expected a file, a folder or a pattern such "
                f"as 'new/*.jpg' with files that end in {_suffixes()}. Check the path."
            )
        for path in images:
            found.setdefault(path.resolve(), path.as_posix())
    return [(image_id, Path(image_id)) for image_id in found.values()]


# What lies on disk


def _read_folder(root: Path, labels: Path | str | None, labelling: Labelling) -> Manifest:
    ids, findings = _list_images(root)
    if not ids:
        raise ManifestError(
            f"Folder {root} holds no image: expected files that end in {_suffixes()}, in it or in "
            "folders below it. Check the path."
        )
    table: Path | None = None
    columns: Columns = {}
    if labels is not None:
        table = Path(labels).absolute()
        columns, found = _columns_of(table, ids, root, labelling)
        findings += found
    return _new_manifest(ids, root, root, table, labelling, columns, findings)


def _read_listed(table: Path, labelling: Labelling) -> Manifest:
    root = table.parent
    paths, columns = _read_table(table)
    rows, lost = _rows_by_image(
        paths, lambda path: _find_below(root, path, [root], lambda found: (root / found).is_file())
    )
    if not rows:
        raise ManifestError(
            f"None of the {len(paths)} images of {table} exists, such as {_some(lost)}: expected "
            f"paths of files below {root}. Move the table there, or give the images' folder as "
            "source and the table as its labels."
        )
    ids = sorted(rows)
    columns, findings = _one_row_each(ids, rows, columns, table, labelling)
    if lost:
        findings.append(
            f"{_count(lost, 'row')} of {table.name} left out, naming no file below {root}: "
            f"{_some(lost)}"
        )
    return _new_manifest(ids, root, table, None, labelling, columns, findings)


def _columns_of(
    table: Path, ids: list[str], root: Path, labelling: Labelling
) -> tuple[Columns, list[str]]:
    """Columns of a table in the order of images that are known already, and findings."""
    paths, columns = _read_table(table)
    known, names = set(ids), [image_id.rpartition("/")[2] for image_id in ids]
    name_counts = Counter(names)
    by_name = {
        name: image_id for name, image_id in zip(names, ids, strict=True) if name_counts[name] == 1
    }
    rows, lost = _rows_by_image(
        paths,
        lambda path: (
            _find_below(root, path, [root, table.parent], known.__contains__) or by_name.get(path)
        ),
    )
    if not rows:
        raise ManifestError(
            f"None of the {len(paths)} rows of {table} names an image below {root}, such as "
            f"{_some(lost)}: expected paths relative to that folder, or file names that occur once."
        )
    columns, findings = _one_row_each(ids, rows, columns, table, labelling)
    if lost:
        findings.append(
            f"{_count(lost, 'row')} of {table.name} without an image below {root}: {_some(lost)}"
        )
    return columns, findings


def _list_images(root: Path) -> tuple[list[str], list[str]]:
    """Sorted ids of the images below a folder, and findings."""
    found = sorted(
        (folder / name).relative_to(root).as_posix()
        for folder, names in _folders(root)
        for name in names
        if _is_image(name) and not name.startswith(".")
    )
    ids = [image_id for image_id in found if _is_utf8(image_id)]
    if len(ids) == len(found):
        return ids, []
    # Neither Parquet, HDF5 nor JSON can hold such a name.
    refused = [ascii(image_id) for image_id in found if not _is_utf8(image_id)]
    return ids, [f"{_count(refused, 'image')} left out, the name not being UTF-8: {_some(refused)}"]


def _folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder from `root` down, each once, with the names of its files."""
    # Links wait until the folders themselves are seen, so that a folder keeps its own name;
    # one that leads back up ends at once.
    seen = set(root.resolve().parents)
    waiting = deque([root])
    while waiting:
        for name, folders, files in os.walk(waiting.popleft(), onerror=_refuse_folder):
            folder = Path(name)
            is_run = "run.json" in files and folder != root
            if is_run or folder.resolve() in seen:
                folders.clear()
                continue
            seen.add(folder.resolve())
            folders[:] = sorted(below for below in folders if not below.startswith("."))
            waiting.extend(folder / below for below in folders if (folder / below).is_symlink())
            yield folder, files


def _refuse_folder(error: OSError) -> None:
    raise ManifestError(
        f"Folder {error.filename} cannot be listed ({error.strerror}). Allow it to be read, or "
        "move it away."
    ) from error


def _images_at(given: str) -> list[Path]:
    path = Path(given)
    if path.is_dir():
        return [path / image_id for image_id in _list_images(path)[0]]
    if path.exists():
        return [path]
    # Path.glob takes no absolute pattern and finds hidden files.
    matches = map(Path, sorted(glob.glob(given, recursive=True)))  # noqa: PTH207
    return [
        image
        for match in matches
        for image in (_images_at(str(match)) if match.is_dir() else [match])
        if _is_image(image.name)
    ]


# Rows of a table and their images


def _rows_by_image(
    paths: list[str], find: Callable[[str], str | None]
) -> tuple[dict[str, list[int]], list[str]]:
    """Rows of a table that name each image, and the paths that name none."""
    rows: dict[str, list[int]] = {}
    lost = []
    for row, path in enumerate(paths):
        image_id = find(path)
        if image_id is None:
            lost.append(path or "(empty)")
        else:
            rows.setdefault(image_id, []).append(row)
    return rows, lost


def _find_below(
    root: Path, path: str, folders: Iterable[Path], known: Callable[[str], bool]
) -> str | None:
    """Id of the known image below `root` that a path relative to one of `folders` means."""
    top = os.path.normpath(root)
    for folder in folders:
        place = PurePath(os.path.normpath(folder / path))
        if place.is_relative_to(top):
            image_id = place.relative_to(top).as_posix()
            if known(image_id):
                return image_id
    return None


def _one_row_each(
    ids: list[str], rows: dict[str, list[int]], columns: Columns, table: Path, labelling: Labelling
) -> tuple[Columns, list[str]]:
    """Columns with one cell per image, and findings.

    Where an image's rows differ in a column that plays no role now, its cell is None:
    neither value may serve when that column does play one.
    """
    repeated = [image_id for image_id in ids if len(rows.get(image_id, ())) > 1]
    used = _used_columns(columns, labelling)
    merged: Columns = {}
    for name, cells in columns.items():
        merged[name] = []
        for image_id in ids:
            found = {cells[row] for row in rows.get(image_id, ())}
            if len(found) > 1 and name in used:
                raise ManifestError(
                    f"{table} names image {image_id!r} in several rows that differ in {name!r}. "
                    "Keep one row per image; several labels go in one cell, parted by "
                    f"{labelling.label_separator!r}."
                )
            merged[name].append(found.pop() if len(found) == 1 else None)
    if not repeated:
        return merged, []
    return merged, [
        f"{_count(repeated, 'image')} of {table.name} in several rows, with the same labels: "
        f"{_some(repeated)}"
    ]


# Tables


def _read_table(table: Path) -> tuple[list[str], Columns]:
    """Paths of a table's images, "" where missing, and its other columns."""
    reader = {".csv": _read_csv, ".parquet": _read_parquet}.get(table.suffix.lower())
    if reader is None:
        raise ManifestError(
            f"Table {table} is of the type {table.suffix!r}, expected .csv or .parquet. Save it "
            "as one of these."
        )
    try:
        columns = reader(table)
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
        raise ManifestError(
            f"Table {table} cannot be read ({_one_line(error)}): expected a sound {table.suffix} "
            "file (CSV: UTF-8, parted by commas). Mend it or save it anew."
        ) from error
    if not any(columns.values()):
        raise ManifestError(f"Table {table} holds no rows: expected one per image.")
    paths = columns.pop(_path_column(columns, table))
    return [cell[0] if cell else "" for cell in paths], columns


def _read_csv(table: Path) -> Columns:
    with table.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file, strict=True)
        header = [name.strip() for name in next(lines, [])]
        rows = []
        for row in filter(None, lines):
            if len(row) != len(header):
                raise ValueError(
                    f"line {lines.line_num} has {len(row)} cells, the header has {len(header)}"
                )
            rows.append([_cell(value) for value in row])
    twice = [name for name, count in Counter(header).items() if name and count > 1]
    if twice:
        raise ValueError(f"two columns are called {twice[0]!r}")
    # pandas writes its index under an empty name.
    return {name: [row[k] for row in rows] for k, name in enumerate(header) if name}


def _read_parquet(table: Path) -> Columns:
    with pq.ParquetFile(table) as file:
        stored = file.read()
    return {
        field.name: [_cell(value) for value in stored[field.name].to_pylist()]
        for field in stored.schema
        if _may_name(field.type) and not field.name.startswith("__index_level_")
    }


def _may_name(kind: pa.DataType) -> bool:
    # Pictures and descriptions of them (bytes, structs) are neither paths nor labels.
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    value = kind.value_type if is_list else kind
    is_bytes = pa.types.is_binary(value) or pa.types.is_large_binary(value)
    return not (is_bytes or pa.types.is_nested(value))


def _cell(value: Any) -> Cell:
    if isinstance(value, list):
        return tuple(text for text in map(_text, value) if text.strip())
    text = _text(value)
    return (text,) if text.strip() else None


def _text(value: Any) -> str:
    if value is None or value != value:
        return ""
    # Parquet holds whole numbers beside missing ones as floats.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _path_column(columns: Columns, table: Path) -> str:
    named = [name for known in _PATH_COLUMNS for name in columns if name.lower() == known]
    candidates = [name for name in (*named, *columns) if _are_paths(columns[name])] or named
    if not candidates:
        raise ManifestError(
            f"Table {table} has no column of image paths among {', '.join(columns)}: expected one "
            f"called 'path', or one whose values end in {_suffixes()}. Name it 'path'."
        )
    return candidates[0]


def _are_paths(cells: list[Cell]) -> bool:
    present = [cell for cell in cells if cell]
    return 2 * sum(_is_image(cell[0]) for cell in present) > len(present)


# Labels


def _new_manifest(
    ids: list[str],
    root: Path,
    source: Path,
    labels_source: Path | None,
    labelling: Labelling,
    columns: Columns,
    findings: list[str],
) -> Manifest:
    unlabelled = Manifest(
        root=root,
        source=str(source),
        labels_source=None if labels_source is None else str(labels_source),
        table=pd.DataFrame(index=pd.Index(ids, dtype=object, name="id")),
        attribute_names=(),
        labelling=labelling,
        columns=columns,
        findings=tuple(findings),
    )
    return _labelled(unlabelled)


def _checksum(about: dict[str, Any], ids: list[str], columns: Columns) -> int:
    # Parquet's own checksums leave out the headers of its pages.
    return zlib.crc32(json.dumps([about, ids, columns], sort_keys=True).encode())


def _stored_manifest(stored: pa.Table, about: dict[str, Any]) -> Manifest:
    checksum, labelling = about.pop("checksum"), about["labelling"]
    ids: list[str] = stored["id"].to_pylist()
    columns: Columns = {
        name.removeprefix(_STORED_COLUMN): [
            None if cell is None else tuple(cell) for cell in stored[name].to_pylist()
        ]
        for name in stored.column_names[1:]
    }
    if checksum != _checksum(about, ids, columns):
        raise ValueError("its checksum does not fit")
    labels_source = about["labels_source"]
    manifest = _new_manifest(
        ids,
        Path(about["root"]),
        Path(about["source"]),
        None if labels_source is None else Path(labels_source),
        Labelling(**{**labelling, "attributes": tuple(labelling["attributes"])}),
        columns,
        [],
    )
    return replace(manifest, findings=tuple(about["findings"]))


def _labelled(manifest: Manifest) -> Manifest:
    """The manifest with the table that its labelling makes of its columns and ids."""
    columns, labelling, index = manifest.columns, manifest.labelling, manifest.table.index
    folders = _step_over([tuple(image_id.split("/")[:-1]) for image_id in index])
    named_parts, folders = _split_folders(folders)
    parts, findings = _given_parts(_split_column(columns) or named_parts)
    labels = _column_labels(columns, labelling) or _folder_labels(folders, labelling.attributes)
    _refuse_empty(labels)
    cells: dict[str, Sequence[Any]] = {**labels}
    if labelling.group is not None:
        cells[labelling.group] = _group_values(columns, labelling.group, labels)
    if parts:
        cells[SPLIT_COLUMN] = parts
    return replace(
        manifest,
        table=pd.DataFrame(
            {name: pd.Series(values, index, dtype=object) for name, values in cells.items()}, index
        ),
        attribute_names=tuple(labels),
        findings=(*manifest.findings, *findings, *_unlabelled(labels, manifest.ids)),
    )


def _labels(attribute: str, cells: Sequence[Cell]) -> Labels:
    classes = tuple(sorted({name for cell in cells for name in cell or ()}))
    column_of = {name: column for column, name in enumerate(classes)}
    indicator = np.zeros((len(cells), len(classes)), dtype=bool)
    for row, cell in enumerate(cells):
        indicator[row, [column_of[name] for name in cell or ()]] = True
    return Labels(
        attribute=attribute,
        classes=classes,
        exclusive=all(len(cell) == 1 for cell in cells if cell is not None),
        indicator=indicator,
        labelled=np.array([cell is not None for cell in cells], dtype=bool),
    )


def _refuse_empty(labels: Columns) -> None:
    for name, cells in labels.items():
        if not any(cells):
            raise ManifestError(
                f"Attribute {name!r} has no label for any of the {len(cells)} images: expected at "
                "least one. Fill its column, or name other --attributes."
            )


def _unlabelled(labels: Columns, ids: NDArray[np.object_]) -> list[str]:
    if not labels:
        return [f"{_count(ids, 'image')} without any label: {_some(ids)}"]
    findings = []
    for name, cells in labels.items():
        missing = [image_id for image_id, cell in zip(ids, cells, strict=True) if cell is None]
        if missing:
            findings.append(f"{_count(missing, 'image')} without a {name!r}: {_some(missing)}")
    return findings


def _group_values(columns: Columns, group: str, labels: Columns) -> list[str | None]:
    if group not in columns:
        hint = "" if columns else "Folders have none: give a table with --labels."
        raise UnknownNameError("group column", group, columns, hint)
    if group in labels:
        raise UsageError(f"Group {group!r} is an attribute's name too; rename the column.")
    return [" ".join(cell).strip() if cell else None for cell in columns[group]]


# Labels in columns


def _column_labels(columns: Columns, labelling: Labelling) -> Columns:
    """Labels of each attribute; empty if no column holds labels."""
    return {
        attribute: _gathered(columns, flags)
        if flags
        else [_class_names(cell, labelling.label_separator) for cell in columns[attribute]]
        for attribute, flags in _attribute_columns(columns, labelling).items()
    }


def _used_columns(columns: Columns, labelling: Labelling) -> set[str]:
    plan = _attribute_columns(columns, labelling)
    used = {name for attribute, flags in plan.items() for name in flags or (attribute,)}
    return used | {SPLIT_COLUMN, labelling.group or SPLIT_COLUMN}


def _attribute_columns(columns: Columns, labelling: Labelling) -> dict[str, dict[str, str]]:
    """Attributes and where they are: `{column: class}` of 0/1 columns, or `{}` for their own."""
    free = [name for name in columns if name not in (labelling.group, SPLIT_COLUMN)]
    flags = [name for name in free if _are_flags(columns[name])]
    plan: dict[str, dict[str, str]] = {name: {} for name in free}
    for name in flags:
        match = _FLAG_COLUMN.fullmatch(name)
        if match:
            del plan[name]
            plan.setdefault(match[1].strip(), {})[name] = match[2].strip()
    if not free:
        return {}
    if labelling.attributes:
        return _chosen(plan, labelling.attributes)
    plain_flags = {name: name for name in flags if name in plan}
    if len(plain_flags) >= 2 and _DEFAULT_ATTRIBUTE not in plan:
        plan = {name: where for name, where in plan.items() if name not in plain_flags}
        plan[_DEFAULT_ATTRIBUTE] = plain_flags
    return plan


def _chosen(plan: dict[str, dict[str, str]], names: tuple[str, ...]) -> dict[str, dict[str, str]]:
    unknown = [name for name in names if name not in plan]
    if unknown:
        raise UnknownNameError("attribute", unknown[0], plan, "Name columns of the table.")
    return {name: plan[name] for name in names}


def _are_flags(cells: list[Cell]) -> bool:
    present = [cell for cell in cells if cell is not None]
    return bool(present) and all(len(cell) == 1 and cell[0].lower() in _FLAGS for cell in present)


def _gathered(columns: Columns, flags: dict[str, str]) -> list[Cell]:
    """Labels out of 0/1 columns; an empty cell counts as 0, unless all of a row are empty."""
    rows = zip(*(columns[name] for name in flags), strict=True)
    return [
        tuple(
            sorted(
                label
                for label, cell in zip(flags.values(), row, strict=True)
                if cell and _FLAGS[cell[0].lower()]
            )
        )
        if any(row)
        else None
        for row in rows
    ]


def _class_names(cell: Cell, separator: str) -> Cell:
    if not cell:
        return cell
    parts = [part for text in cell for part in (text.split(separator) if separator else [text])]
    return tuple(sorted({part.strip() for part in parts if part.strip()})) or None


# Labels in folder names


def _step_over(folders: list[Folders]) -> list[Folders]:
    """Each image's folders from the first level on at which the images differ."""
    while len({path[0] for path in folders if path}) == 1:
        folders = [path[1:] for path in folders]
    return folders


def _folder_labels(folders: list[Folders], attributes: tuple[str, ...]) -> Columns:
    """Labels of each attribute; empty if all images lie in one folder."""
    paths = {path for path in folders if path}
    if not paths and attributes:
        raise ManifestError(
            f"Attributes {', '.join(attributes)} cannot be read from folder names: all images lie "
            "in one folder. Put them in class folders, or give the labels as --labels TABLE."
        )
    if not paths:
        return {}
    if len(attributes) <= 1:
        attributes, cuts = attributes or (_DEFAULT_ATTRIBUTE,), {path: path[:1] for path in paths}
    else:
        cuts = _cut(paths, attributes)
    return {
        attribute: [(cuts[path][k].strip(),) if path else None for path in folders]
        for k, attribute in enumerate(attributes)
    }


def _cut(paths: set[Folders], attributes: tuple[str, ...]) -> dict[Folders, tuple[str, ...]]:
    """One name per attribute out of each class folder's levels, or of its last level's name."""
    n_attributes = len(attributes)
    if all(len(path) == n_attributes for path in paths):
        return {path: path for path in paths}
    fitting = []
    for separator in _NAME_SEPARATORS:
        cuts = {path: tuple(path[-1].split(separator)) for path in paths}
        fitting.append(
            {
                path: cut
                for path, cut in cuts.items()
                if len(cut) == n_attributes and all(part.strip() for part in cut)
            }
        )
    best = max(fitting, key=len)
    if len(best) < len(paths):
        misfit = "/".join(min(paths - set(best)))
        raise ManifestError(
            f"Folder {misfit!r} does not give the {n_attributes} attributes "
            f"{', '.join(attributes)}: expected {n_attributes} folder levels, or a name of "
            f"{n_attributes} parts parted by '_', '-' or ' '. Name another number of --attributes, "
            "or give the labels as --labels TABLE."
        )
    return best


# Given splits


def _split_folders(folders: list[Folders]) -> tuple[list[str] | None, list[Folders]]:
    """Names of the given split's folders, if they are one, and the folders below them."""
    tops = {path[0].lower() for path in folders if path}
    if "train" not in tops or len(tops) == 1 or not tops <= set(_GIVEN_PARTS):
        return None, folders
    names = [path[0].lower() if path else "train" for path in folders]
    return names, _step_over([path[1:] for path in folders])


def _split_column(columns: Columns) -> list[str] | None:
    if SPLIT_COLUMN not in columns:
        return None
    names = [cell[0].strip().lower() if cell else "train" for cell in columns[SPLIT_COLUMN]]
    unknown = sorted(set(names) - set(_GIVEN_PARTS))
    if unknown:
        raise ManifestError(
            f"Column {SPLIT_COLUMN!r} holds {unknown[0]!r}, expected one of "
            f"{', '.join(_GIVEN_PARTS)}. Mend it, or rename the column."
        )
    return names


def _given_parts(names: list[str] | None) -> tuple[list[str] | None, list[str]]:
    """``"train"`` or ``"test"`` for each image, and findings."""
    if names is None:
        return None, []
    kinds = [_GIVEN_PARTS[name] for name in names]
    counts = Counter(kinds)
    if len(counts) == 1:
        return None, [f"Every image's {SPLIT_COLUMN!r} is {kinds[0]!r}: taken for no split"]
    validation = "train" if "test" in counts else "test"
    parts = [validation if kind == "validation" else kind for kind in kinds]
    finding = f"Given split: {parts.count('train')} train and {parts.count('test')} test images"
    if counts["validation"]:
        finding += f"; validation images ({counts['validation']}) count as {validation}"
    return parts, [finding]


# Words


def _is_image(name: str) -> bool:
    return PurePath(name).suffix.lower() in IMAGE_SUFFIXES


def _is_utf8(name: str) -> bool:
    # Python holds bytes that are not UTF-8 as lone surrogates.
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _suffixes() -> str:
    return " ".join(IMAGE_SUFFIXES)


def _count(things: Sized, what: str) -> str:
    return f"{len(things)} {what}{'' if len(things) == 1 else 's'}"


def _some(names: Sequence[str] | NDArray[np.object_]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
