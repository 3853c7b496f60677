"""Call a function with many items: in threads of this process, or as tasks on a Ray cluster."""

import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits

from featurepipe.cluster.connecting import head_answers, import_ray, living_nodes
from featurepipe.errors import ClusterError, FeaturepipeError
from featurepipe.words import one_line

logger = logging.getLogger(__name__)

MAX_RETRIES = 3

_MISSING_MODULE = re.compile(r"No module named '[^']*'")

_POLL_S = 2.0
# Ray itself ends the process if the head is away for 60 s.
_PATIENCE_S = 20.0

# Cores for the tasks of this process; 0: it calls in threads of its own.
_n_cores: ContextVar[int] = ContextVar("n_cores", default=0)

_Shared = TypeVar("_Shared")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Value = TypeVar("_Value")


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
    before = _n_cores.set(n_cores)
    try:
        yield
    finally:
        _n_cores.reset(before)


class Placed(Generic[_Value]):
    """A value on the cluster, for many tasks: in memory once a node, its arrays read-only.

    Parameters
    ----------
    value : object

    Raises
    ------
    ClusterError
        If the cluster has no space for it.
    """

    def __init__(self, value: _Value) -> None:
        ray = import_ray()
        try:
            self._reference = ray.put(value)
        except (ray.exceptions.ObjectStoreFullError, ray.exceptions.OutOfDiskError) as error:
            raise _without_space() from error

    def get(self) -> _Value:
        """The value."""
        return import_ray().get(self._reference)


def call_each(
    function: Callable[[_Shared, _Item], _Result],
    shared: _Shared,
    items: Sequence[_Item],
    *,
    n_jobs: int | None = 1,
    nested: bool = True,
    whole_nodes: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Iterator[_Result]:
    """Call a function with each item, side by side.

    Within `spread`, a call is a task with one core and one thread of BLAS, on any node. If a worker
    dies, its task runs again elsewhere.

    Parameters
    ----------
    function : callable
        Of `shared` and an item; the result must not depend on where it runs.
    shared : object
        On a cluster, a task sees it as a `Placed` value.
    items : sequence
    n_jobs : int or None
        Threads of this process, where no cluster is used; -1: one a processor core.
    nested : bool
        On a cluster, whether calls that a call makes are tasks too, while there are fewer tasks
        than cores.
    whole_nodes : bool
        On a cluster, whether a call has a GPU, or else as many cores as the smallest node, and all
        its threads; its own calls are no tasks.
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
        If the worker of a task died each time, or the cluster is gone or has no space left.
    """
    if _n_cores.get() and items:
        done = _as_tasks(function, shared, items, nested=nested, whole_nodes=whole_nodes)
    else:
        # SGD and BLAS release the interpreter's lock, so threads can share the features.
        done = Parallel(n_jobs=n_jobs, backend="threading", return_as="generator_unordered")(
            delayed(_call_numbered)(function, shared, number, item)
            for number, item in enumerate(items)
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
    # Its class and arguments: an error's constructor may take others than the text.
    error: tuple[type[FeaturepipeError], tuple[Any, ...]] | None
    log: list[tuple[str, int, str]]


def _as_tasks(
    function: Callable[[_Shared, _Item], _Result],
    shared: _Shared,
    items: Sequence[_Item],
    *,
    nested: bool,
    whole_nodes: bool,
) -> Iterator[tuple[int, _Result]]:
    """Call a function in tasks; the number and the result of each that is done."""
    ray = import_ray()
    n_inner = -(-_n_cores.get() // len(items)) - 1 if nested and not whole_nodes else 0
    needs = _whole_node() if whole_nodes else {"num_cpus": 1}
    # Ray itself begins tasks that ran out of memory again without end, and says nothing.
    task = ray.remote(max_retries=0)(_do)
    sent = Placed((function, shared))
    level = logging.getLogger("featurepipe").getEffectiveLevel()
    arguments = n_inner, None if whole_nodes else 1, level

    def begin(number: int, needs: dict[str, int]) -> Any:
        options = {"name": function.__name__, **needs}
        return task.options(**options).remote(sent, items[number], *arguments)

    numbers = {begin(number, needs): number for number in range(len(items))}
    n_lost = Counter[int]()
    try:
        while numbers:
            reference = _first_done(ray, list(numbers))
            number = numbers.pop(reference)
            try:
                result = _result_of(ray, reference)
            except _LostError as error:
                n_lost[number] += 1
                if n_lost[number] > MAX_RETRIES:
                    raise ClusterError(
                        f"A task failed {n_lost[number]} times, since its worker or node died: "
                        f"{error}. See the memory of the nodes (ray status, ray memory), and run "
                        "the same command again."
                    ) from error
                logger.info("A task is begun again, since its worker or node died: %s.", error)
                numbers[begin(number, _alone(needs) if error.is_out_of_memory else needs)] = number
            else:
                yield number, result
    finally:
        for reference in numbers:
            ray.cancel(reference, force=True)


def _first_done(ray: Any, references: list[Any]) -> Any:
    """Wait for one of some tasks, as long as the head answers."""
    answered = time.monotonic()
    while not (done := ray.wait(references, num_returns=1, timeout=_POLL_S)[0]):
        if head_answers():
            answered = time.monotonic()
        elif time.monotonic() - answered > _PATIENCE_S:
            raise ClusterError(
                "The head of the Ray cluster no longer answers. Start the cluster again, and run "
                "the same command again."
            )
    return done[0]


class _LostError(Exception):
    """The worker or node of a task died."""

    def __init__(self, reason: str, is_out_of_memory: bool) -> None:
        super().__init__(reason)
        self.is_out_of_memory = is_out_of_memory


def _alone(needs: dict[str, int]) -> dict[str, int]:
    """What a task needs so that no other is beside it on a node."""
    return needs | {"num_cpus": max(node.n_cpus for node in living_nodes())}


def _whole_node() -> dict[str, int]:
    """What a task needs so that it has a GPU, or else the cores of a node."""
    nodes = [node for node in living_nodes() if node.n_cpus]
    with_gpus = [node for node in nodes if node.n_gpus]
    if with_gpus:
        n_cpus = min(node.n_cpus // node.n_gpus for node in with_gpus)
        return {"num_cpus": max(1, n_cpus), "num_gpus": 1}
    return {"num_cpus": min(node.n_cpus for node in nodes)}


def _do(
    sent: Placed[tuple[Callable[[Any, Any], Any], Any]],
    item: Any,
    n_cores: int,
    n_threads: int | None,
    level: int,
) -> _Answer:
    """The task: errors and what is logged are part of the answer."""
    function, shared = sent.get()
    _n_cores.set(n_cores)
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
    except (ray.exceptions.ObjectStoreFullError, ray.exceptions.OutOfDiskError) as error:
        raise _without_space() from error
    except ray.exceptions.RayTaskError as error:
        if missing := _MISSING_MODULE.search(str(error)):
            raise ClusterError(
                f"A node cannot load what is sent to it: {missing[0]}. Install that module on all "
                "nodes."
            ) from error
        # Any other error in the code of the task, with its traceback.
        raise
    except ray.exceptions.RayError as error:
        is_out_of_memory = isinstance(error, ray.exceptions.OutOfMemoryError)
        reason = one_line(error).partition(". ")[0]
        raise _LostError(reason, is_out_of_memory) from error
    for name, level, message in answer.log:
        logging.getLogger(name).log(level, "%s", message)
    if answer.error is not None:
        kind, arguments = answer.error
        raise kind.__new__(kind, *arguments)
    return answer.result


def _without_space() -> ClusterError:
    return ClusterError(
        "The Ray cluster has no space left: its object store, and the disk that it spills to, are "
        "full (see: ray memory). Start it with a larger --object-store-memory, or set a bound with "
        "fit --memory, which puts no features there."
    )
