"""Peak memory of the process while a block runs; it knows nothing of networks."""

import threading
from types import TracebackType
from typing import Self

import psutil

_INTERVAL_S = 0.2


class PeakMemory:
    """Samples the resident memory of the process five times a second while its block runs.

    The operating system only knows the peak since the process started.

    Attributes
    ----------
    bytes : int
        The largest sample.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._process = psutil.Process()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def _sample(self) -> None:
        self.bytes = max(self.bytes, self._process.memory_info().rss)

    def _watch(self) -> None:
        while not self._ended.wait(_INTERVAL_S):
            self._sample()

    def __enter__(self) -> Self:
        self._sample()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._sample()
