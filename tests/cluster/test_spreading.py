"""Calls in threads of this process, or in tasks on a cluster, whatever dies meanwhile."""

import hashlib
import logging
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from featurepipe.cluster.connecting import connected, require_seen
from featurepipe.cluster.spreading import Placed, call_each, spread
from featurepipe.errors import ClusterError, StoreDamagedError, UnknownNameError

logger = logging.getLogger("featurepipe.tests")


@pytest.fixture(scope="module")
def driver(cluster):
    """This process; workers do not find this module, so that its functions travel whole."""
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with connected(cluster.address):
        yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def tasks(driver):
    """Calls are tasks."""
    with spread():
        yield


def square(X, place):
    return X.flags.writeable, float(X[place]) ** 2


def test_without_a_cluster_threads_call_in_any_order_and_results_keep_that_of_the_items():
    X, done = np.arange(10.0), []
    found = call_each(square, X, [3, 1, 2], n_jobs=2, progress=lambda *step: done.append(step))
    assert list(found) == [(True, 9.0), (True, 1.0), (True, 4.0)]
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert list(call_each(square, X, [])) == []


def test_with_one_thread_a_call_waits_until_its_result_is_wanted():
    called = []

    def call(_, item):
        called.append(item)
        return item

    for item in call_each(call, None, [1, 2, 3]):
        assert called[-1] == item
    assert called == [1, 2, 3]


@pytest.mark.cluster
def test_tasks_read_one_array_and_results_keep_the_order_of_the_items(tasks):
    X, done = np.arange(200_000.0), []
    found = call_each(square, X, [3, 1, 2], progress=lambda *step: done.append(step))
    assert list(found) == [(False, 9.0), (False, 1.0), (False, 4.0)]
    assert done == [(1, 3), (2, 3), (3, 3)]


def process_of(_, item):
    return os.getpid()


def processes_of(n_inner, item):
    return os.getpid(), list(call_each(process_of, None, range(n_inner)))


@pytest.mark.cluster
def test_calls_within_a_task_are_tasks_while_there_are_fewer_than_cores(tasks):
    ((outer, inner),) = call_each(processes_of, 3, ["the only one"])
    assert outer != os.getpid() and outer not in inner
    both = list(call_each(processes_of, 3, ["one", "another"]))
    assert [inner for _, inner in both] == [[outer] * 3 for outer, _ in both]
    ((outer, inner),) = call_each(processes_of, 3, ["the only one"], nested=False)
    assert inner == [outer] * 3


def warn_and_fail(_, error_class):
    logger.warning("About to fail: %s", error_class.__name__)
    logging.getLogger("featurepipe").warning("3 of 4 done")
    if error_class is UnknownNameError:
        raise UnknownNameError("head", "kn", ["knn"])
    raise StoreDamagedError(Path("a.h5"), "it is cut")


@pytest.mark.cluster
@pytest.mark.parametrize("error_class", [UnknownNameError, StoreDamagedError])
def test_errors_and_warnings_of_a_task_are_those_of_a_call_here(tasks, caplog, error_class):
    with pytest.raises(error_class) as here:
        warn_and_fail(None, error_class)
    caplog.clear()
    with pytest.raises(error_class) as there:
        list(call_each(warn_and_fail, None, [error_class]))
    assert str(there.value) == str(here.value)
    assert caplog.messages == [f"About to fail: {error_class.__name__}"]


def die_at_first(folder, item):
    mark = folder / str(item)
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * item


def die(_, item):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.cluster
def test_a_task_whose_worker_dies_runs_again_and_is_given_up_in_the_end(tasks, tmp_path):
    assert list(call_each(die_at_first, tmp_path, [5, 6])) == [10, 12]
    with pytest.raises(ClusterError, match="A task failed 4 times, since its worker or node died"):
        list(call_each(die, None, [0]))


@pytest.mark.cluster
def test_a_task_that_ran_out_of_memory_is_begun_again_and_says_so(tasks, monkeypatch, caplog):
    ray = pytest.importorskip("ray")
    get, failed = ray.get, []

    def fail_once(reference):
        if not failed:
            failed.append(reference)
            raise ray.exceptions.OutOfMemoryError("The node ran low on memory. See the manual.")
        return get(reference)

    monkeypatch.setattr(ray, "get", fail_once)
    caplog.set_level(logging.INFO, "featurepipe")
    assert list(call_each(square, np.arange(3.0), [2])) == [(False, 4.0)]
    assert caplog.messages == [
        "A task is begun again, since its worker or node died: The node ran low on memory."
    ]


def break_down(_, item):
    return 1 / item


@pytest.mark.cluster
def test_a_defect_in_a_task_keeps_its_class_and_traceback(tasks):
    with pytest.raises(ZeroDivisionError, match="in break_down"):
        list(call_each(break_down, None, [0]))


def sum_placed(placed, item):
    return float(placed.get().sum()) + item


@pytest.mark.cluster
def test_values_are_placed_once_for_many_tasks(tasks):
    assert list(call_each(sum_placed, Placed(np.ones(5)), [1, 2])) == [6.0, 7.0]


@pytest.mark.cluster
def test_a_node_that_does_not_see_a_file_or_sees_another_is_named(tasks, tmp_path):
    seen, unseen = tmp_path / "seen", tmp_path / "unseen"
    seen.write_bytes(b"weights")
    require_seen(seen, f"the weights {seen}", hashlib.sha256(b"weights").hexdigest())
    node = r"Node .+ \(\w{8}\)"
    with pytest.raises(ClusterError, match=f"{node} does not see the weights {unseen}. Put it on"):
        require_seen(unseen, f"the weights {unseen}")
    with pytest.raises(ClusterError, match=f"{node} sees another file for the weights {seen}. Put"):
        require_seen(seen, f"the weights {seen}", hashlib.sha256(b"other").hexdigest())
