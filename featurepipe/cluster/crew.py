"""A crew: workers on the nodes of a Ray cluster that take tasks from one queue.

A worker that dies loses the task that it had: another does it. A task that fails is tried again;
one that fails for good is reported, and the rest goes on. When no task is left, idle workers do
the slowest ones again, and whoever finishes first counts.
"""

import logging
import os
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Generic, Protocol, Self, TypeVar

from featurepipe.cluster.connecting import Node, import_ray, living_nodes, on_node
from featurepipe.errors import ClusterError, FeaturepipeError
from featurepipe.words import counted, one_line

logger = logging.getLogger(__name__)

MAX_TRIES = 3

_POLL_S = 0.5
_SECONDS_BETWEEN_HIRES = 5.0
# A task runs again elsewhere once it has taken so many times the median, and at least so long.
_STRAGGLER_FACTOR, _STRAGGLER_S = 2.0, 5.0
# How long a cluster may have no worker at all, since nodes may be on their way.
_PATIENCE_S = 60.0

_Task = TypeVar("_Task")
_Receipt = TypeVar("_Receipt")
_TaskIn = TypeVar("_TaskIn", contravariant=True)
_ReceiptOut = TypeVar("_ReceiptOut", covariant=True)


class Worker(Protocol[_TaskIn, _ReceiptOut]):
    """What does tasks on a node; made there, once."""

    def facts(self) -> Any:
        """What it tells before it is given a task."""

    def do(self, task: _TaskIn) -> _ReceiptOut:
        """Do a task; the receipt is some bytes.

        Raises
        ------
        FeaturepipeError
            If it fails.
        """

    def n_done(self) -> int:
        """Units of the task in progress that are done."""


@dataclass
class Outcome:
    """What became of the tasks.

    Attributes
    ----------
    failed : dict of int to str
        Numbers of the tasks that failed every time, each with the last reason.
    n_again : int
        How often a task was done again: it failed, its worker died, or it was slow.
    n_workers : int
        The most workers at a time.
    worker_s : float
        Seconds that the workers were hired, summed.
    """

    failed: dict[int, str] = field(default_factory=dict)
    n_again: int = 0
    n_workers: int = 0
    worker_s: float = 0.0


@dataclass
class _Hired:
    """A worker of the crew, as the driver sees it."""

    node: Node
    actor: Any
    since: float
    # Its place among the workers of its machine.
    place: int
    # References to what it answers when it is made, and when it is asked how far it is.
    ready: Any
    is_prepared: bool = False
    is_busy: bool = False
    n_done: int = 0
    asked: Any = None


@dataclass(frozen=True)
class _Attempt:
    task: int
    worker: _Hired
    since: float


class Crew(Generic[_Task, _Receipt]):
    """Workers on the nodes of the cluster that this process is connected to.

    Nodes with GPUs are used alone, if there are any. A machine's cores are divided among its
    workers, which decode images beside their engine.

    Parameters
    ----------
    make_worker : callable
        Makes a worker; called on each node, and pickled to get there.
    accept : callable
        Called with a node and the facts that its worker tells. What it returns is why the worker
        cannot be used; empty if it can.
    gpus_per_worker : float
        Share of a GPU that a worker has, or their number.
    """

    def __init__(
        self,
        make_worker: Callable[[], Worker[_Task, _Receipt]],
        accept: Callable[[Node, Any], str],
        gpus_per_worker: float = 1.0,
    ) -> None:
        self._ray = import_ray()
        self._make_worker, self._accept = make_worker, accept
        self._gpus_per_worker = gpus_per_worker
        self._workers: list[_Hired] = []
        self._hired_last = 0.0
        self._outcome: Outcome = Outcome()
        # Nodes on which no worker could be made, each with the reason.
        self._unfit: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in list(self._workers):
            self._dismiss(worker)

    def prepare(self) -> None:
        """Hire a worker for each place, and wait until all of them are ready.

        Raises
        ------
        ClusterError
            If a node cannot do the work, which is named with the reason.
        """
        self._hire()
        if not self._workers:
            raise ClusterError("The Ray cluster has no node with a free core. See: ray status")
        for worker in list(self._workers):
            reason = self._prepared(worker)
            if reason:
                raise ClusterError(f"Node {worker.node.title} cannot do the work: {reason}")

    def work(
        self,
        tasks: Sequence[_Task],
        finished: Callable[[int, Node, _Receipt], str],
        progress: Callable[[int, Outcome, int], None],
    ) -> Outcome:
        """Do tasks, in their order as far as possible.

        Parameters
        ----------
        tasks : sequence
        finished : callable
            Called with the number of a task, the node and the receipt, once a task. What it
            returns is why the receipt is refused; empty if it is not.
        progress : callable
            Called now and then, with the units done in unfinished tasks, the outcome so far and
            the number of workers.

        Returns
        -------
        Outcome

        Raises
        ------
        ClusterError
            If no worker is left.
        """
        outcome = self._outcome = Outcome()
        waiting, tries = deque(range(len(tasks))), [0] * len(tasks)
        open_tasks = set(waiting)
        running: dict[Any, _Attempt] = {}
        took: list[float] = []
        last_worker = time.monotonic()
        while open_tasks:
            self._hire()
            for worker in self._workers:
                if worker.is_prepared and not worker.is_busy:
                    number = self._next(waiting, running, took, worker)
                    if number is not None:
                        worker.is_busy, worker.n_done = True, 0
                        reference = worker.actor.do.remote(tasks[number])
                        running[reference] = _Attempt(number, worker, time.monotonic())
            self._look_at_new()
            outcome.n_workers = max(outcome.n_workers, len(self._workers))
            if self._workers:
                last_worker = time.monotonic()
            elif time.monotonic() - last_worker > _PATIENCE_S:
                raise ClusterError(f"No worker is left. {self._why_none()}")
            if not running:
                time.sleep(_POLL_S / 10)
                continue
            ready, _ = self._ray.wait(list(running), timeout=_POLL_S)
            for reference in ready:
                attempt = running.pop(reference)
                reason = self._land(reference, attempt, open_tasks, finished)
                if not reason:
                    took.append(time.monotonic() - attempt.since)
                    open_tasks.discard(attempt.task)
                elif attempt.task in open_tasks:
                    self._again(attempt, reason, tries, waiting, running, open_tasks)
            progress(self._n_in_progress(running, open_tasks), outcome, len(self._workers))
        return outcome

    def _next(
        self,
        waiting: deque[int],
        running: dict[Any, _Attempt],
        took: Sequence[float],
        worker: _Hired,
    ) -> int | None:
        """The task that an idle worker gets: the next, else the slowest of another."""
        if waiting:
            return waiting.popleft()
        if not took:
            return None
        limit_s = max(_STRAGGLER_S, _STRAGGLER_FACTOR * statistics.median(took))
        alone = [
            attempt
            for attempt in running.values()
            if sum(other.task == attempt.task for other in running.values()) == 1
            and attempt.worker is not worker
            and time.monotonic() - attempt.since > limit_s
        ]
        if not alone:
            return None
        slowest = min(alone, key=lambda attempt: attempt.since)
        self._outcome.n_again += 1
        logger.info(
            "Task %d takes long on node %s: it runs again on %s.",
            slowest.task,
            slowest.worker.node.title,
            worker.node.title,
        )
        return slowest.task

    def _land(
        self,
        reference: Any,
        attempt: _Attempt,
        open_tasks: set[int],
        finished: Callable[[int, Node, _Receipt], str],
    ) -> str:
        """Take the receipt of an attempt; why there is none, or empty."""
        try:
            reason, receipt = self._ray.get(reference)
        except self._ray.exceptions.RayActorError as error:
            self._dismiss(attempt.worker)
            return f"its worker on node {attempt.worker.node.title} died ({_first_line(error)})"
        except Exception as error:
            reason, receipt = _first_line(error), None
        attempt.worker.is_busy = False
        if reason:
            return f"{reason} (node {attempt.worker.node.title})"
        if attempt.task not in open_tasks:
            return ""
        return finished(attempt.task, attempt.worker.node, receipt)

    def _again(
        self,
        attempt: _Attempt,
        reason: str,
        tries: list[int],
        waiting: deque[int],
        running: dict[Any, _Attempt],
        open_tasks: set[int],
    ) -> None:
        """Put a task that failed back into the queue, or give it up."""
        number = attempt.task
        tries[number] += 1
        if any(other.task == number for other in running.values()):
            return
        if tries[number] >= MAX_TRIES:
            self._outcome.failed[number] = reason
            open_tasks.discard(number)
            logger.warning("Task %d failed %d times: %s.", number, MAX_TRIES, reason)
            return
        self._outcome.n_again += 1
        logger.info("Task %d is done again: %s.", number, reason)
        waiting.appendleft(number)

    def _hire(self) -> None:
        """Have workers on every node that can do the work, those that joined included."""
        if time.monotonic() - self._hired_last < _SECONDS_BETWEEN_HIRES:
            return
        self._hired_last = time.monotonic()
        nodes = living_nodes()
        if any(node.n_gpus for node in nodes):
            nodes = [node for node in nodes if node.n_gpus]
        for node in nodes:
            if node.n_cpus and node.node_id not in self._unfit:
                n_wanted = self._n_workers(node)
                n_there = sum(worker.node.node_id == node.node_id for worker in self._workers)
                for _ in range(n_wanted - n_there):
                    self._hire_one(node, max(1, node.n_cpus // n_wanted))

    def _n_workers(self, node: Node) -> int:
        return max(1, int(node.n_gpus / self._gpus_per_worker)) if node.n_gpus else 1

    def _hire_one(self, node: Node, n_cpus: int) -> None:
        # Threads: what asks for progress does not wait for the task.
        actor_class = self._ray.remote(num_cpus=n_cpus, max_concurrency=2, max_restarts=0)(_Hosted)
        gpus = {"num_gpus": self._gpus_per_worker} if node.n_gpus else {}
        taken = {other.place for other in self._workers if other.node.host == node.host}
        place = next(place for place in count() if place not in taken)
        actor = actor_class.options(**on_node(node), **gpus).remote(
            self._make_worker, place * n_cpus, n_cpus
        )
        self._workers.append(_Hired(node, actor, time.monotonic(), place, actor.prepare.remote()))

    def _look_at_new(self) -> None:
        """See which workers that were hired meanwhile are ready."""
        for worker in [worker for worker in self._workers if not worker.is_prepared]:
            if self._ray.wait([worker.ready], timeout=0)[0] and (reason := self._prepared(worker)):
                logger.warning("Node %s cannot do the work: %s", worker.node.title, reason)

    def _prepared(self, worker: _Hired) -> str:
        """Wait until a worker is ready; why it is not, or empty."""
        try:
            reason, facts = self._ray.get(worker.ready)
        except Exception as error:
            reason, facts = _first_line(error), None
        reason = reason or self._accept(worker.node, facts)
        worker.is_prepared = not reason
        if reason:
            # A process that dies is replaced; what a node lacks, it will lack again.
            self._unfit[worker.node.node_id] = reason
            self._dismiss(worker)
        return reason

    def _n_in_progress(self, running: dict[Any, _Attempt], open_tasks: set[int]) -> int:
        """Units that are done in unfinished tasks; a task in several places counts once."""
        by_task: dict[int, int] = {}
        for attempt in running.values():
            worker = attempt.worker
            if worker.asked is None:
                worker.asked = worker.actor.n_done.remote()
            elif self._ray.wait([worker.asked], timeout=0)[0]:
                try:
                    worker.n_done = self._ray.get(worker.asked)
                except Exception:
                    # It died, which its task will tell.
                    logger.debug("Worker on %s does not answer", worker.node.title)
                worker.asked = None
            if attempt.task in open_tasks:
                by_task[attempt.task] = max(by_task.get(attempt.task, 0), worker.n_done)
        return sum(by_task.values())

    def _dismiss(self, worker: _Hired) -> None:
        if worker in self._workers:
            self._workers.remove(worker)
            self._outcome.worker_s += time.monotonic() - worker.since
            # Killed, not asked: it may be in the middle of a task that is done elsewhere.
            self._ray.kill(worker.actor)

    def _why_none(self) -> str:
        reasons = list(dict.fromkeys(self._unfit.values()))
        if not reasons:
            return "All nodes are gone. Start the cluster, and run the same command again."
        return f"{counted(self._unfit, 'node')} cannot do the work, the first since: {reasons[0]}"


class _Hosted:
    """The actor: a worker on its cores, whose errors arrive as text."""

    def __init__(
        self, make_worker: Callable[[], Worker[Any, Any]], first: int, n_cpus: int
    ) -> None:
        self._make_worker = make_worker
        self._worker: Worker[Any, Any] | None = None
        _keep_to_cores(first, n_cpus)

    def prepare(self) -> tuple[str, Any]:
        try:
            self._worker = self._make_worker()
            return "", self._worker.facts()
        except FeaturepipeError as error:
            return one_line(error), None

    def do(self, task: Any) -> tuple[str, Any]:
        assert self._worker is not None
        try:
            return "", self._worker.do(task)
        except FeaturepipeError as error:
            return one_line(error), None
        except Exception as error:
            # Its class may not be one that the driver can load.
            logger.exception("A task failed")
            return f"{type(error).__name__}: {one_line(error)}", None

    def n_done(self) -> int:
        return self._worker.n_done() if self._worker is not None else 0


def _keep_to_cores(first: int, n_cpus: int) -> None:
    """Leave the other cores of the machine to its other workers."""
    try:
        cores = sorted(os.sched_getaffinity(0))
    except AttributeError:
        return
    if n_cpus < len(cores):
        own = {cores[(first + k) % len(cores)] for k in range(n_cpus)}
        os.sched_setaffinity(0, own)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
