"""Call a function with many items: in threads of this process, or as tasks on a Ray cluster."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits

from featurepipe.cluster.connecting import import_ray, living_nodes
from featurepipe.errors import ClusterError, FeaturepipeError
from featurepipe.words import one_line

MAX_RETRIES = 3

# Cores of the cluster that calls may use; 1: only this process.
_cores: ContextVar[int] = ContextVar("cores", default=1)

_Shared = TypeVar("_Shared")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@contextmanager
def spread() -> Iterator[None]:
    """Let `call_each` use the cluster that this process is connected to.

    Raises
    ------
    ClusterError
        If the cluster has no core.
    """
    n_cores = sum(node.n_cpus for node in living_nodes())
    if not n_cores:
        raise ClusterError("The Ray cluster has no node with a core. See: ray status")
    # A single core of the cluster is not this process either.
    before = _cores.set(max(2, n_cores))
    try:
        yield
    finally:
        _cores.reset(before)


def call_each(
    function: Callable[[_Shared, _Item], _Result],
    shared: _Shared,
    items: Sequence[_Item],
    *,
    n_jobs: int | None = 1,
    whole_nodes: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Iterator[_Result]:
    """Call a function with each item, side by side.

    Within `spread`, a call is a task with one core and one thread of BLAS, on any node. Its own
    calls of this function are tasks too, as long as there are fewer tasks than cores. `shared` is
    in memory once a node, its arrays read-only. If a worker dies, its task runs again elsewhere.

    Parameters
    ----------
    function : callable
        Of `shared` and an item; the result must not depend on where it runs.
    shared : object
    items : sequence
    n_jobs : int or None
        Threads of this process, where no cluster is used; -1: one a processor core.
    whole_nodes : bool
        On a cluster, whether a call has a GPU, or else as many cores as the smallest node.
    progress : callable, optional
        Called with the number of calls done and of all calls.

    Yields
    ------
    object
        What the function returned, in the order of the items, each as soon as it and those before
        it are there.

    Raises
    ------
    ClusterError
        If the worker of a task died each time.
    """
    if _cores.get() > 1 and items:
        done = _as_tasks(function, shared, items, whole_nodes=whole_nodes)
    else:
        numbered = (
            delayed(_call_numbered)(function, shared, number, item)
            for number, item in enumerate(items)
        )
        # SGD and BLAS release the interpreter's lock, so threads can share the features.
        done = Parallel(n_jobs=n_jobs, backend="threading", return_as="generator_unordered")(
            numbered
        )
    waiting: dict[int, _Result] = {}
    n_yielded = 0
    for n_done, (number, result) in enumerate(done, start=1):
        if progress is not None:
            progress(n_done, len(items))
        waiting[number] = result
        while n_yielded in waiting:
            yield waiting.pop(n_yielded)
            n_yielded += 1


def _call_numbered(
    function: Callable[[_Shared, _Item], _Result], shared: _Shared, number: int, item: _Item
) -> tuple[int, _Result]:
    return number, function(shared, item)


@dataclass(frozen=True)
class _Answer:
    """What a task sends: a result or an error, and what was logged."""

    result: Any
    error: tuple[type[FeaturepipeError], tuple[Any, ...]] | None
    log: list[tuple[str, int, str]]


def _as_tasks(
    function: Callable[[_Shared, _Item], _Result],
    shared: _Shared,
    items: Sequence[_Item],
    *,
    whole_nodes: bool,
) -> Iterator[tuple[int, _Result]]:
    """Call a function in tasks; the number and the result of each that is done."""
    ray = import_ray()
    needs = _whole_node() if whole_nodes else {"num_cpus": 1}
    n_cores = 1 if whole_nodes else -(-_cores.get() // len(items))
    level = logging.getLogger("featurepipe").getEffectiveLevel()
    task = _remote_do().options(**needs, max_retries=MAX_RETRIES)
    sent = ray.put((function, shared))
    numbers = {
        task.remote(sent, item, n_cores, level, None if whole_nodes else 1): number
        for number, item in enumerate(items)
    }
    try:
        while numbers:
            (reference,), _ = ray.wait(list(numbers), num_returns=1)
            number = numbers.pop(reference)
            yield number, _result_of(ray, reference)
    finally:
        for reference in numbers:
            ray.cancel(reference, force=True)


def _whole_node() -> dict[str, int]:
    """What a task needs so that it has a GPU, or else the cores of a node."""
    nodes = [node for node in living_nodes() if node.n_cpus]
    with_gpus = [node for node in nodes if node.n_gpus]
    if with_gpus:
        n_cpus = min(node.n_cpus // node.n_gpus for node in with_gpus)
        return {"num_cpus": max(1, n_cpus), "num_gpus": 1}
    return {"num_cpus": min(node.n_cpus for node in nodes)}


@cache
def _remote_do() -> Any:
    return import_ray().remote(_do)


def _do(
    sent: tuple[Callable[[Any, Any], Any], Any],
    item: Any,
    n_cores: int,
    level: int,
    n_threads: int | None,
) -> _Answer:
    """The task: errors and what is logged are part of the answer."""
    function, shared = sent
    _cores.set(n_cores)
    logger, notes = logging.getLogger("featurepipe"), _Notes()
    logger.setLevel(level)
    logger.addHandler(notes)
    result, error = None, None
    try:
        with threadpool_limits(limits=n_threads):
            result = function(shared, item)
    except FeaturepipeError as raised:
        error = type(raised), raised.args
    finally:
        logger.removeHandler(notes)
    return _Answer(result, error, notes.lines)


class _Notes(logging.Handler):
    """Keeps what is logged, apart from lines on progress: these would come too late."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name != "featurepipe":
            self.lines.append((record.name, record.levelno, record.getMessage()))


def _result_of(ray: Any, reference: Any) -> Any:
    """The result of a task; what it logged is logged here, and its error is raised."""
    try:
        answer = ray.get(reference)
    except ray.exceptions.RayTaskError:
        # An error in the code of the task, with its traceback.
        raise
    except ray.exceptions.RayError as error:
        raise ClusterError(
            f"A task failed {MAX_RETRIES + 1} times, since its worker or node died "
            f"({one_line(error)[:300]}). See the memory of the nodes (ray status, ray memory), and "
            "run the same command again."
        ) from error
    for name, level, message in answer.log:
        logging.getLogger(name).log(level, "%s", message)
    if answer.error is not None:
        kind, arguments = answer.error
        # Without its constructor, which may take other arguments than the text.
        raise kind.__new__(kind, *arguments)
    return answer.result
