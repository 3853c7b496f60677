"""One worker in this process, for the same work without a cluster."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from featurepipe.cluster.connecting import Node
from featurepipe.cluster.hosted import Worker
from featurepipe.cluster.task_queue import Outcome
from featurepipe.errors import ClusterError, FeaturepipeError
from featurepipe.words import one_line

HERE = Node("here", "this machine", 1, 0)

_Task = TypeVar("_Task")
_Receipt = TypeVar("_Receipt")


class Alone(Generic[_Task, _Receipt]):
    """Does what a `featurepipe.cluster.crew.Crew` does, one task after another.

    Parameters
    ----------
    make_worker, accept
        As in `Crew`.
    """

    def __init__(
        self,
        make_worker: Callable[[], Worker[_Task, _Receipt]],
        accept: Callable[[Node, Any], str],
    ) -> None:
        self._make_worker, self._accept = make_worker, accept
        self._worker: Worker[_Task, _Receipt] | None = None

    def prepare(self) -> None:
        """Make the worker.

        Raises
        ------
        ClusterError
            If it is not accepted.
        FeaturepipeError
            If it cannot be made.
        """
        self._worker = self._make_worker()
        if reason := self._accept(HERE, self._worker.facts()):
            raise ClusterError(f"This machine cannot do the work: {reason}")

    def work(
        self,
        tasks: Sequence[_Task],
        finished: Callable[[int, Node, _Receipt], None],
        progress: Callable[[int, Outcome, int], None],
    ) -> Outcome:
        """Do tasks; see `Crew.work`."""
        assert self._worker is not None
        outcome = Outcome(n_workers=1)
        for number, task in enumerate(tasks):
            try:
                receipt = self._worker.do(task)
            except FeaturepipeError as error:
                outcome.failed[number] = one_line(error)
            else:
                finished(number, HERE, receipt)
            progress(0, outcome, 1)
        return outcome
