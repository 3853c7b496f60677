"""Loading: images are read, hashed and decoded by threads that run ahead."""

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import ImageError
from featurepipe.features.extraction.decoding import decode_framed
from featurepipe.features.extraction.memory_budget import count_cpus
from featurepipe.features.framing import Framing
from featurepipe.sources import ImageSource

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass
class LoadedImage:
    """One image as it is in its source now: pixels, or the reason why there are none.

    Attributes
    ----------
    image_id : str
    digest : bytes
        SHA-256 of its bytes; zeros if it could not be read at all.
    pixels : dict of Framing to ndarray of shape (height, width, 3), uint8
        Empty if it cannot be decoded or need not be.
    reason : str
        Why there are no pixels; empty if there are, or if they are not needed.
    read_s, decode_s : float
        Seconds that a thread took, divided by the number of threads; hashing counts
        as reading.
    """

    image_id: str
    digest: bytes = bytes(32)
    pixels: dict[Framing, NDArray[np.uint8]] = field(default_factory=dict)
    reason: str = ""
    read_s: float = 0.0
    decode_s: float = 0.0


class ImageLoader:
    """Reads, hashes and decodes images; never raises because of a bad image.

    Parameters
    ----------
    source : ImageSource
    fast_decode : bool
        Whether large JPEGs may be decoded at a reduced size.
    """

    def __init__(self, source: ImageSource, *, fast_decode: bool = False) -> None:
        self._source = source
        self._fast_decode = fast_decode
        self._n_cpus = count_cpus()
        self._n_threads = max(self._n_cpus, source.n_readers)
        # A slow source has more readers than there are cores for decoding.
        self._cores = threading.BoundedSemaphore(self._n_cpus)

    def load(
        self, image_id: str, framings: Mapping[Framing, Collection[bytes | None]]
    ) -> LoadedImage:
        """Load one image.

        Parameters
        ----------
        image_id : str
        framings : mapping of Framing to collection of (bytes or None)
            How to resize it, each with the digests of bytes that need not be decoded so.
        """
        image, started = LoadedImage(image_id), time.perf_counter()
        try:
            data = self._source.read(image_id)
        except OSError as error:
            image.reason = f"cannot be read: {error.strerror or error}"
            return image
        image.digest = hashlib.sha256(data).digest()
        image.read_s = (time.perf_counter() - started) / self._n_threads
        with self._cores:
            started = time.perf_counter()
            self._decode(data, image, framings)
            image.decode_s = (time.perf_counter() - started) / self._n_cpus
        return image

    def _decode(
        self, data: bytes, image: LoadedImage, framings: Mapping[Framing, Collection[bytes | None]]
    ) -> None:
        needed = [framing for framing, known in framings.items() if image.digest not in known]
        if not needed:
            return
        try:
            image.pixels = decode_framed(data, needed, fast=self._fast_decode)
        except ImageError as error:
            image.reason = str(error)

    def load_all(
        self, jobs: Iterable[tuple[str, Mapping[Framing, Collection[bytes | None]]]], n_ahead: int
    ) -> Iterator[LoadedImage]:
        """Load images in order, at most `n_ahead` of them in advance."""
        return _in_background(lambda job: self.load(*job), jobs, n_ahead, self._n_threads)


def _in_background(
    work: Callable[[_Item], _Result], items: Iterable[_Item], n_ahead: int, n_threads: int
) -> Iterator[_Result]:
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="load")
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
