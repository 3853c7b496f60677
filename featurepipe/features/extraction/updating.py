"""Extraction: which rows of some stores are stale, and how they are brought up to date."""

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import ExtractionError, StoreMismatchError
from featurepipe.features.engines import Engine, probes
from featurepipe.features.extraction.loading import ImageLoader, LoadedImage
from featurepipe.features.extraction.recipe import Recipe
from featurepipe.features.extraction.single_pass import Cost, Lane, run_pass
from featurepipe.features.extraction.views import find_view
from featurepipe.features.store import DONE, PENDING, REFUSED, FeatureStore, grow
from featurepipe.features.store.stages import StageTimes
from featurepipe.provenance import differences, library_versions, machine
from featurepipe.sources import UNKNOWN, ImageSource

logger = logging.getLogger(__name__)

_Stamps = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Extraction:
    """What one extraction did to one store.

    Attributes
    ----------
    store : Path
        The feature store.
    n_images : int
        Images asked for.
    n_embedded : int
        Images embedded now.
    n_unchanged : int
        Images whose features were there already.
    refused : dict of str to str
        Ids of the images asked for that have no features, and why.
    unread : dict of str to str
        Ids of the images whose features are kept though their bytes cannot be
        read now, and why.
    images_per_s : float
        Images embedded a second, decoding and writing included, over the store's
        whole life; NaN if none was.
    stages : StageTimes
        How long each stage was busy with this store now.
    """

    store: Path
    n_images: int
    n_embedded: int
    n_unchanged: int
    refused: dict[str, str]
    unread: dict[str, str]
    images_per_s: float
    stages: StageTimes

    def in_words(self) -> str:
        """One line for a person, and one of the stages if any image was embedded."""
        speed = f" ({self.images_per_s:.1f} images/s)" if self.n_embedded else ""
        unread = f", {len(self.unread)} not to be read now (features kept)" if self.unread else ""
        stages = f"\n  {self.stages.in_words()}" if self.n_embedded else ""
        return (
            f"{self.store}: {self.n_images} images, {self.n_embedded} embedded now{speed}, "
            f"{self.n_unchanged} unchanged, {len(self.refused)} refused{unread}{stages}"
        )

    def as_dict(self) -> dict[str, object]:
        """The same as JSON values."""
        speed = None if math.isnan(self.images_per_s) else self.images_per_s
        return {
            **asdict(self),
            "store": str(self.store),
            "images_per_s": speed,
            "bottleneck": self.stages.bottleneck or None,
        }


def extract_features(
    recipes: Mapping[Path, Recipe],
    source: ImageSource,
    ids: Sequence[str],
    *,
    batch_size: int | None = None,
    retry_refused: bool = False,
    rehash: bool = False,
) -> list[Extraction]:
    """Bring the stores of some recipes up to date with some images, in one pass.

    Only images that are new, changed, or left pending are embedded. The work
    may be killed at any moment and goes on where it was the next time.

    Parameters
    ----------
    recipes : mapping of Path to Recipe
        The stores, made if they are missing, and what decides their features.
        All decode alike.
    source : ImageSource
    ids : sequence of str
        Image ids, sorted.
    batch_size : int, optional
        Images embedded, and committed, at once; default: the engine's own.
    retry_refused : bool
        Whether to try again images that were refused and have not changed.
    rehash : bool
        Whether to read all images, and not go by size and modification time.

    Returns
    -------
    list of Extraction
        One for each store, in their order.

    Raises
    ------
    StoreMismatchError
        If a store was made otherwise, or this machine computes otherwise.
    ExtractionError
        If no image at all can be read.
    """
    (decodes_fast,) = {recipe.fast_decode for recipe in recipes.values()}
    engines = [_EngineSource(recipe, batch_size) for recipe in recipes.values()]
    _make_ready(recipes, ids, engines)
    stamps = dict(zip(ids, source.stamps(ids), strict=True))
    with ExitStack() as opened:
        updates = [
            _StoreUpdate(opened.enter_context(FeatureStore.open(path, writable=True)), stamps)
            for path in recipes
        ]
        lanes = [
            Lane(
                recipe.title,
                recipe.network.input_size,
                find_view(recipe.view),
                update.stale(retry_refused=retry_refused, rehash=rehash),
                partial(engine.open_for, update.store),
                update,
            )
            for recipe, update, engine in zip(recipes.values(), updates, engines, strict=True)
        ]
        run_pass(ImageLoader(source, fast_decode=decodes_fast), ids, lanes)
        return [update.summarise(lane) for update, lane in zip(updates, lanes, strict=True)]


class Embedder(Protocol):
    """What computes a row of an image: a `Recipe`, or a trained network."""

    @property
    def title(self) -> str:
        """What a bar shows."""

    @property
    def beginning(self) -> str:
        """What a person is told before the engine is opened."""

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of its pictures."""

    @property
    def view(self) -> str:
        """What of the image it is shown."""

    @property
    def fast_decode(self) -> bool:
        """Whether large JPEGs are decoded at a reduced size."""

    def open_engine(self, batch_size: int | None = None) -> Engine:
        """Load it, for batches of at most that many pictures."""


def embed_images(
    source: ImageSource,
    ids: Sequence[str],
    embedders: Sequence[Embedder],
    *,
    batch_size: int | None = None,
) -> tuple[NDArray[np.float32], dict[int, str]]:
    """Embed images without a store.

    Parameters
    ----------
    source : ImageSource
    ids : sequence of str
        Image ids, each once.
    embedders : sequence of Embedder
        Each image is read and decoded once for all that decode alike.
    batch_size : int, optional
        Images embedded at once; default: the engine's own.

    Returns
    -------
    features : ndarray of shape (n_readable, n_features), float32
        Of the images that can be read, in their order; those of the embedders side by side.
    refused : dict of int to str
        Positions of the others, and why they cannot be read.
    """
    kept = [_KeptInMemory() for _ in embedders]
    lanes = [
        Lane(
            f"embedding by {embedder.title}",
            embedder.input_size,
            find_view(embedder.view),
            dict.fromkeys(ids),
            _EngineSource(embedder, batch_size).open,
            sink,
        )
        for embedder, sink in zip(embedders, kept, strict=True)
    ]
    for fast_decode in sorted({embedder.fast_decode for embedder in embedders}):
        of_kind = [
            lane
            for lane, embedder in zip(lanes, embedders, strict=True)
            if embedder.fast_decode == fast_decode
        ]
        run_pass(ImageLoader(source, fast_decode=fast_decode), ids, of_kind)
    reasons: dict[str, str] = {}
    for sink in kept:
        reasons |= sink.refused
    refused = {k: reasons[image_id] for k, image_id in enumerate(ids) if image_id in reasons}
    rows = [
        np.concatenate([sink.features[image_id] for sink in kept])
        for image_id in ids
        if image_id not in reasons
    ]
    return np.stack(rows) if rows else np.empty((0, 0), np.float32), refused


class _KeptInMemory:
    """Features and reasons by image id."""

    def __init__(self) -> None:
        self.features: dict[str, NDArray[np.float32]] = {}
        self.refused: dict[str, str] = {}

    def embedded(
        self, images: Sequence[LoadedImage], features: NDArray[np.float32], cost: Cost
    ) -> None:
        self.features |= zip((image.image_id for image in images), features, strict=True)

    def not_embedded(self, image: LoadedImage) -> None:
        self.refused[image.image_id] = image.reason


class _StoreUpdate:
    """The sink of a lane that writes to a store."""

    def __init__(self, store: FeatureStore, stamps: _Stamps) -> None:
        self.store = store
        self._stamps = stamps
        self._row_of = {image_id: row for row, image_id in enumerate(store.ids)}
        self._n_embedded = 0
        self._done = set(store.ids[store.rows("done")])
        self._untouched: set[str] = set()
        self._unread: dict[str, str] = {}

    def stale(self, *, retry_refused: bool, rehash: bool) -> dict[str, bytes | None]:
        """Ids of the images to look at, with the digest that makes embedding needless."""
        ids = list(self._stamps)
        rows = np.array([self._row_of[image_id] for image_id in ids], dtype=np.intp)
        stamps = np.array([*self._stamps.values()], np.int64).reshape(-1, 2)
        status, digests = self.store.status[rows], self.store.digests[rows]
        again = (status == PENDING) | ((status == REFUSED) & retry_refused)
        kept = np.stack([self.store.sizes[rows], self.store.mtimes[rows]], axis=1)
        untouched = (stamps == kept).all(axis=1) & (stamps != UNKNOWN).all(axis=1)
        self._untouched = {ids[place] for place in np.flatnonzero(untouched)}
        return {
            ids[place]: None if again[place] else digests[place].tobytes()
            for place in np.flatnonzero(again | ~untouched | rehash)
        }

    def embedded(self, images: Sequence[LoadedImage], features: NDArray[Any], cost: Cost) -> None:
        # Noted first: a store that holds features always knows what they cost.
        self.store.add_timing(len(images), cost.seconds, cost.stages)
        rows, digests, stamps = self._columns(images)
        order = np.argsort(rows)
        self.store.write_done(rows[order], features[order], digests[order], *stamps[order].T)
        self._n_embedded += len(images)

    def not_embedded(self, image: LoadedImage) -> None:
        rows, digests, stamps = self._columns([image])
        if image.reason and not any(image.digest) and image.image_id in self._done:
            # What keeps it from being read may pass; its features are those of its digest.
            self._unread[image.image_id] = image.reason
        elif image.reason:
            self.store.write_refused(rows, [image.reason], digests, *stamps.T)
        elif image.image_id not in self._untouched:
            self.store.write_seen(rows, *stamps.T)

    def _columns(
        self, images: Sequence[LoadedImage]
    ) -> tuple[NDArray[np.intp], NDArray[np.uint8], NDArray[np.int64]]:
        rows = np.array([self._row_of[image.image_id] for image in images], dtype=np.intp)
        digests = np.frombuffer(b"".join(image.digest for image in images), dtype=np.uint8)
        # Asked before reading: a change in between is then seen the next time.
        stamps = np.array([self._stamp(image) for image in images], dtype=np.int64)
        return rows, digests.reshape(-1, 32), stamps

    def _stamp(self, image: LoadedImage) -> NDArray[np.int64]:
        was_read = any(image.digest)
        return self._stamps[image.image_id] if was_read else np.array([UNKNOWN, UNKNOWN])

    def summarise(self, lane: Lane) -> Extraction:
        """What was done; an error if no image has features."""
        rows = [self._row_of[image_id] for image_id in self._stamps]
        refused = {key: why for key, why in self.store.refused().items() if key in self._stamps}
        n_done = int((self.store.status[rows] == DONE).sum())
        if rows and not n_done:
            raise _nothing_readable(len(rows), refused)
        return Extraction(
            store=self.store.path,
            n_images=len(rows),
            n_embedded=self._n_embedded,
            n_unchanged=n_done - self._n_embedded,
            refused=refused,
            unread=self._unread,
            images_per_s=self.store.images_per_s,
            stages=lane.stages,
        )


def _nothing_readable(n_images: int, refused: Mapping[str, str]) -> ExtractionError:
    examples = "; ".join(f"{key}: {reason}" for key, reason in list(refused.items())[:3])
    return ExtractionError(
        f"None of the {n_images} images can be read ({examples}). Expected JPEG, PNG, "
        "WebP, BMP, GIF or TIFF files; look at the first of them."
    )


class _EngineSource:
    """Opens the engine once something must be embedded, and not before."""

    def __init__(self, embedder: Embedder, batch_size: int | None) -> None:
        self._embedder = embedder
        self._n_pictures = batch_size and batch_size * find_view(embedder.view).n_pictures
        self._engine: Engine | None = None

    def open(self, n_pictures: int | None = None) -> Engine:
        """The engine; loaded anew if batches of another size are asked for."""
        if n_pictures is not None:
            self._n_pictures, self._engine = n_pictures, None
        if self._engine is None:
            logger.info("%s", self._embedder.beginning)
            self._engine = self._embedder.open_engine(self._n_pictures)
        return self._engine

    def open_for(self, store: FeatureStore, n_pictures: int | None = None) -> Engine:
        """The engine, if it computes what the store holds."""
        was_open = self._engine is not None
        engine = self.open(n_pictures)
        if not was_open:
            _require_same_probe(store, engine)
        return engine


def _make_ready(
    recipes: Mapping[Path, Recipe], ids: Sequence[str], engines: Sequence[_EngineSource]
) -> None:
    """Check the stores that there are, all of them before any is touched; make the others."""
    existing = [path for path in recipes if path.exists()]
    for path in existing:
        with FeatureStore.open(path) as store:
            store.require_key(recipes[path].key)
    for (path, recipe), engine in zip(recipes.items(), engines, strict=True):
        if path in existing:
            grow(path, ids)
        else:
            _create_store(path, recipe, ids, engine.open())


def _create_store(path: Path, recipe: Recipe, ids: Sequence[str], engine: Engine) -> None:
    probe = engine.embed(probes.probe_images(engine.input_size))
    made_by = _software(engine) | {
        "weights_label": recipe.network.weights.label,
        "weights_source": recipe.network.weights.source,
    }
    FeatureStore.create(path, ids=ids, key=recipe.key, made_by=made_by, probe=probe)


def _software(engine: Engine) -> dict[str, object]:
    versions = library_versions("numpy", "pillow", "simplejpeg", "h5py") | engine.versions
    return {"engine": engine.name, "versions": versions, "machine": machine()}


def _require_same_probe(store: FeatureStore, engine: Engine) -> None:
    software = _software(engine)
    changed = differences({name: store.made_by.get(name) for name in software}, software)
    if not changed:
        return
    precision = store.key["precision"]
    now = engine.embed(probes.probe_images(engine.input_size))
    distance, allowed = probes.distance(now, store.probe, precision), probes.tolerance(precision)
    if not distance <= allowed:
        raise StoreMismatchError(
            f"{store.path} was made by other software, which computes other features "
            f"(distance {distance:.1e} on generated pictures, at most {allowed:.0e} is "
            f"allowed): {'; '.join(changed)}. Install the same versions, or start anew in "
            "another --workspace."
        )
    logger.info(
        "The store was made by other software; its features are the same (distance %.0e): %s.",
        distance,
        "; ".join(changed),
    )
