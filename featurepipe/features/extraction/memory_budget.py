"""A budget of memory that threads share: a large image waits until others are done."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class MemoryBudget:
    """Memory that threads take and give back; whoever asks for more than is left waits.

    Parameters
    ----------
    n_bytes : int
        The budget.
    """

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes = n_bytes
        self._taken = 0
        self._returned = threading.Condition()

    @contextmanager
    def take(self, n_bytes: int) -> Iterator[None]:
        """Hold a share; one above the budget is the whole of it.

        Do not take a second share while you hold one: two threads would wait for each other.
        """
        share = min(n_bytes, self.n_bytes)
        with self._returned:
            self._returned.wait_for(lambda: self._taken + share <= self.n_bytes)
            self._taken += share
        try:
            yield
        finally:
            with self._returned:
                self._taken -= share
                self._returned.notify_all()


def count_cpus() -> int:
    """Processor cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
