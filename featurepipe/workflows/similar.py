"""similar(): images -> the nearest of those that have features, with their labels."""

import hashlib
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from featurepipe.errors import (
    ExtractionError,
    ImageError,
    ManifestError,
    UsageError,
    WorkspaceError,
)
from featurepipe.features.cached import open_caches
from featurepipe.features.extraction.decoding import open_rgb
from featurepipe.features.extraction.embedders import share_engines
from featurepipe.features.extraction.embedding import embed_images
from featurepipe.features.extraction.recipe import Recipe
from featurepipe.features.store import FeatureStore
from featurepipe.image_types import READ
from featurepipe.manifest import Manifest, find_images
from featurepipe.models.studies.near_duplicates import deciding_store
from featurepipe.reports.contact_sheet import (
    N_COLUMNS,
    require_possible_sheet,
    write_contact_sheet,
)
from featurepipe.reports.similar_text import distance_text, labels_text
from featurepipe.sources import ImageSource, LocalFolder
from featurepipe.words import counted
from featurepipe.workflows.feature_sets import named_cache
from featurepipe.workflows.moved_weights import recipes_now
from featurepipe.workflows.nearest_images import Neighbour, SearchedImages, labels_of
from featurepipe.workflows.relabelling import require_images
from featurepipe.workflows.unlabelled import name_below
from featurepipe.workflows.written_folders import require_no_image
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)

COLUMNS = ["query", "rank", "image", "distance", "of_median", "same_bytes", "labels"]

# Of few images a batch holds all, so that it is not padded to its usual size.
_MAX_BATCH = 16

_FILES = LocalFolder(Path())


@dataclass(frozen=True)
class _Query:
    """An image whose neighbours are searched.

    Attributes
    ----------
    name : str
        As it was given.
    image_id : str or None
        What the workspace calls it, if it is one of its images.
    path : Path or None
        Its file; None if it was given by its id.
    """

    name: str
    image_id: str | None
    path: Path | None


def similar(
    images: Sequence[Path | str],
    *,
    n: int = 9,
    features: str | None = None,
    weights: Sequence[str] = (),
    contact_sheet: Path | str | None = None,
    workspace: Path | str = ".",
) -> pd.DataFrame:
    """Find the nearest images that have features.

    All images of the workspace that have features are compared, by the Euclidean distance of
    these, scaled to length 1. It has the order of the cosine, and goes from 0 to 2.

    Parameters
    ----------
    images : sequence of Path or str
        Files, folders and patterns, or ids of images of the workspace. An image whose bytes the
        workspace has is not embedded again. An image of the workspace is no neighbour of itself.
    n : int
        Most neighbours of each image.
    features : str, optional
        The store whose features are compared: ``backbone:view``, ``backbone`` for the view rgb,
        or the name of its file. Default: the only one, else the one by which `audit` finds
        near-duplicates: the first of a network with the view rgb, or the first of a network
        (`featurepipe.models.studies.near_duplicates.deciding_store`).
    weights : sequence of str
        Current file of the weights, if it was moved; see `featurepipe.predict`.
    contact_sheet : Path or str, optional
        Picture (.jpg or .png) of the images and their neighbours, outside of the folder of the
        images. Each image begins a row.
    workspace : Path or str

    Returns
    -------
    pandas.DataFrame
        One row for each neighbour: ``query`` (the image as it was given), ``rank`` (from 1),
        ``image`` (its id), ``distance`` (in [0, 2]), ``of_median`` (the same as a share of the
        median distance between images; NaN if that is 0), ``same_bytes`` (whether the files are
        identical), and ``labels`` (for each attribute a list of classes; None where they are
        missing). ``attrs["features"]`` is the name of the store.

    Raises
    ------
    StoreMismatchError
        If the features of new images would differ from those of the store.
    FeaturepipeError
        If anything else given cannot be used; see `featurepipe.errors`.
    """
    if n < 1:
        raise UsageError(f"--n is {n}. Set the number of neighbours to find, at least 1.")
    home = Workspace(workspace)
    require_images(home)
    manifest = Manifest.load(home.manifest)
    store = _store(home, features)
    searched = SearchedImages.among(store, manifest.ids)
    queries = _queries(images, manifest, searched)
    sheet = None if contact_sheet is None else Path(contact_sheet)
    if sheet is not None:
        require_no_image(sheet, manifest, "The contact sheet")
        _require_no_query(sheet, queries)
        require_possible_sheet(sheet, len(queries) * _n_cells(min(n, len(searched))))
    logger.info("Searching %s by %s.", counted(searched, "image"), store.stem)
    nearest = _nearest(searched, queries, n, weights)
    if sheet is not None:
        write_contact_sheet(_cells(manifest, queries, nearest), sheet)
        logger.info("Wrote %s.", sheet)
    table = pd.DataFrame(
        [
            [query.name, rank, *vars(found).values(), labels_of(manifest, found.image)]
            for query, neighbours in zip(queries, nearest, strict=True)
            for rank, found in enumerate(neighbours, start=1)
        ],
        columns=COLUMNS,
    )
    table.attrs["features"] = store.stem
    return table


def _store(home: Workspace, features: str | None) -> Path:
    stores = home.stores()
    if not stores:
        raise WorkspaceError(
            f"The workspace {home.root} has no features yet. Make some: featurepipe extract"
        )
    if features is not None:
        if "+" in features:
            raise UsageError(
                f"--features {features!r} names several stores, and images are compared by one. "
                "Name one of them."
            )
        return named_cache(features, open_caches(stores, ())).path
    store = stores[0] if len(stores) == 1 else deciding_store(stores)
    if store is None:
        raise UsageError(
            "None of the stores has features of a network. Name the one to compare images by: "
            f"--features {stores[0].stem}"
        )
    return store


def _queries(
    images: Sequence[Path | str], manifest: Manifest, searched: SearchedImages
) -> list[_Query]:
    queries: dict[str, _Query] = {}
    for image in map(str, images):
        if searched.row_of(image) is not None and not Path(image).exists():
            queries.setdefault(image, _Query(image, image, None))
            continue
        try:
            given = find_images([image])
        except ManifestError as error:
            raise ManifestError(
                f"{error} Or give the id of an image that has features, such as "
                f"{searched.images.ids[0].decode()!r}."
            ) from None
        for found in given:
            if found.reason:
                raise _unreadable(found.image_id, found.reason)
            name = name_below(found.path, manifest.root)
            image_id = name if searched.row_of(name) is not None else None
            queries.setdefault(found.image_id, _Query(found.image_id, image_id, found.path))
    if not queries:
        raise UsageError("There is no image to compare. Name at least one.")
    return list(queries.values())


def _require_no_query(sheet: Path, queries: Sequence[_Query]) -> None:
    if any(query.path and query.path.resolve() == sheet.resolve() for query in queries):
        raise UsageError(
            f"The contact sheet {sheet} would replace one of the images to compare. Name another "
            "file."
        )


def _nearest(
    searched: SearchedImages, queries: Sequence[_Query], n: int, weights: Sequence[str]
) -> list[list[Neighbour]]:
    own = [searched.row_of(query.image_id or "") for query in queries]
    with FeatureStore.open(searched.store) as store:
        made = store.key, store.made_by.get("weights_source", "none")
        in_store = store.digests
        digests = [
            in_store[row].tobytes() if query.path is None else _digest(query.path)
            for query, row in zip(queries, own, strict=True)
        ]
        cached = [searched.rows_of_bytes(digest)[:1] for digest in digests]
        X = np.zeros((len(queries), store.n_features), np.float32)
        for position, rows in enumerate(cached):
            if len(rows):
                X[position] = store.features(rows)[0]
    new = [position for position, rows in enumerate(cached) if not len(rows)]
    recipes = recipes_now([made], weights) if new or weights else []
    if new:
        X[new] = _embed([queries[position].name for position in new], recipes)
    return searched.nearest(X, n, left_out=own, digests=digests)


def _digest(path: Path) -> bytes:
    try:
        return hashlib.sha256(_FILES.read(str(path))).digest()
    except OSError as error:
        raise _unreadable(str(path), error.strerror or str(error)) from error


def _embed(paths: Sequence[str], recipes: Sequence[Recipe]) -> NDArray[np.float32]:
    engines = share_engines(recipes, min(len(paths), _MAX_BATCH))
    features, refused = embed_images(_FILES, paths, recipes, engines=engines)
    for position, reason in refused.items():
        raise _unreadable(paths[position], reason)
    return features


def _unreadable(path: str, reason: str) -> ExtractionError:
    return ExtractionError(f"{path} cannot be read ({reason}). Give a {READ} file.")


def _n_cells(n_neighbours: int) -> int:
    """Pictures of a query and its neighbours on a contact sheet, up to the end of a row."""
    return N_COLUMNS * math.ceil((1 + n_neighbours) / N_COLUMNS)


def _cells(
    manifest: Manifest, queries: Sequence[_Query], nearest: Sequence[Sequence[Neighbour]]
) -> Iterator[tuple[Image.Image | None, list[str]]]:
    """What a contact sheet shows: each query, then its neighbours, from a new row on."""
    source = manifest.images()
    for query, neighbours in zip(queries, nearest, strict=True):
        known = [] if query.image_id is None else [labels_text(labels_of(manifest, query.image_id))]
        lines = [query.name, *known, "query"]
        yield (
            _shown(source, query.name, lines)
            if query.path is None
            else _shown(_FILES, str(query.path), lines)
        )
        for rank, found in enumerate(neighbours, start=1):
            labels = labels_text(labels_of(manifest, found.image))
            lines = [f"{rank}  {found.image}", labels, distance_text(found)]
            yield _shown(source, found.image, lines)
        yield from [(None, [])] * (_n_cells(len(neighbours)) - 1 - len(neighbours))


def _shown(
    source: ImageSource, image_id: str, lines: list[str]
) -> tuple[Image.Image | None, list[str]]:
    try:
        return open_rgb(source.read(image_id)), lines
    except (OSError, ImageError) as error:
        return None, [*lines, f"cannot be shown: {error}"]
