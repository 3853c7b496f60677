"""The ordered table of images and their labels, and its file."""

import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from featurepipe.errors import ManifestError
from featurepipe.files import replacing, require_readable
from featurepipe.manifest.cells import Columns
from featurepipe.manifest.image_labels import Cells, label_images
from featurepipe.manifest.labelling import Labelling
from featurepipe.manifest.labels import Labels, labels_of
from featurepipe.manifest.rows import read_columns
from featurepipe.manifest.tables import read_parquet
from featurepipe.sources import ImageSource, absolute_place, open_source
from featurepipe.words import invalid_field, one_line

if TYPE_CHECKING:
    import pandas as pd

_METADATA_KEY = b"featurepipe.manifest"
_STORED_COLUMN = "table."
_FORMAT = 2


class _About(BaseModel):
    """What a manifest's file says beside its images and columns."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: int
    checksum: int
    root: str
    source: str
    labels_source: str | None
    labelling: Labelling
    findings: tuple[str, ...]
    all_images: bool


@dataclass(frozen=True, eq=False)
class Manifest:
    """The ordered table of images and their labels.

    Attributes
    ----------
    root : str
        Folder, tar file or pattern of tar files (``shards/*.tar``) that image ids are relative
        to, as an absolute path or a URL.
    source : str
        Absolute path or URL of the source of the images.
    labels_source : str or None
        Absolute path or URL of a separate table of labels, if there is one.
    ids : ndarray of shape (n_images,), str objects
        Image ids, sorted, each once.
    cells : dict of str to sequence
        In the order of `ids`. For each attribute, a sorted tuple of class names, or None for
        a missing label (an empty tuple is a label: none of the classes). For the group
        column, str or None. With a predefined split, ``"train"`` or ``"test"`` under
        ``split``.
    attribute_names : tuple of str
    labelling : Labelling
        How `cells` follow from `columns`.
    columns : dict of str to list of (tuple of str or None)
        Columns of the label table as read, in the order of `ids`; empty if the labels come
        from folder names.
    findings : tuple of str
        Messages for the user about images and labels.
    all_images : bool
        Whether images that the label table does not name are included.
    opened : ImageSource or None
        The source that listed the images, if they were just listed; see `images`.
    """

    root: str
    source: str
    labels_source: str | None
    ids: NDArray[np.object_]
    cells: Cells
    attribute_names: tuple[str, ...]
    labelling: Labelling
    columns: Columns
    findings: tuple[str, ...]
    all_images: bool = False
    opened: ImageSource | None = None

    @cached_property
    def table(self) -> "pd.DataFrame":
        """`cells` as one table: a DataFrame indexed by image id, its columns of objects."""
        # Imported late: it is slow to import, and extraction needs no table.
        import pandas as pd

        index = pd.Index(self.ids, dtype=object, name="id")
        columns = {
            name: pd.Series(cells, index, dtype=object) for name, cells in self.cells.items()
        }
        return pd.DataFrame(columns, index)

    @property
    def group_column(self) -> str | None:
        """Name of the column whose values name images that belong together."""
        return self.labelling.group

    def __len__(self) -> int:
        return len(self.ids)

    def images(self) -> ImageSource:
        """The source that reads the images.

        Raises
        ------
        ManifestError
            If their tar file is missing or damaged.
        SourceError
            If their URL cannot be reached.
        """
        return self.opened or open_source(self.root)

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
        return {name: labels_of(name, self.cells[name]).take(rows) for name in self.attribute_names}

    def combinations(self) -> "pd.Series[Any]":
        """Classes of each image over all exclusive attributes, such as ``"black_dress"``.

        Returns
        -------
        Series of object, indexed by image id
            None where one of the labels is missing, or if no attribute is exclusive.
        """
        import pandas as pd

        exclusive = [name for name, labels in self.labels().items() if labels.exclusive]
        cells = zip(*(self.cells[name] for name in exclusive), strict=True)
        names = [None if None in row else "_".join(cell[0] for cell in row) for row in cells]
        return pd.Series(names or [None] * len(self), index=self.table.index, dtype=object)

    def relabelled(
        self,
        *,
        attributes: Sequence[str] | None = None,
        labels: Path | str | None = None,
        group: str | None = None,
        label_separator: str | None = None,
        min_per_class: int | None = None,
    ) -> "Manifest":
        """The same images with new labels; only `labels` needs to be on disk.

        Parameters
        ----------
        attributes, group, label_separator, min_per_class : optional
            As in `read_manifest`. None (or no attributes) keeps the current value or, with
            `labels`, means the default.
        labels : Path or str, optional
            Path or URL of a new table of labels; None keeps the current table or folder names.

        Returns
        -------
        Manifest
            Its `findings` concern the new labels only.

        Raises
        ------
        ManifestError, UnknownNameError, UsageError
            As `read_manifest`.
        """
        options = {
            "attributes": tuple(attributes or ()) or None,
            "group": group,
            "label_separator": label_separator,
            "min_per_class": min_per_class,
        }
        asked: dict[str, Any] = {k: value for k, value in options.items() if value is not None}
        ids: list[str] = self.ids.tolist()
        findings: list[str] = []
        all_images = self.all_images
        if labels is None:
            labelling = replace(self.labelling, **asked)
            labels_source, columns = self.labels_source, self.columns
        else:
            labelling, labels_source = Labelling(**asked), absolute_place(labels)
            _, columns, findings = read_columns(labels_source, ids, self.root, labelling)
            # Without a table before, all images were meant, and are when they are read again.
            all_images = self.all_images or self.labels_source is None
        manifest = new_manifest(
            ids, self.root, self.source, labels_source, labelling, columns, findings
        )
        return replace(manifest, all_images=all_images, opened=self.opened)

    def save(self, path: Path | str) -> None:
        """Write the manifest as one Parquet file, whole or not at all.

        The same manifest gives the same bytes. The file holds the ids and the
        columns as they were read; labels are made of them anew on loading.
        """
        names = ["id", *(f"{_STORED_COLUMN}{name}" for name in self.columns)]
        arrays = [pa.array(self.ids, pa.string())]
        arrays += [pa.array(cells, pa.list_(pa.string())) for cells in self.columns.values()]
        about = self._about() | {"checksum": self.checksum}
        metadata = {_METADATA_KEY: json.dumps(about, sort_keys=True)}
        with replacing(Path(path)) as beside:
            pq.write_table(pa.table(arrays, names=names, metadata=metadata), beside)

    @property
    def checksum(self) -> int:
        """CRC-32 of all that its file holds."""
        return _checksum(self._about(), self.ids.tolist(), self.columns)

    def _about(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "root": self.root,
            "source": self.source,
            "labels_source": self.labels_source,
            "labelling": asdict(self.labelling),
            "findings": self.findings,
            "all_images": self.all_images,
        }

    @classmethod
    def load(cls, path: Path | str) -> "Manifest":
        """Read a saved manifest; its images need not be there any more.

        Raises
        ------
        ManifestError
            If the file is missing, damaged or something else.
        """
        require_readable(Path(path))
        try:
            with Path(path).open("rb") as file:
                stored = read_parquet(file)
            about = json.loads((stored.schema.metadata or {}).get(_METADATA_KEY, b"{}"))
            if not isinstance(about, dict):
                raise TypeError(f"its description is a {type(about).__name__}")
            if about.get("format") != _FORMAT:
                raise ValueError(f"its format is {about.get('format')}, not {_FORMAT}")
            return _stored_manifest(stored, _About.model_validate_json(json.dumps(about)))
        # The type of the error depends on what is wrong with the file.
        except Exception as error:
            reason = invalid_field(error) if isinstance(error, ValidationError) else one_line(error)
            raise ManifestError(
                f"Cannot read the manifest {path} ({reason}). Remove it, and create it again with "
                "`featurepipe extract SOURCE`."
            ) from error

    def _rows(self, ids: Iterable[str]) -> NDArray[np.intp]:
        rows = {image_id: row for row, image_id in enumerate(self.ids)}
        try:
            return np.array([rows[image_id] for image_id in ids], dtype=np.intp)
        except KeyError as error:
            raise self._no_such_image(error.args[0]) from None

    def _no_such_image(self, image_id: str) -> ManifestError:
        return ManifestError(
            f"{image_id!r} is not one of the {len(self)} images of {self.source}. Expected a path "
            f"relative to {self.root}. For new images, run `featurepipe extract` again."
        )


def new_manifest(
    ids: list[str],
    root: str,
    source: str,
    labels_source: str | None,
    labelling: Labelling,
    columns: Columns,
    findings: Sequence[str],
) -> Manifest:
    """Label images and build their manifest.

    Parameters
    ----------
    ids : list of str
        Image ids, sorted.
    root, source, labels_source, labelling, columns
        As in `Manifest`.
    findings : sequence of str
        Messages about `ids` and `columns`; messages about the labels follow them.

    Raises
    ------
    ManifestError, UnknownNameError, UsageError
        As `read_manifest`.
    """
    cells, attribute_names, found = label_images(ids, columns, labelling)
    return Manifest(
        root=root,
        source=source,
        labels_source=labels_source,
        ids=np.array(ids, dtype=object),
        cells=cells,
        attribute_names=attribute_names,
        labelling=labelling,
        columns=columns,
        findings=(*findings, *found),
    )


def _checksum(about: dict[str, Any], ids: list[str], columns: Columns) -> int:
    # Parquet's own checksums do not cover page headers.
    return zlib.crc32(json.dumps([about, ids, columns], sort_keys=True).encode())


def _stored_manifest(stored: pa.Table, about: _About) -> Manifest:
    names, kinds = stored.column_names, stored.schema.types
    if names[:1] != ["id"] or kinds != [pa.string(), *[pa.list_(pa.string())] * (len(kinds) - 1)]:
        raise ValueError("its columns are others than those of a manifest")
    if stored["id"].null_count:
        raise ValueError("an id is missing")
    ids: list[str] = stored["id"].to_pylist()
    if any(later <= earlier for earlier, later in pairwise(ids)):
        raise ValueError("its images are not in order, or one is there twice")
    columns: Columns = {
        name.removeprefix(_STORED_COLUMN): [
            None if cell is None else tuple(cell) for cell in stored[name].to_pylist()
        ]
        for name in stored.column_names[1:]
    }
    if about.checksum != _checksum(about.model_dump(exclude={"checksum"}), ids, columns):
        raise ValueError("its checksum does not match")
    manifest = new_manifest(
        ids, about.root, about.source, about.labels_source, about.labelling, columns, []
    )
    return replace(manifest, findings=about.findings, all_images=about.all_images)
