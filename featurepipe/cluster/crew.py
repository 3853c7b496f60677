"""A crew: workers on the nodes of a Ray cluster that take tasks from one queue.

A worker that dies loses the task that it had: another does it. Nodes that join are given workers.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Generic, Protocol, Self, TypeVar

from featurepipe.cluster.connecting import Node, import_ray, living_nodes, on_node
from featurepipe.cluster.hosted import HostedWorker, Worker
from featurepipe.cluster.task_queue import Attempt, Outcome, TaskQueue
from featurepipe.errors import ClusterError
from featurepipe.words import counted, one_line

logger = logging.getLogger(__name__)

_POLL_S = 0.5
_SECONDS_BETWEEN_HIRES = 5.0
# How long a cluster may have no worker at all, since nodes may be on their way, and how long
# workers may load before that is said.
_PATIENCE_S = 60.0


class Task(Protocol):
    """What a crew needs to know of a task."""

    @property
    def title(self) -> str:
        """How messages name it, such as ``"Shard 12"``."""

    @property
    def size(self) -> int:
        """How much work it is; 0 if that is not known."""


_Task = TypeVar("_Task", bound=Task)
_Receipt = TypeVar("_Receipt")


@dataclass(eq=False)
class _Hired:
    """A worker of the crew, as the driver sees it."""

    node: Node
    actor: Any
    # Its place among the workers of its machine.
    place: int
    # References to what it answers when it is made, and when it is asked how far it is.
    ready: Any
    asked: Any = None
    is_prepared: bool = False
    is_busy: bool = False
    n_done: int = 0


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
        self._running: dict[Any, tuple[Attempt, _Hired]] = {}
        self._hired_last = 0.0
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
            raise ClusterError("The Ray cluster has no node with a core. See: ray status")
        for worker in list(self._workers):
            if not self._ray.wait([worker.ready], timeout=_PATIENCE_S)[0]:
                logger.warning(
                    "Waiting for node %s: its worker is still loading, or other work has its "
                    "cores (see: ray status).",
                    worker.node.title,
                )
            if reason := self._prepared(worker):
                raise ClusterError(f"Node {worker.node.title} cannot do the work: {reason}")

    def work(
        self,
        tasks: Sequence[_Task],
        finished: Callable[[int, Node, _Receipt], None],
        progress: Callable[[int, Outcome, int], None],
    ) -> Outcome:
        """Do tasks, in their order as far as possible.

        Parameters
        ----------
        tasks : sequence
        finished : callable
            Called with the number of a task, the node and the receipt, once a task.
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
        queue = TaskQueue([task.title for task in tasks], [task.size for task in tasks])
        last_worker = time.monotonic()
        while queue.open:
            self._hire()
            self._look_at_new()
            if self._workers:
                last_worker = time.monotonic()
            elif time.monotonic() - last_worker > _PATIENCE_S:
                raise ClusterError(f"No worker is left. {self._why_none()}")
            queue.outcome.n_workers = max(queue.outcome.n_workers, len(self._workers))
            self._give(queue, tasks)
            if not self._running:
                time.sleep(_POLL_S / 10)
                continue
            self._ray.wait(list(self._running), timeout=_POLL_S)
            # There may be more than the one that ended the wait.
            ready, _ = self._ray.wait(
                list(self._running), num_returns=len(self._running), timeout=0
            )
            for reference in ready:
                self._land(reference, queue, finished)
            progress(self._n_in_progress(queue), queue.outcome, len(self._workers))
        return queue.outcome

    def _give(self, queue: TaskQueue, tasks: Sequence[_Task]) -> None:
        """Give idle workers a task each."""
        for worker in self._workers:
            if worker.is_busy or not worker.is_prepared:
                continue
            attempt = queue.begin(worker.node.title, time.monotonic())
            if attempt is None:
                return
            worker.is_busy, worker.n_done = True, 0
            reference = worker.actor.do.remote(tasks[attempt.task])
            self._running[reference] = attempt, worker

    def _land(
        self, reference: Any, queue: TaskQueue, finished: Callable[[int, Node, _Receipt], None]
    ) -> None:
        """Take the receipt of an attempt, or the reason why there is none."""
        attempt, worker = self._running.pop(reference)
        node = worker.node
        try:
            reason, receipt = self._ray.get(reference)
        except Exception as error:
            # The worker's own errors arrive as reasons: this is the end of its process.
            self._dismiss(worker)
            queue.fail(attempt, f"its worker on node {node.title} died ({_last_line(error)})")
            return
        worker.is_busy = False
        if reason:
            queue.fail(attempt, f"{reason.rstrip('.')} (node {node.title})")
        elif queue.finish(attempt, time.monotonic()):
            finished(attempt.task, node, receipt)

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
        actors = self._ray.remote(num_cpus=n_cpus, max_concurrency=2, max_restarts=0)(HostedWorker)
        gpus = {"num_gpus": self._gpus_per_worker} if node.n_gpus else {}
        taken = {other.place for other in self._workers if other.node.host == node.host}
        place = next(place for place in count() if place not in taken)
        actor = actors.options(**on_node(node), **gpus).remote(
            self._make_worker, place * n_cpus, n_cpus
        )
        self._workers.append(_Hired(node, actor, place, actor.prepare.remote()))

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
            reason, facts = _last_line(error), None
        reason = reason or self._accept(worker.node, facts)
        worker.is_prepared = not reason
        if reason:
            # A process that dies is replaced; what a node lacks, it will lack again.
            self._unfit[worker.node.node_id] = reason
            self._dismiss(worker)
        return reason

    def _n_in_progress(self, queue: TaskQueue) -> int:
        """Units that are done in unfinished tasks; a task in several places counts once."""
        by_task: dict[int, int] = {}
        for attempt, worker in self._running.values():
            self._ask(worker)
            if attempt.task in queue.open:
                by_task[attempt.task] = max(by_task.get(attempt.task, 0), worker.n_done)
        return sum(by_task.values())

    def _ask(self, worker: _Hired) -> None:
        """Take a worker's answer how far it is, and ask again."""
        if worker.asked is not None and self._ray.wait([worker.asked], timeout=0)[0]:
            try:
                worker.n_done = self._ray.get(worker.asked)
            except Exception:
                # It died, which its task will tell.
                logger.debug("The worker on node %s does not answer", worker.node.title)
            worker.asked = None
        if worker.asked is None:
            worker.asked = worker.actor.n_done.remote()

    def _dismiss(self, worker: _Hired) -> None:
        self._workers.remove(worker)
        # Killed, not asked: it may be in the middle of a task that is done elsewhere.
        self._ray.kill(worker.actor)

    def _why_none(self) -> str:
        reasons = list(self._unfit.values())
        if not reasons:
            return "All nodes are gone. Start the cluster, and run the same command again."
        return f"{counted(reasons, 'node')} cannot do the work, the first since: {reasons[0]}"


def _last_line(error: BaseException) -> str:
    """Ray's errors are whole tracebacks, which end in the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else one_line(error)
