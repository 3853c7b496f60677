"""One pass over images for several engines: read, decode, embed and write at the same time.

Threads read and decode ahead, engines compute several batches in parallel, one
thread writes. Every queue is bounded: memory does not grow with the number of images.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from featurepipe.features.extraction.lanes import Cost, Flight, Lane
from featurepipe.features.extraction.loading import ImageLoader, LoadedImage
from featurepipe.features.framing import Framing
from featurepipe.progress import Progress, SilentCount

_N_IMAGES_AHEAD = 64
_N_WRITES_AHEAD = 4


def run_pass(
    loader: ImageLoader,
    ids: Sequence[str],
    lanes: Sequence[Lane],
    progress: Progress | SilentCount | None = None,
) -> None:
    """Load every image once and embed it in each lane that wants it.

    Parameters
    ----------
    loader : ImageLoader
    ids : sequence of str
        Image ids, in the order in which to load them.
    lanes : sequence of Lane
    progress : Progress or SilentCount, optional
        Counts images times lanes; default: a bar.
    """
    n_wanted = sum(len(lane.wanted) for lane in lanes)
    title = ", ".join(lane.title for lane in lanes)
    with progress or Progress(n_wanted, title, "image") as shown:
        embed_loaded(loader.load_all(_jobs(ids, lanes), _N_IMAGES_AHEAD), lanes, shown)


def embed_loaded(
    images: Iterable[LoadedImage], lanes: Sequence[Lane], progress: Progress | SilentCount
) -> None:
    """Embed images in each lane that wants them.

    Parameters
    ----------
    images : iterable of LoadedImage
    lanes : sequence of Lane
    progress : Progress or SilentCount
        Counts images times lanes.
    """
    with _Writer() as writer:
        one_pass = _Pass(lanes, writer, progress)
        try:
            for image in images:
                one_pass.add(image)
            one_pass.finish()
        except BaseException:
            one_pass.keep_what_is_done()
            raise


def _jobs(
    ids: Iterable[str], lanes: Sequence[Lane]
) -> Iterator[tuple[str, dict[Framing, set[bytes | None]]]]:
    """Images that are wanted, with their framings and the digests that need no decoding."""
    for image_id in ids:
        known: dict[Framing, set[bytes | None]] = {}
        for lane in lanes:
            if image_id in lane.wanted:
                digest = {lane.wanted[image_id]}
                # Where two lanes share a framing, both must know the bytes.
                known[lane.framing] = known.get(lane.framing, digest) & digest
        if known:
            yield image_id, known


class _Pass:
    """Batches in progress, in the order in which they were started."""

    def __init__(
        self, lanes: Sequence[Lane], writer: "_Writer", progress: Progress | SilentCount
    ) -> None:
        self._lanes, self._writer, self._progress = lanes, writer, progress
        self._flights: deque[Flight] = deque()
        self._started = time.perf_counter()

    def add(self, image: LoadedImage) -> None:
        wanting = [lane for lane in self._lanes if image.image_id in lane.wanted]
        # It was read once for all lanes.
        image.read_s, image.decode_s = image.read_s / len(wanting), image.decode_s / len(wanting)
        for lane in wanting:
            if lane.wanted[image.image_id] == image.digest or lane.framing not in image.pixels:
                lane.count([image])
                self._writer.submit(lane, lane.sink.not_embedded, image)
                self._progress.advance()
            elif batch := lane.take(image):
                self._start(lane, batch)

    def _start(self, lane: Lane, batch: Sequence[LoadedImage]) -> None:
        # Twice as many as are computed at once, so that the engine never waits.
        while len(self._flights) >= 2 * lane.n_parallel:
            self._land(self._flights.popleft())
        self._flights.append(lane.start(batch))

    def _land(self, flight: Flight) -> None:
        lane, features = flight.lane, flight.land()
        before = replace(lane.stages)
        lane.count(flight.images)
        cost = Cost(self._credit(lane), lane.stages - before)
        self._writer.submit(lane, lane.sink.embedded, flight.images, features, cost)
        self._progress.advance(len(flight.images))

    def _credit(self, lane: Lane) -> float:
        """Wall-clock seconds to assign to a lane, by its share of the work of all engines."""
        total_s = sum(other.stages.infer for other in self._lanes)
        share = lane.stages.infer / total_s if total_s else 1.0
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
        """After an error or an interrupt: write the batches that are already computed."""
        for flight in self._flights:
            if flight.future.done() and flight.future.exception() is None:
                self._land(flight)


class _Writer:
    """One thread that writes, with a bounded queue."""

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
