"""What runs on a node: a worker on its cores, whose errors arrive as text."""

import logging
import os
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from featurepipe.errors import FeaturepipeError
from featurepipe.words import one_line

logger = logging.getLogger(__name__)

Task = TypeVar("Task", contravariant=True)
Receipt = TypeVar("Receipt", covariant=True)


class Worker(Protocol[Task, Receipt]):
    """What does tasks on a node; made there, once."""

    def facts(self) -> Any:
        """What it tells before it is given a task."""

    def do(self, task: Task) -> Receipt:
        """Do a task; the receipt is some bytes.

        Raises
        ------
        FeaturepipeError
            If it fails.
        """

    def n_done(self) -> int:
        """Units of the task in progress that are done."""


class HostedWorker:
    """The class of the actors. Each method that may fail returns a reason, then its result.

    Parameters
    ----------
    make_worker : callable
    first, n_cpus : int
        Which of the machine's cores it uses, and how many.
    """

    def __init__(
        self, make_worker: Callable[[], Worker[Any, Any]], first: int, n_cpus: int
    ) -> None:
        self._make_worker = make_worker
        self._worker: Worker[Any, Any] | None = None
        _keep_to_cores(first, n_cpus)

    def prepare(self) -> tuple[str, Any]:
        """Make the worker; its facts."""
        return _with_reason(self._make)

    def _make(self) -> Any:
        self._worker = self._make_worker()
        return self._worker.facts()

    def do(self, task: Any) -> tuple[str, Any]:
        """Do a task; its receipt."""
        assert self._worker is not None
        worker = self._worker
        return _with_reason(lambda: worker.do(task))

    def n_done(self) -> int:
        """Units of the task in progress that are done."""
        return self._worker.n_done() if self._worker is not None else 0


def _with_reason(work: Callable[[], Any]) -> tuple[str, Any]:
    try:
        return "", work()
    except FeaturepipeError as error:
        return one_line(error), None
    except Exception as error:
        # Its class may not be one that the driver can load.
        logger.exception("A worker failed")
        return f"{type(error).__name__}: {one_line(error)}", None


def _keep_to_cores(first: int, n_cpus: int) -> None:
    """Leave the other cores of the machine to its other workers."""
    try:
        cores = sorted(os.sched_getaffinity(0))
    except AttributeError:
        return
    if n_cpus < len(cores):
        os.sched_setaffinity(0, {cores[(first + k) % len(cores)] for k in range(n_cpus)})
