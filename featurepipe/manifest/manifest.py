"""The ordered table of images and their labels."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import ManifestError
from featurepipe.files import replacing
from featurepipe.manifest.cells import Columns
from featurepipe.manifest.image_labels import Cells, label_images
from featurepipe.manifest.kinds import Kinds
from featurepipe.manifest.labelling import Labelling
from featurepipe.manifest.labels import Labels, are_exclusive, labels_of
from featurepipe.manifest.manifest_file import (
    About,
    damage_named,
    tables_of,
    write_manifest_file,
)
from featurepipe.manifest.manifest_rows import ManifestRows
from featurepipe.manifest.rows import read_columns
from featurepipe.sources import ImageSource, absolute_place, open_source

if TYPE_CHECKING:
    import pandas as pd


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
        rows = None if ids is None else self.rows_of(ids)
        every = ((name, labels_of(name, self.cells[name])) for name in self.attribute_names)
        return {name: labels if rows is None else labels.take(rows) for name, labels in every}

    def combinations(self) -> "pd.Series[Any]":
        """Classes of each image over all exclusive attributes, such as ``"black_dress"``.

        Returns
        -------
        Series of object, indexed by image id
            None where one of the labels is missing, or if no attribute is exclusive.
        """
        import pandas as pd

        exclusive = [name for name in self.attribute_names if are_exclusive(self.cells[name])]
        rows = zip(*(self.cells[name] for name in exclusive), strict=True)
        # There are far fewer combinations than images.
        name_of = cache(lambda row: None if None in row else "_".join(cell[0] for cell in row))
        names = [name_of(row) for row in rows] or [None] * len(self)
        index = pd.Index(self.ids, dtype=object, name="id")
        return pd.Series(names, index=index, dtype=object)

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
        groups = tables_of(self.ids, self.columns)
        with replacing(Path(path)) as beside:
            write_manifest_file(beside, list(self.columns), groups, self._about)

    def rows(self) -> ManifestRows:
        """The same as if it were saved and opened."""
        return ManifestRows.unsaved(self.ids, self.columns, self._about)

    def _about(self) -> About:
        return About(
            root=self.root,
            source=self.source,
            labels_source=self.labels_source,
            labelling=self.labelling,
            findings=self.findings,
            all_images=self.all_images,
        )

    @classmethod
    def load(cls, path: Path | str) -> "Manifest":
        """Read a saved manifest; its images need not be there any more.

        Raises
        ------
        ManifestError
            If the file is missing, damaged or something else.
        """
        with ManifestRows(Path(path)) as rows:
            return cls.of(rows)

    @classmethod
    def of(cls, rows: ManifestRows) -> "Manifest":
        """All rows of a manifest's file, labelled.

        Raises
        ------
        ManifestError
            If the file is damaged.
        """
        about = rows.about
        ids, columns = rows.read_all()
        with damage_named(rows.path):
            manifest = new_manifest(
                ids, about.root, about.source, about.labels_source, about.labelling, columns, []
            )
        return replace(manifest, findings=about.findings, all_images=about.all_images)

    def rows_of(self, ids: Iterable[str]) -> NDArray[np.intp]:
        """Positions of some images.

        Parameters
        ----------
        ids : iterable of str

        Returns
        -------
        ndarray of shape (n_images,), intp

        Raises
        ------
        ManifestError
            If the manifest has no image of one of the ids.
        """
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
    kinds = Kinds.of(ids, columns)
    labelled = label_images(kinds, columns, labelling)
    return Manifest(
        root=root,
        source=source,
        labels_source=labels_source,
        ids=np.array(ids, dtype=object),
        cells={
            name: [cells[kind] for kind in kinds.kind_of] for name, cells in labelled.cells.items()
        },
        attribute_names=labelled.attribute_names,
        labelling=labelling,
        columns=columns,
        findings=(*findings, *labelled.findings),
    )
