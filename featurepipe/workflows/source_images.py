"""Which images an extraction is about: those of its source, labelled as the workspace remembers."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from featurepipe.errors import StoreError, UsageError, WorkspaceError
from featurepipe.features.store import FeatureStore
from featurepipe.manifest import (
    ListedSource,
    ManifestRows,
    Relabelling,
    list_source,
    read_manifest,
)
from featurepipe.manifest.tables import is_table
from featurepipe.progress import tell
from featurepipe.sources import require_there
from featurepipe.words import counted
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)


@contextmanager
def read_source(
    space: Workspace, source: Path | str | None, asked: Relabelling, *, all_images: bool
) -> Iterator[tuple[ListedSource, bool]]:
    """The images of the source as it is now; options not given are as the workspace remembers.

    Parameters
    ----------
    space : Workspace
    source : Path or str, optional
    asked : Relabelling
    all_images : bool
        These three are as in `featurepipe.extract`.

    Yields
    ------
    listed : ListedSource
    is_new : bool
        Whether its manifest differs from that of the workspace.

    Raises
    ------
    WorkspaceError
        If the workspace has none of the images, but stores of others.
    FeaturepipeError
        If images or labels cannot be read; see `featurepipe.errors`.
    """
    with ExitStack() as opened:
        with ManifestRows(space.manifest) if space.manifest.exists() else nullcontext() as saved:
            listed = opened.enter_context(_listed(saved, source, asked, all_images))
            rows = listed.rows
            if saved is None:
                _require_stores_of_same_images(space, rows)
            elif not _share_images(saved, rows):
                raise WorkspaceError(
                    f"The workspace {space.root} holds other images: "
                    f"{counted(len(saved), 'image')} such as {saved.ids(0, 1)[0]}, read from "
                    f"{saved.source}. None of them is among the {counted(len(rows), 'image')} of "
                    f"{rows.source}, such as {rows.ids(0, 1)[0]}. Give another --workspace."
                )
            is_new = saved is None or saved.checksum != rows.checksum
        if saved is None and source is None:
            logger.info(
                "No SOURCE was given, and %s has no manifest: using the current folder, %s, with "
                "%s.",
                space.root,
                Path.cwd(),
                counted(len(rows), "image"),
            )
        tell(rows.about.findings)
        yield listed, is_new


def _listed(
    saved: ManifestRows | None, source: Path | str | None, asked: Relabelling, all_images: bool
) -> ListedSource:
    attributes, labels, group = asked.attributes, asked.labels, asked.group
    label_separator, min_per_class = asked.label_separator, asked.min_per_class
    is_relabelled = False
    if saved is not None:
        saved.check()
        about = saved.about
        if source is None:
            require_there(about.source)
            source = about.source
        if labels is None:
            labels = about.labels_source
            attributes = attributes or about.labelling.attributes
            group = group or about.labelling.group
            if label_separator is None:
                label_separator = about.labelling.label_separator
            if min_per_class is None:
                min_per_class = about.labelling.min_per_class
            all_images = all_images or about.all_images
            is_relabelled = labels is not None and is_table(str(source))
    if all_images and labels is None:
        raise UsageError(
            "--all-images requires --labels: without a label table, all images are embedded."
        )
    columns: dict[str, Any] = {
        "labels": labels,
        "attributes": attributes,
        "group": group,
        "label_separator": "|" if label_separator is None else label_separator,
        "min_per_class": 1 if min_per_class is None else min_per_class,
    }
    if is_relabelled:
        # A table of images whose labels were replaced by `fit --labels`.
        manifest = read_manifest(source or Path()).relabelled(**columns)
        return ListedSource(manifest.rows(), manifest.images())
    return list_source(source or Path(), **columns, all_images=all_images)


def _share_images(one: ManifestRows, other: ManifestRows) -> bool:
    """Whether two manifests have an image in common, with one group of each in memory."""
    chunks, others = one.chunks(), other.chunks()
    here, there = next(chunks, None), next(others, None)
    while here and there:
        if pc.any(pc.is_in(here[1], there[1])).as_py():
            return True
        # The next ids of the one that ends first may be those of the other.
        if here[1][-1].as_py() < there[1][-1].as_py():
            here = next(chunks, None)
        else:
            there = next(others, None)
    return False


def _require_stores_of_same_images(space: Workspace, rows: ManifestRows) -> None:
    """Refuse a workspace that lost its manifest and has stores, if these are of other images."""
    paths, stored = [*space.stores(), *space.pixel_caches()], set[str]()
    for path in paths:
        # A damaged store is healed, or reported, when it is opened for writing.
        with suppress(StoreError), FeatureStore.open(path) as store:
            stored |= set(store.ids)
    if not stored or any(not stored.isdisjoint(ids.to_pylist()) for _, ids in rows.chunks()):
        return
    raise WorkspaceError(
        f"The workspace {space.root} holds features of other images, such as {min(stored)}, "
        f"and its manifest is gone. {rows.source} has none of them, but images such as "
        f"{rows.ids(0, 1)[0]}. Give the SOURCE of the former, or another --workspace."
    )
