"""Lanes: what is embedded in one pass over images, one for each store or caller."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featurepipe.features.engines import Engine, is_out_of_memory, load_with_room
from featurepipe.features.extraction.loading import LoadedImage
from featurepipe.features.extraction.views import View
from featurepipe.features.framing import Framing
from featurepipe.features.store.stages import BusyClock, StageTimes


@dataclass(frozen=True)
class Cost:
    """What some images cost.

    Attributes
    ----------
    seconds : float
        Wall-clock time; engines that work at the same time share it by how busy each was.
    stages : StageTimes
    """

    seconds: float
    stages: StageTimes


class OpensEngine(Protocol):
    """Gives lanes their engine, which several may share."""

    @property
    def clock(self) -> BusyClock:
        """How long the engine was busy."""

    def open(self, n_pictures: int | None = None) -> Engine:
        """The engine; it is loaded anew if batches of another size are requested."""


class Sink(Protocol):
    """Receives the images of a lane; called by one thread."""

    def embedded(self, images: Sequence[LoadedImage], features: NDArray[Any], cost: Cost) -> None:
        """Receive the features of some images, one row each, and their cost."""
        ...

    def not_embedded(self, image: LoadedImage) -> None:
        """Receive an image that cannot be decoded, or need not be."""
        ...


class Lane:
    """What one store or caller gets in a pass over images.

    Parameters
    ----------
    title : str
        Such as ``"xception rgb"``.
    framing : Framing
        How images become the engine's input.
    view : View
    wanted : mapping of str to (bytes or None)
        Ids of the images to embed, each with the digest of the bytes that need not be
        embedded again, if any.
    engine : OpensEngine
    sink : Sink

    Attributes
    ----------
    stages : StageTimes
        Times of the images so far.
    credited_s : float
        Wall-clock seconds that were assigned to the images so far.
    """

    def __init__(
        self,
        title: str,
        framing: Framing,
        view: View,
        wanted: Mapping[str, bytes | None],
        engine: OpensEngine,
        sink: Sink,
    ) -> None:
        self.title, self.framing, self.view, self.wanted = title, framing, view, wanted
        self.sink = sink
        self.stages = StageTimes()
        self.credited_s = 0.0
        self._engine = engine
        self._batch: list[LoadedImage] = []

    @property
    def n_parallel(self) -> int:
        """Batches that the engine computes in parallel."""
        return self._engine.open().n_parallel

    def take(self, image: LoadedImage) -> list[LoadedImage]:
        """Add a decoded image; returns the batch once it is full."""
        self._batch.append(image)
        is_full = len(self._batch) * self.view.n_pictures >= self._engine.open().batch_size
        return self.take_rest() if is_full else []

    def take_rest(self) -> list[LoadedImage]:
        """Return the incomplete batch."""
        batch, self._batch = self._batch, []
        return batch

    def start(self, images: Sequence[LoadedImage]) -> "Flight":
        """Begin to embed a batch, without waiting."""
        engine = self._engine.open()
        pictures = self.view.apply(np.stack([image.pixels[self.framing] for image in images]))
        future = self._engine.clock.watch(lambda: _start(engine, pictures))
        return Flight(self, images, pictures, future)

    def embed_in_less_memory(self, pictures: NDArray[np.uint8]) -> NDArray[Any]:
        """Features of a batch that did not fit into memory, computed in smaller batches."""

        def embed(n_pictures: int) -> NDArray[Any]:
            if n_pictures < self._engine.open().batch_size:
                self._engine.open(n_pictures)
            return self._engine.open().embed(pictures)

        return load_with_room(embed, self._engine.open().batch_size, self.title)

    def count(self, images: Iterable[LoadedImage]) -> None:
        """Add the times of some images."""
        for image in images:
            self.stages.read += image.read_s
            self.stages.decode += image.decode_s
        # Since any lane of this engine was counted: about what these images took.
        self.stages.infer += self._engine.clock.take()


@dataclass(frozen=True)
class Flight:
    """A batch that is being embedded, as `Lane.start` returns it."""

    lane: Lane
    images: Sequence[LoadedImage]
    pictures: NDArray[np.uint8]
    future: Future[NDArray[Any]]

    def land(self) -> NDArray[Any]:
        """Wait for the features, one row per image."""
        try:
            features = self.future.result()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            features = self.lane.embed_in_less_memory(self.pictures)
        return self.lane.view.merge(features)


def _start(engine: Engine, pictures: NDArray[np.uint8]) -> Future[NDArray[Any]]:
    """Start a batch; a batch that is now too large is computed at once."""
    settled: Future[NDArray[Any]] = Future()
    try:
        if len(pictures) <= engine.batch_size:
            return engine.start(pictures)
        features = engine.embed(pictures)
    except Exception as error:
        settled.set_exception(error)
    else:
        settled.set_result(features)
    return settled
