"""Stage times: how the time of an extraction is spent."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from typing import Any

STAGES = ("read", "decode", "infer", "write")


@dataclass
class StageTimes:
    """Seconds that each stage was busy, averaged over the threads that work in it.

    Attributes
    ----------
    read, decode, infer, write : float
        Reading and hashing bytes; decoding and resizing; computing features;
        writing them to the store.
    """

    read: float = 0.0
    decode: float = 0.0
    infer: float = 0.0
    write: float = 0.0

    def __sub__(self, other: "StageTimes") -> "StageTimes":
        return StageTimes(*(getattr(self, name) - getattr(other, name) for name in STAGES))

    @property
    def bottleneck(self) -> str:
        """The stage that was busiest; empty if none was."""
        seconds = asdict(self)
        return max(seconds, key=lambda name: seconds[name]) if any(seconds.values()) else ""

    def in_words(self) -> str:
        """One line for a person."""
        parts = (f"{name} {getattr(self, name):.1f} s" for name in STAGES)
        return f"busy: {', '.join(parts)}; bottleneck: {self.bottleneck}"


class BusyClock:
    """How long an engine that computes several batches in parallel was busy.

    Parameters
    ----------
    n_parallel : int
        Batches that are computed at once; others wait.
    """

    def __init__(self, n_parallel: int) -> None:
        self._n_parallel = n_parallel
        self._lock = threading.Lock()
        self._n_started, self._since, self._seconds, self._taken = 0, 0.0, 0.0, 0.0

    def watch(self, start: Callable[[], Future[Any]]) -> Future[Any]:
        """Start a batch, and count its time until it is done."""
        self._tick(+1)
        future = start()
        future.add_done_callback(lambda _: self._tick(-1))
        return future

    def take(self) -> float:
        """Seconds busy since the last call; half of them count while half the batches run."""
        self._tick(0)
        before, self._taken = self._taken, self._seconds
        return self._taken - before

    def _tick(self, change: int) -> None:
        with self._lock:
            now = time.perf_counter()
            busy = min(self._n_started, self._n_parallel) / self._n_parallel
            self._seconds += busy * (now - self._since)
            self._n_started += change
            self._since = now
