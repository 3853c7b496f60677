"""Extraction: pending rows -> decode -> embed -> write; and where it left off."""

import hashlib
import itertools
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import ExtractionError, ImageError, StoreMismatchError
from featurepipe.features import probes
from featurepipe.features.engines import Engine
from featurepipe.features.images import decode_image
from featurepipe.features.recipe import Recipe
from featurepipe.features.store import DONE, PENDING, REFUSED, FeatureStore, grow
from featurepipe.features.views import View, find_view
from featurepipe.progress import Progress
from featurepipe.provenance import differences, library_versions, machine

logger = logging.getLogger(__name__)

BATCH_SIZE = 16

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Extraction:
    """What one extraction did.

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
        Ids of the images asked for that cannot be read, and why.
    images_per_s : float
        Images embedded a second, decoding and writing included; NaN if none was.
    """

    store: Path
    n_images: int
    n_embedded: int
    n_unchanged: int
    refused: dict[str, str]
    images_per_s: float

    def in_words(self) -> str:
        """One line for a person."""
        speed = f" ({self.images_per_s:.1f} images/s)" if self.n_embedded else ""
        return (
            f"{self.store}: {self.n_images} images, {self.n_embedded} embedded now{speed}, "
            f"{self.n_unchanged} unchanged, {len(self.refused)} refused"
        )

    def as_dict(self) -> dict[str, object]:
        """The same as JSON values."""
        speed = None if math.isnan(self.images_per_s) else self.images_per_s
        return {**asdict(self), "store": str(self.store), "images_per_s": speed}


@dataclass
class LoadedImage:
    """One image as read from disk: pixels, or the reason why there are none.

    Attributes
    ----------
    digest : bytes
        SHA-256 of the file's bytes; zeros if it could not be read at all.
    size, mtime : int
        Of the file, in bytes and ns since 1970; -1 if it could not be read.
    pixels : ndarray of shape (height, width, 3), uint8, or None
    reason : str
        Why there are no pixels; empty if there are, or if they are not needed.
    """

    digest: bytes = bytes(32)
    size: int = -1
    mtime: int = -1
    pixels: NDArray[np.uint8] | None = None
    reason: str = ""


_Columns = tuple[NDArray[np.intp], NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]


@dataclass
class _Batch:
    rows: list[int] = field(default_factory=list)
    images: list[LoadedImage] = field(default_factory=list)

    def add(self, row: int, image: LoadedImage) -> None:
        self.rows.append(row)
        self.images.append(image)

    def columns(self) -> _Columns:
        digests = np.frombuffer(b"".join(image.digest for image in self.images), dtype=np.uint8)
        sizes = np.array([image.size for image in self.images], dtype=np.int64)
        mtimes = np.array([image.mtime for image in self.images], dtype=np.int64)
        return np.array(self.rows, dtype=np.intp), digests.reshape(-1, 32), sizes, mtimes

    def pixels(self) -> NDArray[np.uint8]:
        return np.stack([image.pixels for image in self.images if image.pixels is not None])

    def __len__(self) -> int:
        return len(self.rows)


def load_image(path: Path, size: tuple[int, int], known_digest: bytes | None = None) -> LoadedImage:
    """Read, hash and decode one image; nothing that is wrong with it is raised.

    Parameters
    ----------
    path : Path
    size : (int, int)
        Height and width to resize to.
    known_digest : bytes, optional
        If the bytes still have this digest, they are not decoded.
    """
    try:
        # Asked before reading: a change in between is then seen the next time.
        stat = path.stat()
        data = path.read_bytes()
    except OSError as error:
        return LoadedImage(reason=f"cannot be read: {error.strerror or error}")
    image = LoadedImage(hashlib.sha256(data).digest(), stat.st_size, stat.st_mtime_ns)
    if image.digest != known_digest:
        try:
            image.pixels = decode_image(data, size)
        except ImageError as error:
            image.reason = str(error)
    return image


def embed_images(
    paths: Sequence[Path], engine: Engine, view: View, *, batch_size: int = BATCH_SIZE
) -> tuple[NDArray[np.float32], dict[int, str]]:
    """Embed images without a store.

    Parameters
    ----------
    paths : sequence of Path
    engine : Engine
    view : View
    batch_size : int
        Images embedded at once, as the engine was opened for.

    Returns
    -------
    features : ndarray of shape (n_readable, n_features), float32
        Of the images that can be read, in their order.
    refused : dict of int to str
        Positions of the others, and why they cannot be read.
    """
    refused: dict[int, str] = {}
    loaded = _in_background(lambda path: load_image(path, engine.input_size), paths, 2 * batch_size)

    def pictures() -> Iterator[NDArray[np.uint8]]:
        batch: list[NDArray[np.uint8]] = []
        for position, image in enumerate(loaded):
            if image.pixels is None:
                refused[position] = image.reason
            else:
                batch.append(image.pixels)
            if len(batch) == batch_size:
                yield view.apply(np.stack(batch))
                batch.clear()
        if batch:
            yield view.apply(np.stack(batch))

    batches = [np.empty((0, engine.n_features), dtype=np.float32)]
    with Progress(len(paths), "embedding", "image") as progress:
        for features in engine.embed_batches(pictures()):
            batches.append(view.merge(features))
            progress.advance(len(batches[-1]))
    return np.concatenate(batches), refused


def extract_features(
    recipe: Recipe,
    images: Mapping[str, Path],
    store_path: Path,
    *,
    batch_size: int = BATCH_SIZE,
    retry_refused: bool = False,
) -> Extraction:
    """Bring the store of a recipe up to date with some images.

    Only images that are new, changed, or left pending are embedded. The work
    may be killed at any moment and goes on where it was the next time.

    Parameters
    ----------
    recipe : Recipe
        What decides the features.
    images : mapping of str to Path
        Image ids, and where the images are.
    store_path : Path
        The store; made if it is missing.
    batch_size : int
        Images embedded, and committed, at once.
    retry_refused : bool
        Whether to try again images that were refused and have not changed.

    Raises
    ------
    StoreMismatchError
        If the store was made otherwise, or this machine computes otherwise.
    ExtractionError
        If no image at all can be read.
    """
    engine_source = _EngineSource(recipe, batch_size)
    if store_path.exists():
        with FeatureStore.open(store_path) as store:
            store.require_key(recipe.key)
        grow(store_path, list(images))
    else:
        _create_store(store_path, recipe, list(images), engine_source.open())
    with FeatureStore.open(store_path, writable=True) as store:
        stale = _stale_rows(store, images, retry_refused)
        n_embedded = _embed_rows(store, stale, engine_source, find_view(recipe.view), batch_size)
        return _summarise(store, images, n_embedded)


class _EngineSource:
    """Opens the engine once something must be embedded, and not before."""

    def __init__(self, recipe: Recipe, batch_size: int) -> None:
        self._recipe, self._batch_size = recipe, batch_size
        self._engine: Engine | None = None

    @property
    def input_size(self) -> tuple[int, int]:
        return self._recipe.size_px, self._recipe.size_px

    def open(self) -> Engine:
        if self._engine is None:
            name = self._recipe.backbone.name
            logger.info("Loading %s (%s weights) …", name, self._recipe.weights.label)
            self._engine = self._recipe.open_engine(self._batch_size)
        return self._engine

    def open_for(self, store: FeatureStore) -> Engine:
        newly_opened = self._engine is None
        engine = self.open()
        if newly_opened:
            _require_same_probe(store, engine)
        return engine


def _create_store(path: Path, recipe: Recipe, ids: Sequence[str], engine: Engine) -> None:
    probe = engine.embed(probes.probe_images(engine.input_size))
    made_by = _software(engine) | {
        "weights_label": recipe.weights.label,
        "weights_source": recipe.weights.source,
    }
    FeatureStore.create(path, ids=ids, key=recipe.key, made_by=made_by, probe=probe)


def _software(engine: Engine) -> dict[str, object]:
    versions = library_versions("numpy", "pillow", "h5py") | engine.versions
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


def _stale_rows(
    store: FeatureStore, images: Mapping[str, Path], retry_refused: bool
) -> dict[int, tuple[Path, bytes | None]]:
    """Rows to look at, with the digest that would make it needless to embed them."""
    status, sizes, mtimes, digests = store.status, store.sizes, store.mtimes, store.digests
    stale: dict[int, tuple[Path, bytes | None]] = {}
    for row, image_id in enumerate(store.ids):
        path = images.get(image_id)
        if path is None:
            continue
        again = status[row] == PENDING or (retry_refused and status[row] == REFUSED)
        if again or not _untouched(path, sizes[row], mtimes[row]):
            stale[row] = (path, None if again else digests[row].tobytes())
    return stale


def _untouched(path: Path, size: int, mtime: int) -> bool:
    try:
        stat = path.stat()
    except OSError:
        return False
    return stat.st_size == size and stat.st_mtime_ns == mtime


def _embed_rows(
    store: FeatureStore,
    stale: Mapping[int, tuple[Path, bytes | None]],
    engine_source: _EngineSource,
    view: View,
    batch_size: int,
) -> int:
    n_embedded = 0
    title = f"{store.key['backbone']} {store.key['view']}"
    with Progress(len(stale), title, "image") as progress:
        batches = _readable_batches(store, stale, engine_source.input_size, batch_size, progress)
        first = next(batches, None)
        if first is None:
            return 0
        engine = engine_source.open_for(store)
        waiting: deque[_Batch] = deque()

        def pictures() -> Iterator[NDArray[np.uint8]]:
            for batch in itertools.chain([first], batches):
                waiting.append(batch)
                yield view.apply(batch.pixels())

        started = time.monotonic()
        for features in engine.embed_batches(pictures()):
            batch, now = waiting.popleft(), time.monotonic()
            rows, digests, sizes, mtimes = batch.columns()
            # Noted first: a store that holds features always knows what they cost.
            store.add_timing(len(batch), now - started)
            store.write_done(rows, view.merge(features), digests, sizes, mtimes)
            started = now
            n_embedded += len(batch)
            progress.advance(len(batch))
    return n_embedded


def _readable_batches(
    store: FeatureStore,
    stale: Mapping[int, tuple[Path, bytes | None]],
    size: tuple[int, int],
    batch_size: int,
    progress: Progress,
) -> Iterator[_Batch]:
    """Images to embed, batch by batch; what is to be known of the others is written."""

    def load(item: tuple[int, tuple[Path, bytes | None]]) -> tuple[int, LoadedImage]:
        row, (path, known_digest) = item
        return row, load_image(path, size, known_digest)

    batch = _Batch()
    for row, image in _in_background(load, stale.items(), 2 * batch_size):
        if image.pixels is None:
            _write_without_pixels(store, row, image)
            progress.advance()
            continue
        batch.add(row, image)
        if len(batch) == batch_size:
            yield batch
            batch = _Batch()
    if len(batch):
        yield batch


def _write_without_pixels(store: FeatureStore, row: int, image: LoadedImage) -> None:
    batch = _Batch([row], [image])
    rows, digests, sizes, mtimes = batch.columns()
    if image.reason:
        store.write_refused(rows, [image.reason], digests, sizes, mtimes)
    else:
        store.write_seen(rows, sizes, mtimes)


def _summarise(store: FeatureStore, images: Mapping[str, Path], n_embedded: int) -> Extraction:
    refused = {key: reason for key, reason in store.refused().items() if key in images}
    status = dict(zip(store.ids, store.status, strict=True))
    n_done = sum(int(status[image_id]) == DONE for image_id in images)
    if images and not n_done:
        examples = "; ".join(f"{key}: {reason}" for key, reason in list(refused.items())[:3])
        raise ExtractionError(
            f"None of the {len(images)} images can be read ({examples}). Expected JPEG, PNG, "
            "WebP, BMP, GIF or TIFF files; look at the first of them."
        )
    return Extraction(
        store=store.path,
        n_images=len(images),
        n_embedded=n_embedded,
        n_unchanged=n_done - n_embedded,
        refused=refused,
        images_per_s=store.images_per_s,
    )


def _in_background(
    work: Callable[[_Item], _Result], items: Iterable[_Item], n_ahead: int
) -> Iterator[_Result]:
    """Results in the items' order, computed by threads at most `n_ahead` items ahead."""
    pool = ThreadPoolExecutor(thread_name_prefix="decode")
    ahead: deque[Future[_Result]] = deque()
    try:
        for item in items:
            ahead.append(pool.submit(work, item))
            if len(ahead) > n_ahead:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
