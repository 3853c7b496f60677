"""The most memory that the process takes while something runs."""

import threading
from types import TracebackType
from typing import Self

import psutil

_SECONDS_BETWEEN_LOOKS = 0.2


class PeakMemory:
    """Looks at the process's resident memory, five times a second, while its block runs.

    Attributes
    ----------
    bytes : int
        The most that was seen.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._process = psutil.Process()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def _look(self) -> None:
        self.bytes = max(self.bytes, self._process.memory_info().rss)

    def _watch(self) -> None:
        while not self._ended.wait(_SECONDS_BETWEEN_LOOKS):
            self._look()

    def __enter__(self) -> Self:
        self._look()
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
        self._look()
