"""Which store a name means, which images it is about, and which of these changed."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from featurepipe.errors import StoreError, UnknownNameError
from featurepipe.features.store import PENDING, FeatureStore, Rows
from featurepipe.manifest import Manifest
from featurepipe.progress import Progress
from featurepipe.workspace import Workspace


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
    if own.manifest.is_file() and path in own.stores():
        place = own
    return Manifest.load(place.manifest) if place.manifest.is_file() else None


def paths_of(manifest: Manifest | None) -> dict[str, Path]:
    """Where each image of a manifest lies, by its id; nothing without one."""
    return {} if manifest is None else {key: manifest.path(key) for key in manifest.ids}


def changed_rows(store: FeatureStore, images: Mapping[str, Path]) -> tuple[Rows, Rows]:
    """Compare the images of the rows that are done or refused with their digests.

    Parameters
    ----------
    store : FeatureStore
    images : mapping of str to Path
        Image ids, and where the images are.

    Returns
    -------
    changed : ndarray of int
        Positions of the rows whose image has other bytes now.
    unseen : ndarray of int
        Positions of the rows whose image is not at hand.
    """
    rows = np.flatnonzero(store.status != PENDING)
    ids, digests = store.ids[rows], store.digests[rows]
    changed, unseen = np.zeros((2, len(rows)), dtype=bool)
    with Progress(len(rows), "Comparing images", "image") as progress:
        for place, image_id in enumerate(ids):
            found = _digest(images.get(image_id))
            unseen[place] = found is None
            changed[place] = found not in (None, digests[place].tobytes())
            progress.advance()
    return rows[changed], rows[unseen]


def _digest(path: Path | None) -> bytes | None:
    try:
        return None if path is None else hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return None
