"""A driver joins a cluster, or says why it cannot."""

import os
import platform
import signal
import subprocess
import sys
import time
from importlib import metadata

import pytest

from featurepipe.cluster.connecting import connected, require_executor
from featurepipe.errors import ClusterError, UsageError
from hidden_modules import hiding
from pictures import draw_data_set


def test_executors_are_local_and_ray():
    require_executor("local", None)
    require_executor("ray", "head:6379")
    with pytest.raises(UsageError, match=r"no executor 'dask'.*local, ray"):
        require_executor("dask", None)
    with pytest.raises(UsageError, match="--ray-address requires --executor ray"):
        require_executor("local", "head:6379")


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r"pip install 'featurepipe\[ray\]'"), connected():
        pass


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:port"])
def test_an_address_where_nothing_answers_is_named(address):
    pytest.importorskip("ray")
    expected = pytest.raises(ClusterError, match=f"No Ray cluster answers at {address}")
    with expected, connected(address):
        pass


# This process is the one that is different: the nodes run in others.
def other_featurepipe(monkeypatch):
    monkeypatch.setattr("featurepipe.__version__", "9.9.9")


def other_numpy(monkeypatch):
    version = metadata.version
    monkeypatch.setattr(
        metadata, "version", lambda name: "9.9.9" if name == "numpy" else version(name)
    )


def other_python(monkeypatch):
    monkeypatch.setattr(platform, "python_version_tuple", lambda: ("9", "9", "9"))


@pytest.mark.cluster
def test_a_node_with_another_version_is_named(cluster):
    changes = {"featurepipe": other_featurepipe, "numpy": other_numpy, "Python": other_python}
    # One connection for all: workers of another would have to start first.
    with connected(cluster.address):
        for name, change in changes.items():
            expected = (
                rf"Node .+ \(\w{{8}}\) has {name} [\d.]+, and this machine has 9\.9.* Install the "
                "same"
            )
            with (
                pytest.MonkeyPatch.context() as patch,
                pytest.raises(ClusterError, match=expected),
            ):
                change(patch)
                with connected(cluster.address, "numpy"):
                    pass


@pytest.mark.cluster
def test_a_node_without_a_library_is_named(cluster, monkeypatch):
    version = metadata.version
    monkeypatch.setattr(
        metadata, "version", lambda name: "1.0" if name == "mine" else version(name)
    )
    expected = "does not have mine, and this machine has 1.0"
    with pytest.raises(ClusterError, match=expected), connected(cluster.address, "mine"):
        pass


@pytest.mark.cluster
def test_what_sigterm_does_is_left_as_it_was(cluster):
    def terminate(*_):
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        with pytest.raises(SystemExit), connected(cluster.address):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        assert signal.getsignal(signal.SIGTERM) is terminate
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.keras
def test_one_machine_needs_no_ray(tmp_path):
    draw_data_set(tmp_path / "images", n_each=8)
    code = (
        "import sys; from featurepipe import extract, fit, train; space = sys.argv[2]; "
        "extract(sys.argv[1], backbone='hsv_histogram', workspace=space); "
        "fit(head='knn', workspace=space); "
        "train('smallervggnet', size_px=16, epochs=1, workspace=space); "
        "print('ray' in sys.modules)"
    )
    command = [sys.executable, "-c", hiding("ray") + code]
    result = subprocess.run(
        [*command, tmp_path / "images", tmp_path / "space"], capture_output=True, text=True
    )
    assert result.stdout == "False\n", result.stderr
    assert len(list((tmp_path / "space").glob("runs/*/run.json"))) == 2
