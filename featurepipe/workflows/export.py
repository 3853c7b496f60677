"""export(): cached features -> .npz, .parquet or .csv, and runs -> .onnx, for other programs."""

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from featurepipe.errors import ManifestError, NotReadableError, StoreError, UsageError
from featurepipe.features.catalogue import find_store, manifest_about
from featurepipe.features.store import FeatureStore
from featurepipe.files import replacing
from featurepipe.workflows.feature_table import feature_columns, label_cells, writer_for
from featurepipe.workflows.packed_stores import pack_stores, require_features
from featurepipe.workflows.written_folders import require_outside_source
from featurepipe.workspace import Workspace

if TYPE_CHECKING:
    from featurepipe.workflows.exports.export_run import RunExport

logger = logging.getLogger(__name__)

STORE_SUFFIX, RUN_SUFFIXES = ".h5", (".onnx", ".xml")


@dataclass(frozen=True)
class Export:
    """What one export wrote and left out.

    Attributes
    ----------
    stores : tuple of Path
    target : Path
    n_rows : int
        Images written.
    n_features : int
        Features of each.
    labels : tuple of str
        Attributes written.
    n_pending, n_refused : int
        Images of the stores that are pending and refused; they are left out, but for refused
        ones of a packed store.
    """

    stores: tuple[Path, ...]
    target: Path
    n_rows: int
    n_features: int
    labels: tuple[str, ...]
    n_pending: int
    n_refused: int

    def in_words(self) -> str:
        """One line for a person."""
        labels = f", labels {', '.join(self.labels)}" if self.labels else ""
        start = f"{self.target}: {self.n_rows} images of {self.n_features} features{labels}"
        if self.target.suffix.lower() == STORE_SUFFIX:
            return f"{start}, {self.n_refused} refused; left out: {self.n_pending} pending"
        return f"{start}; left out: {self.n_pending} pending, {self.n_refused} refused"

    def as_dict(self) -> dict[str, object]:
        """The same as JSON values."""
        return {
            **asdict(self),
            "stores": [str(store) for store in self.stores],
            "target": str(self.target),
        }


def export(
    store: Path | str | Sequence[Path | str],
    target: Path | str,
    *,
    labels: bool = False,
    weights: Sequence[str] = (),
    page: Path | str | None = None,
    workspace: Path | str = ".",
) -> "Export | RunExport":
    """Write the features of a store, or a run, for other programs.

    Parameters
    ----------
    store : Path or str, or sequence of these
        A store's path, or its name in the workspace. Several only to pack them. For ``.onnx`` and
        ``.xml`` the name of a run.
    target : Path or str
        The file to write, whole or not at all; its suffix decides the format:

        * ``.npz``: arrays ``ids`` (str), ``features`` (float32, or float16 of a store of that
          precision, (n_images, n_features)) and ``label_<attribute>`` (str); no pickle. Holds all
          features in memory, as its readers do.
        * ``.parquet``: columns ``id``, one per attribute, and ``features``: lists of
          n_features numbers of the type that the store has, a single column that is read at once.
        * ``.csv``: columns ``id``, one per attribute, and ``f0000``, ``f0001``, …: a table that
          scikit-learn takes as it is, with the shortest digits that give the same float32 again.
        * ``.h5``: a store of all images of one or several stores of the same options, such as
          those of several machines. Each image is taken from the first store that has its
          features; pending ones are left out.
        * ``.onnx``: a run, from pixels to answers in one file. It is compared with the run on
          its test images at once, and must give the same answers. Beside it,
          ``TARGET.golden.npz`` has some test images, made smaller, and their answers, for
          `featurepipe.check`; ``TARGET.md`` is a model card, and ``TARGET_predict.py`` a program
          that runs the model.
        * ``.xml``: the same for OpenVINO, with ``TARGET.bin`` beside it.
    labels : bool
        Whether to write the attributes of the manifest, too: several classes of
        one image are joined by ``|``, a missing label is empty (null in Parquet).
    weights : sequence of str
        For a run: current files of its weights; see `featurepipe.predict`.
    page : Path or str, optional
        For a run in ONNX: a folder for a web page that runs it. What runs it in the browser is
        fetched from the npm registry, once for each user.
    workspace : Path or str
        Where a name is looked up; its labels are taken for a store that does not lie in a
        workspace.

    Returns
    -------
    Export or RunExport
        What was written and left out, or how the run was exported.

    Raises
    ------
    ExportError
        If the model answers otherwise than the run. Nothing is written then.
    UsageError
        If the suffix is another, `target` is a folder, or in a folder of the source other than
        the workspace, or an attribute has the name of another column; or if several stores, or
        labels, are not what the format can hold.
    StoreError
        If a store is damaged, holds no features, or is a pixel cache.
    StoreMismatchError
        If stores to pack have different features.
    WorkspaceError
        If labels are requested and there are none.
    """
    target = Path(target)
    suffix = target.suffix.lower()
    if suffix in RUN_SUFFIXES:
        return _export_run(store, target, labels, weights, page, Workspace(workspace))
    for option, given in (("--weights", bool(weights)), ("--page", page is not None)):
        if given:
            raise UsageError(f"{option} only applies to runs. Omit it, or export to TARGET.onnx.")
    write = None if suffix == STORE_SUFFIX else writer_for(target)
    _require_no_folder(target)
    space = Workspace(workspace)
    named = [store] if isinstance(store, Path | str) else store
    paths = [find_store(one, space) for one in named]
    path = paths[0]
    _require_one_format(paths, target, labels=labels)
    if target.parent.resolve() != space.root.resolve():
        # Without labels, an export needs no sound manifest.
        with suppress(ManifestError, NotReadableError):
            require_outside_source(target.parent, manifest_about(path, space), "The export")
    if write is None:
        return _pack(paths, target)
    with FeatureStore.open(path) as opened:
        require_features(opened)
        rows = opened.rows("done")
        if not len(rows):
            raise StoreError(f"{path} has no features yet. Finish it: featurepipe extract")
        ids = opened.ids[rows]
        cells = label_cells(manifest_about(path, space), ids, path) if labels else {}
        columns = feature_columns(suffix, opened)
        if taken := sorted({"id", *columns} & set(cells)) if columns else []:
            raise UsageError(
                f"The attribute {taken[0]!r} has the name of another column. Export to .npz, or "
                "without --labels."
            )
        with replacing(target) as beside:
            write(beside, opened, rows, ids, cells)
        counts = opened.counts()
        n_features = opened.n_features
    _warn_of_missing(path, counts["pending"], len(rows))
    return Export(
        stores=(path,),
        target=target,
        n_rows=len(rows),
        n_features=n_features,
        labels=tuple(cells),
        n_pending=counts["pending"],
        n_refused=counts["refused"],
    )


def _pack(paths: Sequence[Path], target: Path) -> Export:
    n_pending = pack_stores(paths, target)
    with FeatureStore.open(target) as packed:
        counts, n_features = packed.counts(), packed.n_features
    _warn_of_missing(target, n_pending, counts["done"] + counts["refused"])
    return Export(
        stores=tuple(paths),
        target=target,
        n_rows=counts["done"],
        n_features=n_features,
        labels=(),
        n_pending=n_pending,
        n_refused=counts["refused"],
    )


def _export_run(
    name: Path | str | Sequence[Path | str],
    target: Path,
    labels: bool,
    weights: Sequence[str],
    page: Path | str | None,
    workspace: Workspace,
) -> "RunExport":
    # Imported late: most exports need no heads.
    from featurepipe.workflows.exports.export_run import export_run

    names = [name] if isinstance(name, Path | str) else list(name)
    if len(names) > 1:
        raise UsageError(f"{target} can hold one run, not {len(names)}. Export them one by one.")
    if labels:
        raise UsageError("--labels only applies to stores. Omit it.")
    _require_no_folder(target)
    folder = None if page is None else Path(page)
    return export_run(str(names[0]), target, workspace=workspace, weights=weights, page=folder)


def _require_no_folder(target: Path) -> None:
    if target.is_dir():
        raise UsageError(f"Cannot export to {target}: it is a folder. Name a file.")


def _require_one_format(paths: Sequence[Path], target: Path, *, labels: bool) -> None:
    packs = target.suffix.lower() == STORE_SUFFIX
    if len(paths) > 1 and not packs:
        raise UsageError(
            f"{target} can hold one store, not {len(paths)}. Export them one by one, or pack them "
            "into a store: TARGET.h5"
        )
    if packs and labels:
        raise UsageError("A store holds no labels. Omit --labels.")
    if packs and os.path.lexists(target):
        raise UsageError(
            f"There is {target} already, and a store is never replaced by packing. Name another "
            "file, or delete it."
        )


def _warn_of_missing(path: Path, n_pending: int, n_rows: int) -> None:
    if n_pending:
        logger.warning(
            "%d of %d images of %s have no features yet and are missing from the export. To "
            "include them, run featurepipe extract first.",
            n_pending,
            n_pending + n_rows,
            path,
        )
