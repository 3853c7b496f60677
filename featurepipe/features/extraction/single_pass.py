"""The pipeline: read, decode, embed and hand on, all at once, several engines in one pass.

Threads read and decode ahead, engines compute several batches side by side, one
thread writes. Every queue is bounded: memory does not grow with the images.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featurepipe.features.engines import Engine, is_out_of_memory, load_with_room
from featurepipe.features.extraction.loading import ImageLoader, LoadedImage, Size
from featurepipe.features.extraction.views import View
from featurepipe.features.store.stages import BusyClock, StageTimes
from featurepipe.progress import Progress

_N_IMAGES_AHEAD = 64
_N_WRITES_AHEAD = 4


@dataclass(frozen=True)
class Cost:
    """What some images cost.

    Attributes
    ----------
    seconds : float
        By the clock; what several engines share is parted by how busy each was.
    stages : StageTimes
    """

    seconds: float
    stages: StageTimes


class Sink(Protocol):
    """What becomes of the images of a lane; called by one thread."""

    def embedded(self, images: Sequence[LoadedImage], features: NDArray[Any], cost: Cost) -> None:
        """Take the features of some images, one row each, and what they cost."""
        ...

    def not_embedded(self, image: LoadedImage) -> None:
        """Take note of an image that cannot be decoded, or need not be."""
        ...


class Lane:
    """One engine in a pass over images.

    Parameters
    ----------
    title : str
        Such as ``"xception rgb"``.
    size : (int, int)
        Height and width of the engine's input.
    view : View
    wanted : mapping of str to (bytes or None)
        Ids of the images to embed, each with the digest of those bytes that need
        not be embedded again, if there are such.
    open_engine : callable
        Loads the engine for batches of at most that many pictures (None: of as
        many as it likes).
    sink : Sink

    Attributes
    ----------
    stages : StageTimes
        Of the images so far.
    credited_s : float
        Seconds by the clock that were put down to them.
    """

    def __init__(
        self,
        title: str,
        size: Size,
        view: View,
        wanted: Mapping[str, bytes | None],
        open_engine: Callable[[int | None], Engine],
        sink: Sink,
    ) -> None:
        self.title, self.size, self.view, self.wanted = title, size, view, wanted
        self.sink = sink
        self.stages = StageTimes()
        self.credited_s = 0.0
        self._open_engine = open_engine
        self._engine: Engine | None = None
        self._clock = BusyClock(1)
        self._batch: list[LoadedImage] = []

    @property
    def n_parallel(self) -> int:
        """Batches that the engine computes side by side."""
        return self._opened().n_parallel

    def take(self, image: LoadedImage) -> list[LoadedImage]:
        """Add a decoded image; a batch, once it is full."""
        self._batch.append(image)
        is_full = len(self._batch) * self.view.n_pictures >= self._opened().batch_size
        return self.take_rest() if is_full else []

    def take_rest(self) -> list[LoadedImage]:
        """The batch as it is."""
        batch, self._batch = self._batch, []
        return batch

    def start(self, images: Sequence[LoadedImage]) -> "_Flight":
        """Begin to embed a batch, and do not wait."""
        engine = self._opened()
        pictures = self.view.apply(np.stack([image.pixels[self.size] for image in images]))
        future = self._clock.watch(lambda: _start(engine, pictures))
        return _Flight(self, images, pictures, future)

    def embed_in_less_memory(self, pictures: NDArray[np.uint8]) -> NDArray[Any]:
        """Features of a batch for which the memory did not suffice, in smaller ones."""

        def embed(n_pictures: int) -> NDArray[Any]:
            if n_pictures < self._opened().batch_size:
                # Given up first: two engines would need yet more memory.
                self._engine = None
                self._engine = self._open_engine(n_pictures)
            return self._opened().embed(pictures)

        return load_with_room(embed, self._opened().batch_size, self.title)

    def count(self, images: Iterable[LoadedImage]) -> None:
        """Add up what the images cost until now."""
        for image in images:
            self.stages.read += image.read_s
            self.stages.decode += image.decode_s
        self.stages.infer = self._clock.seconds

    def _opened(self) -> Engine:
        if self._engine is None:
            self._engine = self._open_engine(None)
            self._clock = BusyClock(self._engine.n_parallel)
        return self._engine


@dataclass(frozen=True)
class _Flight:
    """A batch that is being embedded."""

    lane: Lane
    images: Sequence[LoadedImage]
    pictures: NDArray[np.uint8]
    future: Future[NDArray[Any]]

    def land(self) -> NDArray[Any]:
        """One row an image."""
        try:
            features = self.future.result()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            features = self.lane.embed_in_less_memory(self.pictures)
        return self.lane.view.merge(features)


def run_pass(loader: ImageLoader, ids: Sequence[str], lanes: Sequence[Lane]) -> None:
    """Load every image once and let each lane embed it that wants it.

    Parameters
    ----------
    loader : ImageLoader
    ids : sequence of str
        Image ids, in the order in which to load them.
    lanes : sequence of Lane
    """
    n_wanted = sum(len(lane.wanted) for lane in lanes)
    title = ", ".join(lane.title for lane in lanes)
    with Progress(n_wanted, title, "image") as progress, _Writer() as writer:
        one_pass = _Pass(lanes, writer, progress)
        try:
            for image in loader.load_all(_jobs(ids, lanes), _N_IMAGES_AHEAD):
                one_pass.add(image)
            one_pass.finish()
        except BaseException:
            one_pass.keep_what_is_done()
            raise


def _jobs(
    ids: Iterable[str], lanes: Sequence[Lane]
) -> Iterator[tuple[str, dict[Size, set[bytes | None]]]]:
    """Each image that is wanted, with the sizes and the digests that need no decoding."""
    for image_id in ids:
        known: dict[Size, set[bytes | None]] = {}
        for lane in lanes:
            if image_id in lane.wanted:
                digest = {lane.wanted[image_id]}
                # At one size for two lanes, both must know the bytes.
                known[lane.size] = known.get(lane.size, digest) & digest
        if known:
            yield image_id, known


class _Pass:
    """Batches under way, in the order in which they were started."""

    def __init__(self, lanes: Sequence[Lane], writer: "_Writer", progress: Progress) -> None:
        self._lanes, self._writer, self._progress = lanes, writer, progress
        self._flights: deque[_Flight] = deque()
        self._started = time.perf_counter()

    def add(self, image: LoadedImage) -> None:
        wanting = [lane for lane in self._lanes if image.image_id in lane.wanted]
        # It was read once for all of them.
        image.read_s, image.decode_s = image.read_s / len(wanting), image.decode_s / len(wanting)
        for lane in wanting:
            if lane.wanted[image.image_id] == image.digest or lane.size not in image.pixels:
                lane.count([image])
                self._writer.submit(lane, lane.sink.not_embedded, image)
                self._progress.advance()
            elif batch := lane.take(image):
                self._start(lane, batch)

    def _start(self, lane: Lane, batch: Sequence[LoadedImage]) -> None:
        # Twice as many as are computed at once: none of the places is ever empty.
        while len(self._flights) >= 2 * lane.n_parallel:
            self._land(self._flights.popleft())
        self._flights.append(lane.start(batch))

    def _land(self, flight: _Flight) -> None:
        lane, features = flight.lane, flight.land()
        before = replace(lane.stages)
        lane.count(flight.images)
        cost = Cost(self._credit(lane), lane.stages - before)
        self._writer.submit(lane, lane.sink.embedded, flight.images, features, cost)
        self._progress.advance(len(flight.images))

    def _credit(self, lane: Lane) -> float:
        """Seconds by the clock to put down to a lane, by its share of all engines' work."""
        of_all = sum(other.stages.infer for other in self._lanes)
        share = lane.stages.infer / of_all if of_all else 1.0
        due_s = share * (time.perf_counter() - self._started)
        seconds = max(0.0, due_s - lane.credited_s)
        lane.credited_s += seconds
        return seconds

    def finish(self) -> None:
        for lane in self._lanes:
            if batch := lane.take_rest():
                self._start(lane, batch)
        while self._flights:
            self._land(self._flights.popleft())

    def keep_what_is_done(self) -> None:
        """After an error or an interrupt: write the batches that are computed already."""
        for flight in self._flights:
            if flight.future.done() and flight.future.exception() is None:
                self._land(flight)


class _Writer:
    """One thread that writes, a bounded number of writes behind."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._waiting: deque[Future[None]] = deque()

    def submit(self, lane: Lane, write: Callable[..., None], *what: Any) -> None:
        if len(self._waiting) >= _N_WRITES_AHEAD:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(_timed, lane, write, *what))

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(wait=True)
        if kind is None:
            for write in self._waiting:
                write.result()


def _timed(lane: Lane, write: Callable[..., None], *what: Any) -> None:
    started = time.perf_counter()
    write(*what)
    lane.stages.write += time.perf_counter() - started


def _start(engine: Engine, pictures: NDArray[np.uint8]) -> Future[NDArray[Any]]:
    """Start a batch; one too large, after memory was short, is computed at once."""
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
