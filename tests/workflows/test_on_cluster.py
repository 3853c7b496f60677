"""Fits and trainings on a cluster of two nodes are those of one machine, to the byte."""

import json
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event
from zipfile import ZipFile

import psutil
import pytest

import featurepipe
from command_line import fail
from featurepipe.cluster.connecting import connected
from featurepipe.errors import ClusterError
from featurepipe.models.networks.starting_point import find_starting_points
from featurepipe.workflows import train as workflow
from own_classifiers import NearestMean
from pictures import draw_data_set
from refusals import content

NOT_RESULTS = {"costs", "files"}


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    """A workspace with features and neither splits nor runs."""
    root = tmp_path_factory.mktemp("extracted")
    draw_data_set(root / "images", n_each=8)
    featurepipe.extract(
        root / "images", attributes=["color", "kind"], backbone="hsv_histogram", workspace=root
    )
    return root


@pytest.fixture(scope="module")
def on_cluster(cluster):
    """Options; the connection stays, and with it the workers, which take seconds to start."""
    with connected(cluster.address):
        yield {"executor": "ray", "ray_address": cluster.address}


@pytest.fixture
def two_workspaces(extracted, tmp_path):
    """Equal workspaces: one for this machine, one for the cluster."""
    return [shutil.copytree(extracted, tmp_path / name) for name in ("here", "there")]


def contents(root, *, but=()):
    """The files of splits and runs by path: `run.json` without costs, others as bytes."""
    found = {}
    for path in sorted([*root.glob("splits/*.json"), *root.glob("runs/*/*")]):
        if path.name == "run.json":
            info = json.loads(path.read_text())
            files = {name: info["files"][name] for name in info["files"].keys() - set(but)}
            info = {name: value for name, value in info.items() if name not in NOT_RESULTS}
            found[path.relative_to(root)] = info | {"files": files}
        elif path.name not in but:
            found[path.relative_to(root)] = path.read_bytes()
    return found


COMMANDS = pytest.mark.parametrize("command", [["fit"], ["train", "smallervggnet"]], ids=" ".join)


def refusal(capsys, home, *command):
    """The line that refuses a command, before anything is written."""
    before = content(home)
    line = fail(capsys, *command, "--workspace", home, "--executor", "ray")
    assert content(home) == before
    return line


@COMMANDS
def test_without_ray_a_command_says_what_to_install(extracted, capsys, monkeypatch, command):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert refusal(capsys, extracted, *command) == (
        "featurepipe: --executor ray needs Ray, which is not installed. "
        "Run: pip install 'featurepipe[ray]'"
    )


@COMMANDS
def test_an_address_where_nothing_answers_is_named(extracted, capsys, monkeypatch, command):
    ray = pytest.importorskip("ray")
    # Tests before may have left a connection, which would be taken.
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    line = refusal(capsys, extracted, *command, "--ray-address", "127.0.0.1:1")
    assert "No Ray cluster answers at 127.0.0.1:1" in line


@pytest.mark.cluster
@COMMANDS
def test_a_node_that_does_not_see_the_workspace_is_named(
    cluster, extracted, capsys, monkeypatch, command
):
    # As if the folder of this path were another one there.
    monkeypatch.setattr(Path, "touch", lambda self: None)
    line = refusal(capsys, extracted, *command, "--ray-address", cluster.address)
    assert re.search(rf"Node .* does not see the workspace {extracted}\. Put it on storage", line)


@pytest.mark.cluster
@pytest.mark.keras
def test_a_node_that_does_not_see_the_weights_is_named(
    cluster, extracted, capsys, monkeypatch, tmp_path
):
    weights = tmp_path / "mine.h5"
    weights.write_bytes(b"weights")

    def find_and_lose(*arguments, **options):
        starts = find_starting_points(*arguments, **options)
        weights.unlink()
        return starts

    monkeypatch.setattr(workflow, "find_starting_points", find_and_lose)
    command = ["train", "finetune", "--backbone", "mobilenet_v2", "--weights", weights]
    line = refusal(capsys, extracted, *command, "--ray-address", cluster.address)
    assert re.search(rf"Node .* does not see the weights {weights}\. Put it on storage", line)


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("options", "n_runs"),
    [
        ({"repeats": 2}, 2),
        ({"task": "multi-label", "thresholds": "f1"}, 1),
        ({"hold_out": ["red_plain"], "head": "logistic", "curve": "combinations"}, 1),
    ],
    ids=["per attribute", "multi-label", "held out"],
)
def test_a_fit_on_a_cluster_gives_the_same_bytes(on_cluster, two_workspaces, options, n_runs):
    here, there = two_workspaces
    table = featurepipe.fit(workspace=here, **options)
    again = featurepipe.fit(workspace=there, **on_cluster, **options)
    assert again.drop(columns="fit_s").equals(table.drop(columns="fit_s"))
    assert len(list(there.glob("runs/*/heads.skops"))) == n_runs
    assert contents(there) == contents(here)
    assert not list(there.glob(".token-*"))


def kill_a_worker(doing, ended):
    """Kill the first process of this machine that does a task of this name."""
    while not ended.wait(0.01):
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if process.cmdline()[:1] == [f"ray::{doing}"]:
                    process.kill()
                    return process.pid
    return None


@pytest.mark.cluster
@pytest.mark.parametrize("task", ["_fit_run", "_fit_job"])
def test_a_fit_whose_worker_is_killed_gives_the_same_bytes(on_cluster, two_workspaces, task):
    here, there = two_workspaces
    options = {"head": "bagged-sgd", "solver": "sklearn"}
    featurepipe.fit(workspace=here, **options)
    ended = Event()
    with ThreadPoolExecutor() as pool:
        killed = pool.submit(kill_a_worker, task, ended)
        try:
            featurepipe.fit(workspace=there, **on_cluster, **options)
        finally:
            ended.set()
    assert killed.result() is not None
    assert contents(there) == contents(here)


@pytest.mark.cluster
@pytest.mark.keras
def test_a_training_on_a_cluster_gives_the_same_network(on_cluster, two_workspaces):
    here, there = two_workspaces
    options = {"size_px": 16, "batch_size": 16, "epochs": 1, "augment": False, "repeats": 2}
    featurepipe.train("smallervggnet", workspace=here, **options)
    table = featurepipe.train("smallervggnet", workspace=there, **options, **on_cluster)
    assert table["run"].unique().tolist() == ["smallervggnet", "smallervggnet-2"]
    # They hold when it was trained, and how long that took.
    times = ("network.keras", "history.csv", "training.png", "training.svg")
    assert contents(there, but=times) == contents(here, but=times)
    for name in table["run"].unique():
        weights = [
            ZipFile(root / "runs" / name / "network.keras").read("model.weights.h5")
            for root in two_workspaces
        ]
        assert weights[0] == weights[1]
    assert not list(there.glob("runs/.*"))
    # Complete runs stay as they are.
    before = (there / "runs/smallervggnet/run.json").stat().st_mtime_ns
    featurepipe.train("smallervggnet", workspace=there, **options, **on_cluster)
    assert (there / "runs/smallervggnet/run.json").stat().st_mtime_ns == before


@pytest.mark.cluster
def test_a_head_whose_module_a_node_lacks_is_an_error(on_cluster, two_workspaces):
    root, _ = two_workspaces
    head, trusted = NearestMean(), ["own_classifiers.NearestMean"]
    with pytest.raises(ClusterError, match=r"No module named 'own_classifiers'\. Install"):
        featurepipe.fit(head=head, trusted=trusted, workspace=root, **on_cluster)
    assert not (root / "runs").exists()
