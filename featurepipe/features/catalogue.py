"""Finding a store, the manifest of its images, and the images that changed."""

import hashlib
import logging
from pathlib import Path

import numpy as np

from featurepipe.errors import ManifestError, SourceError, StoreError, UnknownNameError
from featurepipe.features.store import PENDING, SHARDS_FILE, FeatureStore, Rows
from featurepipe.manifest import Manifest
from featurepipe.progress import Progress
from featurepipe.sources import ImageSource
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)


def find_store(store: Path | str, workspace: Workspace) -> Path:
    """The file of a store, given its path or its name in a workspace.

    Parameters
    ----------
    store : Path or str
        A path, or a name without ``.h5``, such as ``"xception-imagenet-299-avg-rgb"``.
    workspace : Workspace
        Where names are looked up.

    Raises
    ------
    StoreError
        If there is no file at the path.
    UnknownNameError
        If the workspace has no store of the name.
    """
    path = Path(store)
    if path.is_file() or (path / SHARDS_FILE).is_file():
        return path
    if path.suffix == ".h5":
        raise StoreError(f"There is no feature store {path}. Make one: featurepipe extract")
    by_name = {known.stem: known for known in workspace.stores()}
    if str(store) not in by_name:
        raise UnknownNameError("store", str(store), by_name, "Give the path or name of a store.")
    return by_name[str(store)]


def how_to_heal(holds_pixels: bool, *, images_changed: bool = False) -> str:
    """The command that computes rows anew which are damaged, or whose images changed.

    Parameters
    ----------
    holds_pixels : bool
        `featurepipe.features.store.FeatureStore.holds_pixels`.
    images_changed : bool
        Whether images have other bytes although their size and modification time are the same.

    Returns
    -------
    str
        A sentence.
    """
    if holds_pixels:
        return "Delete the file and train again." if images_changed else "Train again."
    option = " --rehash" if images_changed else ""
    return f"Run featurepipe extract{option} again."


def manifest_about(path: Path, workspace: Workspace) -> Manifest | None:
    """The manifest of the images in a store.

    Parameters
    ----------
    path : Path
        The store.
    workspace : Workspace
        Its manifest is taken if the store does not lie in a workspace.

    Returns
    -------
    Manifest or None
        None if there is no manifest.
    """
    path = path.absolute()
    around = Workspace(path.parent.parent)
    if around.manifest.is_file() and path in (*around.stores(), *around.pixel_caches()):
        workspace = around
    return Manifest.load(workspace.manifest) if workspace.manifest.is_file() else None


def images_of(manifest: Manifest | None) -> ImageSource | None:
    """The source of a manifest's images; None without a manifest, or if it cannot be opened."""
    try:
        return None if manifest is None else manifest.images()
    except (ManifestError, SourceError) as error:
        logger.warning("Images and features are not compared: %s", error)
        return None


def changed_rows(store: FeatureStore, source: ImageSource | None) -> tuple[Rows, Rows]:
    """Compare the images of the rows that are done or refused with their digests.

    Parameters
    ----------
    store : FeatureStore
    source : ImageSource or None
        Where the images are; None if they cannot be read.

    Returns
    -------
    changed : ndarray of int
        Positions of the rows whose image has other bytes now.
    unseen : ndarray of int
        Positions of the rows whose image cannot be read.

    Raises
    ------
    SourceError
        If the source as a whole no longer answers.
    """
    rows = np.flatnonzero(store.status != PENDING)
    if source is None:
        return rows[:0], rows
    ids, digests = store.ids[rows], store.digests[rows]
    changed, unseen = np.zeros((2, len(rows)), dtype=bool)
    with Progress(len(rows), "Comparing images", "image") as progress:
        for position, image_id in enumerate(ids):
            digest = _digest(source, image_id)
            unseen[position] = digest is None
            changed[position] = digest not in (None, digests[position].tobytes())
            progress.advance()
    return rows[changed], rows[unseen]


def _digest(source: ImageSource, image_id: str) -> bytes | None:
    try:
        return hashlib.sha256(source.read(image_id)).digest()
    except (OSError, ValueError):
        # A damaged row may hold an id that no file can have.
        return None
