"""TaskQueue: which task a worker gets next, and what becomes of one that fails or is slow."""

import logging
from bisect import insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)

MAX_TRIES = 3

# A task runs again elsewhere once it has taken so many times as long as others of its size, by the
# median, and at least so long.
_STRAGGLER_FACTOR, _STRAGGLER_S = 2.0, 5.0


@dataclass
class Outcome:
    """What became of tasks so far.

    Attributes
    ----------
    failed : dict of int to str
        Numbers of the tasks that failed every time, each with the last reason.
    n_again : int
        How often a task was begun again: it failed, its worker died, or it was slow.
    n_workers : int
        The most workers at a time.
    """

    failed: dict[int, str] = field(default_factory=dict)
    n_again: int = 0
    n_workers: int = 0


@dataclass(frozen=True, eq=False)
class Attempt:
    """A worker at a task.

    Attributes
    ----------
    task : int
    worker : str
        Name of the worker's node.
    since : float
        When it began, in seconds.
    """

    task: int
    worker: str
    since: float


class TaskQueue:
    """Tasks that wait or run, by number.

    Parameters
    ----------
    titles : sequence of str
        Of the tasks, for messages.
    sizes : sequence of int
        How much work they are; 0 if that is not known: nobody can say that these are slow.

    Attributes
    ----------
    open : set of int
        Tasks that are neither finished nor given up.
    outcome : Outcome
    """

    def __init__(self, titles: Sequence[str], sizes: Sequence[int]) -> None:
        self._titles, self._sizes = titles, sizes
        self._waiting = deque(range(len(titles)))
        self._tries = [0] * len(titles)
        self._running: list[Attempt] = []
        # Seconds of finished tasks, by their sizes; sorted.
        self._paces: list[float] = []
        self.open = set(self._waiting)
        self.outcome = Outcome()

    def begin(self, worker: str, now: float) -> Attempt | None:
        """Give an idle worker the next task; if none waits, the slowest of others, if any is slow.

        If there is nothing to do, then for no other worker either.

        Parameters
        ----------
        worker : str
        now : float
        """
        if self._waiting:
            attempt = Attempt(self._waiting.popleft(), worker, now)
        elif (slow := self._slowest(now)) is not None:
            self.outcome.n_again += 1
            logger.info(
                "%s takes long on node %s: it runs again on %s.",
                self._titles[slow.task],
                slow.worker,
                worker,
            )
            attempt = Attempt(slow.task, worker, now)
        else:
            return None
        self._running.append(attempt)
        return attempt

    def _slowest(self, now: float) -> Attempt | None:
        if not self._paces:
            return None
        pace = _STRAGGLER_FACTOR * _median(self._paces)
        slow = [
            attempt
            for attempt in self._running
            if attempt.task in self.open
            and (size := self._sizes[attempt.task])
            and now - attempt.since > max(_STRAGGLER_S, pace * size)
            and not self._runs_elsewhere(attempt)
        ]
        return min(slow, key=lambda attempt: attempt.since, default=None)

    def finish(self, attempt: Attempt, now: float) -> bool:
        """Take an attempt that succeeded; whether it is the first of its task.

        Parameters
        ----------
        attempt : Attempt
        now : float
        """
        self._running.remove(attempt)
        is_first = attempt.task in self.open
        self.open.discard(attempt.task)
        if size := self._sizes[attempt.task]:
            insort(self._paces, (now - attempt.since) / size)
        return is_first

    def fail(self, attempt: Attempt, reason: str) -> None:
        """Let the task of an attempt wait again, or give it up after `MAX_TRIES`.

        Parameters
        ----------
        attempt : Attempt
        reason : str
        """
        self._running.remove(attempt)
        number, title = attempt.task, self._titles[attempt.task]
        self._tries[number] += 1
        if number not in self.open or self._runs_elsewhere(attempt):
            return
        if self._tries[number] >= MAX_TRIES:
            self.outcome.failed[number] = reason
            self.open.discard(number)
            logger.warning("%s failed %d times: %s.", title, MAX_TRIES, reason)
            return
        self.outcome.n_again += 1
        logger.info("%s is begun again: %s.", title, reason)
        self._waiting.appendleft(number)

    def _runs_elsewhere(self, attempt: Attempt) -> bool:
        return any(other.task == attempt.task and other is not attempt for other in self._running)


def _median(ordered: Sequence[float]) -> float:
    half = len(ordered) // 2
    return (ordered[half] + ordered[-half - 1]) / 2
