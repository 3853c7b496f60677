"""Which store a name means, which images it is about, and which of these changed."""

import hashlib
import logging
from pathlib import Path

import numpy as np

from featurepipe.errors import ManifestError, SourceError, StoreError, UnknownNameError
from featurepipe.features.store import PENDING, FeatureStore, Rows
from featurepipe.manifest import Manifest
from featurepipe.progress import Progress
from featurepipe.sources import ImageSource
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)


def find_store(store: Path | str, place: Workspace) -> Path:
    """The file of a store that is given by its path, or by its name in a workspace.

    Parameters
    ----------
    store : Path or str
        A path, or a name without ``.h5``, such as ``"xception-imagenet-299-avg-rgb"``.
    place : Workspace
        Whose stores have names.

    Raises
    ------
    StoreError
        If there is no file at the path.
    UnknownNameError
        If the workspace has no store of the name.
    """
    path = Path(store)
    if path.is_file():
        return path
    if path.suffix == ".h5":
        raise StoreError(f"There is no feature store {path}. Make one: featurepipe extract")
    by_name = {known.stem: known for known in place.stores()}
    if str(store) not in by_name:
        raise UnknownNameError("store", str(store), by_name, "Give its path or its name.")
    return by_name[str(store)]


def how_to_finish(holds_pixels: bool) -> str:
    """What brings back rows that are pending: an advice that goes on a sentence.

    Parameters
    ----------
    holds_pixels : bool
        `featurepipe.features.store.FeatureStore.holds_pixels`.
    """
    if holds_pixels:
        return "the next training decodes their images again"
    return "run the same featurepipe extract again"


def manifest_about(path: Path, place: Workspace) -> Manifest | None:
    """The images that a store is about.

    Parameters
    ----------
    path : Path
        The store.
    place : Workspace
        Whose manifest serves if the store does not lie in a workspace of its own.

    Returns
    -------
    Manifest or None
        None if there is no manifest.
    """
    path = path.absolute()
    own = Workspace(path.parent.parent)
    if own.manifest.is_file() and path in (*own.stores(), *own.pixel_caches()):
        place = own
    return Manifest.load(place.manifest) if place.manifest.is_file() else None


def images_of(manifest: Manifest | None) -> ImageSource | None:
    """What reads a manifest's images; None without one, or where they are not at hand."""
    try:
        return None if manifest is None else manifest.images()
    except (ManifestError, SourceError) as error:
        logger.warning("The images are not compared with their features: %s", error)
        return None


def changed_rows(store: FeatureStore, source: ImageSource | None) -> tuple[Rows, Rows]:
    """Compare the images of the rows that are done or refused with their digests.

    Parameters
    ----------
    store : FeatureStore
    source : ImageSource or None
        What reads the images; None if they are not at hand.

    Returns
    -------
    changed : ndarray of int
        Positions of the rows whose image has other bytes now.
    unseen : ndarray of int
        Positions of the rows whose image is not at hand.

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
        for place, image_id in enumerate(ids):
            found = _digest(source, image_id)
            unseen[place] = found is None
            changed[place] = found not in (None, digests[place].tobytes())
            progress.advance()
    return rows[changed], rows[unseen]


def _digest(source: ImageSource, image_id: str) -> bytes | None:
    try:
        return hashlib.sha256(source.read(image_id)).digest()
    except (OSError, ValueError):
        # A damaged row may hold an id that no file can have.
        return None
