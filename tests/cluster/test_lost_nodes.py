"""A node that is lost costs nothing; a lost head is an error."""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psutil
import pytest

from featurepipe.cluster import spreading
from featurepipe.cluster.connecting import connected
from featurepipe.cluster.spreading import call_each, spread
from featurepipe.errors import ClusterError
from ray_clusters import two_nodes

pytestmark = pytest.mark.cluster


def wait_for_a_sign(folder, item):
    """Twice the item, once a file is there."""
    (folder / f"begun-{os.getpid()}").touch()
    while not (folder / "sign").exists():
        time.sleep(0.05)
    return 2 * item


def workers(folder):
    return [int(path.name.removeprefix("begun-")) for path in folder.glob("begun-*")]


def wait_until(is_so):
    deadline = time.monotonic() + 60
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.05)


@contextmanager
def meanwhile(act):
    with ThreadPoolExecutor() as pool:
        done = pool.submit(act)
        yield
    done.result()


@pytest.fixture
def nodes():
    """A cluster that may be lost."""
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    # Workers do not find this module.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with two_nodes() as nodes, connected(nodes.address), spread():
        yield nodes


def test_a_lost_node_costs_nothing_and_a_lost_head_is_an_error(nodes, tmp_path, monkeypatch):
    monkeypatch.setattr(spreading, "_POLL_S", 0.2)
    monkeypatch.setattr(spreading, "_PATIENCE_S", 1.0)
    folders = [tmp_path / "node", tmp_path / "head"]
    for folder in folders:
        folder.mkdir()

    def lose_the_node():
        wait_until(lambda: len(workers(folders[0])) == 2)
        nodes.remove_node(*nodes.worker_nodes, allow_graceful=False)
        wait_until(lambda: not all(map(psutil.pid_exists, workers(folders[0]))))
        (folders[0] / "sign").touch()

    def lose_the_head():
        wait_until(lambda: workers(folders[1]))
        nodes.head_node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)

    with meanwhile(lose_the_node):
        assert list(call_each(wait_for_a_sign, folders[0], [5, 6])) == [10, 12]
    with (
        meanwhile(lose_the_head),
        pytest.raises(ClusterError, match="The head of the Ray cluster no longer answers"),
    ):
        list(call_each(wait_for_a_sign, folders[1], [7]))
