"""The unlabelled images to choose from: of the workspace, or new ones."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import RunError, WorkspaceError
from featurepipe.features.cached import CachedFeatures, open_caches
from featurepipe.features.extraction.embedding import embed_images
from featurepipe.manifest import Manifest, find_images
from featurepipe.manifest.tables import Columns
from featurepipe.runs.run_folder import Run
from featurepipe.runs.run_info import HeadRunInfo
from featurepipe.sources import LocalFolder, is_url
from featurepipe.words import counted, examples, visible
from featurepipe.workflows.predictor import Predictor, embed_files
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Unlabelled:
    """Images that lack labels, and what the heads of a run read of them.

    Attributes
    ----------
    ids : ndarray of shape (n_images,), str objects
        Paths as a table of labels names them.
    cells : dict of str to list of (tuple of str or None)
        For each attribute of the run, the labels that are known; None where they are missing.
    features : ndarray of shape (n_images, n_features), float32
    read : callable
        The bytes of the image at a position; raises OSError if it cannot be read.
    """

    ids: NDArray[np.object_]
    cells: Columns
    features: NDArray[np.float32]
    read: Callable[[int], bytes]


def unlabelled_images(home: Workspace, manifest: Manifest, run: Run) -> Unlabelled:
    """The images of a workspace that lack the label of at least one attribute.

    Parameters
    ----------
    home : Workspace
    manifest : Manifest
    run : Run
        Its features are read from the stores; trained networks read the images.

    Raises
    ------
    WorkspaceError
        If every image has its labels, or the others have no features.
    RunError
        If a store that the run reads is gone.
    """
    labels = manifest.labels()
    lacks = ~np.array([labels[name].labelled for name in run.info.attributes])
    ids = manifest.ids[lacks.any(axis=0)]
    if not len(ids):
        raise WorkspaceError(
            f"All {len(manifest)} images of {manifest.source} have labels. Name unlabelled images "
            "(featurepipe next FOLDER), or extract those that the table of labels does not list: "
            "featurepipe extract --all-images"
        )
    kept, features = _features(home, manifest, run, ids)
    if len(kept) < len(ids):
        left_out = np.setdiff1d(ids, kept).tolist()
        logger.warning(
            "Leaving out %s without features: %s.", counted(left_out, "image"), examples(left_out)
        )
    if not len(kept):
        raise WorkspaceError(
            f"None of the {len(ids)} unlabelled images has features. Make them: featurepipe extract"
        )
    source, rows = manifest.images(), np.searchsorted(manifest.ids, kept)
    cells = {name: [manifest.cells[name][row] for row in rows] for name in run.info.attributes}
    return Unlabelled(kept, cells, features, lambda position: source.read(kept[position]))


def new_images(
    pool: Sequence[Path | str], manifest: Manifest, run: Run, weights: Sequence[str]
) -> Unlabelled:
    """Images at paths, which lack every label.

    Parameters
    ----------
    pool : sequence of Path or str
        Files, folders and patterns.
    manifest : Manifest
        Images below its root are named relative to it, others as they are given.
    run : Run
    weights : sequence of str
        See `featurepipe.predict`.

    Raises
    ------
    FeaturepipeError
        As `featurepipe.workflows.predictor.embed_files`.
    """
    given = find_images(pool)
    features, refused = embed_files(Predictor(run, weights=weights), given)
    for image_id, reason in refused.items():
        logger.warning("Leaving out %s: %s.", visible(image_id), reason)
    paths = [image.path for image in given if image.image_id not in refused]
    cells: Columns = {name: [None] * len(paths) for name in run.info.attributes}
    names = np.array([name_below(path, manifest.root) for path in paths], dtype=object)
    source = LocalFolder(Path())
    return Unlabelled(names, cells, features, lambda position: source.read(str(paths[position])))


def name_below(path: Path, root: str) -> str:
    """The path of an image relative to the root of all images, or as it is if it lies elsewhere.

    Parameters
    ----------
    path : Path
    root : str
        See `featurepipe.manifest.Manifest`.
    """
    if is_url(root):
        return path.as_posix()
    place, top = (Path(os.path.normpath(of)) for of in (path.absolute(), root))
    return (place.relative_to(top) if place.is_relative_to(top) else path).as_posix()


def _features(
    home: Workspace, manifest: Manifest, run: Run, ids: NDArray[np.object_]
) -> tuple[NDArray[np.object_], NDArray[np.float32]]:
    """The images that have features, and these."""
    if not isinstance(run.info, HeadRunInfo):
        assert run.network is not None
        features, refused = embed_images(manifest.images(), ids.tolist(), [run.network])
        return np.delete(ids, list(refused)), features
    caches = _caches(home, run, run.info, ids)
    ids = ids[np.all([cache.images.places(ids) >= 0 for cache in caches], axis=0)]
    return ids, np.hstack([cache.read(ids) for cache in caches])


def _caches(
    home: Workspace, run: Run, info: HeadRunInfo, ids: NDArray[np.object_]
) -> list[CachedFeatures]:
    cache_of = {cache.key: cache for cache in open_caches(home.stores(), ids.tolist())}
    gone = [block.name for block in info.blocks if block.recipe not in cache_of]
    if gone:
        raise RunError(
            f"There is no store of the features {gone[0]}, which run {run.name!r} reads, any more. "
            f"Make it again: featurepipe extract --backbone {gone[0].partition(':')[0]}"
        )
    return [cache_of[block.recipe] for block in info.blocks]
