"""Which images an extraction is about: those of its source, labelled as the workspace remembers."""

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

from featurepipe.errors import StoreError, UsageError, WorkspaceError
from featurepipe.features.store import FeatureStore
from featurepipe.manifest import Manifest, ManifestRows, read_manifest
from featurepipe.manifest.tables import is_table
from featurepipe.progress import tell
from featurepipe.sources import require_there
from featurepipe.words import counted
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)


def read_source(
    space: Workspace,
    remembered: ManifestRows | None,
    source: Path | str | None,
    *,
    attributes: tuple[str, ...],
    labels: Path | str | None,
    group: str | None,
    label_separator: str | None,
    min_per_class: int | None,
    all_images: bool,
) -> Manifest:
    """The images of the source as it is now; options not given are as the workspace remembers.

    Parameters
    ----------
    space : Workspace
    remembered : ManifestRows or None
        The manifest of the workspace.
    source, attributes, labels, group, label_separator, min_per_class, all_images
        As in `featurepipe.extract`.

    Raises
    ------
    WorkspaceError
        If the workspace has none of the images, but stores of others.
    FeaturepipeError
        If images or labels cannot be read; see `featurepipe.errors`.
    """
    is_relabelled = False
    if remembered is not None:
        remembered.check()
        about = remembered.about
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
    else:
        manifest = read_manifest(source or Path(), **columns, all_images=all_images)
    if remembered is not None and not _shares_images(remembered, manifest):
        raise WorkspaceError(
            f"The workspace {space.root} holds other images: {counted(len(remembered), 'image')} "
            f"such as {remembered.ids(0, 1)[0]}, read from {remembered.source}. None of them is "
            f"among the {counted(len(manifest), 'image')} of {manifest.source}, such as "
            f"{manifest.ids[0]}. Give another --workspace."
        )
    if remembered is None:
        _require_stores_of_same_images(space, manifest)
    if source is None:
        logger.info(
            "No SOURCE was given, and %s has no manifest: using the current folder, %s, with %s.",
            space.root,
            Path.cwd(),
            counted(len(manifest), "image"),
        )
    tell(manifest.findings)
    return manifest


def _shares_images(remembered: ManifestRows, manifest: Manifest) -> bool:
    ids = set(manifest.ids)
    return any(not ids.isdisjoint(chunk.to_pylist()) for _, chunk in remembered.chunks())


def _require_stores_of_same_images(space: Workspace, manifest: Manifest) -> None:
    """Refuse a workspace that lost its manifest and has stores, if these are of other images."""
    paths, stored = [*space.stores(), *space.pixel_caches()], set[str]()
    for path in paths:
        # A damaged store is healed, or reported, when it is opened for writing.
        with suppress(StoreError), FeatureStore.open(path) as store:
            stored |= set(store.ids)
    if stored and not stored & set(manifest.ids):
        raise WorkspaceError(
            f"The workspace {space.root} holds features of other images, such as {min(stored)}, "
            f"and its manifest is gone. {manifest.source} has none of them, but images such as "
            f"{manifest.ids[0]}. Give the SOURCE of the former, or another --workspace."
        )
