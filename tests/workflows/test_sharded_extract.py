"""A cluster of two nodes makes the features that one machine makes, whatever dies meanwhile."""

import logging
import os
import shutil
import signal

import numpy as np
import psutil
import pytest

from command_line import fail, succeed
from featurepipe import FeatureStore, extract
from featurepipe.cluster.connecting import connected, living_nodes
from featurepipe.errors import ClusterError, DiskFullError, ExtractionError, UsageError
from featurepipe.features.extraction import shard_worker
from featurepipe.features.store.shards import read_shards
from featurepipe.workflows import sharded_extract
from pictures import draw_data_set
from ray_clusters import two_nodes

pytestmark = pytest.mark.cluster

N_IMAGES, SHARD_SIZE = 80, 8
STORE = "features/hsv_histogram-none-128-avg-rgb"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images") / "data"
    draw_data_set(folder)
    return folder


@pytest.fixture(scope="module")
def local(images, tmp_path_factory):
    """The store that this process alone makes."""
    space = tmp_path_factory.mktemp("local")
    (done,) = extract(images, backbone="hsv_histogram", workspace=space)
    return done.store


def on_cluster(images, space, cluster, **options):
    return extract(
        images,
        backbone="hsv_histogram",
        workspace=space,
        executor="ray",
        ray_address=cluster.address,
        shard_size=SHARD_SIZE,
        **options,
    )


def assert_same_rows(folder, local):
    with FeatureStore.open(folder) as shards, FeatureStore.open(local) as store:
        assert len(shards) == N_IMAGES
        np.testing.assert_array_equal(shards.status, 1)
        rows = [list(shards.ids).index(image_id) for image_id in store.ids]
        every = np.arange(N_IMAGES)
        np.testing.assert_array_equal(shards.digests[rows], store.digests)
        np.testing.assert_allclose(shards.features(np.array(rows)), store.features(every), 0, 1e-6)


def workers():
    """The processes of workers on all nodes of this machine."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if "HostedWorker" in " ".join(process.info["cmdline"] or [])
    ]


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.h5")}


def test_workers_make_what_one_process_makes_and_a_resume_makes_nothing(
    images, local, cluster, tmp_path, caplog
):
    events = []
    caplog.set_level(logging.INFO, "featurepipe")
    (done,) = on_cluster(images, tmp_path, cluster, on_event=events.append, price_per_hour=3.6)
    assert (done.n_images, done.n_embedded, done.refused) == (N_IMAGES, N_IMAGES, {})
    assert done.store.name.endswith(".shards")
    assert_same_rows(done.store, local)
    _, shards = read_shards(done.store)
    assert [shard.n_rows for shard in shards] == [SHARD_SIZE] * 10
    assert [event["event"] for event in events] == ["planned", *["shard"] * 10, "summary"]
    summary = events[-1]
    assert (summary["workers"], summary["failed"]) == (2, 0)
    # A worker costs 0.001 a second.
    cost = 0.001 * summary["workers"] * summary["seconds"] / N_IMAGES * 1e6
    assert summary["cost_per_million_images"] == pytest.approx(cost)
    assert {event["node"] for event in events[1:-1]} <= {
        f"{node.host} ({node.node_id[:8]})" for node in nodes_of(cluster)
    }
    # Nothing else is left in the folder.
    assert {path.name for path in done.store.iterdir()} - {".lock"} == {
        "shards.json",
        *(shard.file for shard in shards),
    }

    before = times(done.store)
    (again,) = on_cluster(images, tmp_path, cluster)
    assert (again.n_embedded, again.n_unchanged) == (0, N_IMAGES)
    assert times(done.store) == before


def nodes_of(cluster):
    with connected(cluster.address):
        return living_nodes()


def test_a_worker_that_is_killed_costs_no_row(images, local, cluster, tmp_path):
    killed = []

    def kill_one(event):
        if event["event"] == "shard" and not killed:
            killed.append(workers()[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    (done,) = on_cluster(images, tmp_path, cluster, on_event=kill_one)
    assert len(killed) == 1
    assert_same_rows(done.store, local)


def test_a_node_that_is_lost_costs_no_row(images, local, tmp_path):
    lost = []
    with two_nodes() as nodes:

        def lose_one(event):
            if event["event"] == "shard" and not lost:
                (other,) = nodes.worker_nodes
                nodes.remove_node(other, allow_graceful=False)
                lost.append(other)

        (done,) = on_cluster(images, tmp_path, nodes, on_event=lose_one)
    assert len(lost) == 1
    assert_same_rows(done.store, local)


def test_after_a_lost_head_another_cluster_goes_on(images, local, cluster, tmp_path):
    class HeadLostError(Exception):
        pass

    made = []

    def lose_the_head(event):
        made.append(event["event"])
        if made.count("shard") == 3:
            raise HeadLostError

    with pytest.raises(HeadLostError):
        on_cluster(images, tmp_path, cluster, on_event=lose_the_head)
    folder = tmp_path / f"{STORE}.shards"
    before = times(folder)
    _, shards = read_shards(folder)
    assert len(shards) == 3
    (done,) = on_cluster(images, tmp_path, cluster)
    assert (done.n_embedded, done.n_unchanged) == (N_IMAGES - 3 * SHARD_SIZE, 3 * SHARD_SIZE)
    kept = [shard.file for shard in shards]
    assert {name: times(done.store)[name] for name in kept} == {n: before[n] for n in kept}
    assert_same_rows(done.store, local)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda path: path.unlink(), "it is missing"),
        (lambda path: path.rename(path.with_name("moved.h5")), "it is missing"),
        (cut, "bytes, not"),
    ],
    ids=["deleted", "moved", "truncated"],
)
def test_the_next_extract_makes_just_the_harmed_shard_again_without_a_cluster(
    images, local, made, tmp_path, caplog, harm, reason
):
    folder = made(tmp_path)
    _, shards = read_shards(folder)
    before = times(folder)
    harm(folder / shards[4].file)
    caplog.set_level(logging.WARNING, "featurepipe")
    (done,) = extract(workspace=tmp_path)
    assert shards[4].file in caplog.text and reason in caplog.text
    assert (done.n_embedded, done.n_unchanged) == (SHARD_SIZE, N_IMAGES - SHARD_SIZE)
    others = [shard.file for shard in shards if shard is not shards[4]]
    assert {name: times(folder)[name] for name in others} == {n: before[n] for n in others}
    assert_same_rows(folder, local)


@pytest.fixture(scope="module")
def made(images, cluster, tmp_path_factory):
    """Copies a workspace with a store of shards to a folder."""
    space = tmp_path_factory.mktemp("made")
    on_cluster(images, space, cluster)

    def copy(target):
        shutil.copytree(space, target, dirs_exist_ok=True)
        return target / f"{STORE}.shards"

    return copy


def test_a_store_of_shards_is_fitted_described_and_packed(made, local, tmp_path, capsys):
    folder = made(tmp_path)
    at = "--workspace", tmp_path
    facts = succeed(capsys, "info", folder, "--json", *at)
    assert f'"bytes": {sum(s.n_bytes for s in read_shards(folder)[1])}' in facts
    succeed(capsys, "fit", *at)
    succeed(capsys, "export", folder, tmp_path / "packed.h5", *at)
    assert_same_rows(tmp_path / "packed.h5", local)


def test_a_changed_image_changes_its_shard(images, made, tmp_path):
    folder = made(tmp_path)
    before = times(folder)
    moved = tmp_path / "images"
    shutil.copytree(images, moved)
    (moved / "black_bright" / "00.png").write_bytes((moved / "red_plain" / "01.png").read_bytes())
    (done,) = extract(moved, workspace=tmp_path)
    assert done.n_embedded == 1
    # Sizes and times of all files are new, so all shards note them.
    assert len(times(folder)) == len(before)


@pytest.mark.parametrize("options", [{"backbone": "hsv_histogram"}, {}], ids=["named", "all"])
def test_a_store_of_one_file_is_not_made_anew_by_a_cluster(images, tmp_path, options):
    extract(images, backbone="hsv_histogram", workspace=tmp_path)
    with pytest.raises(UsageError, match="is a store of one file"):
        extract(images, **options, workspace=tmp_path, executor="ray")


def test_options_of_the_cluster_need_it(images, tmp_path, capsys):
    at = images, "--workspace", tmp_path, "--backbone", "hsv_histogram"
    line = fail(capsys, "extract", *at, "--ray-address", "head:1")
    assert line == (
        "featurepipe: --ray-address requires --executor ray. Add it, or omit the address."
    )
    assert "--price-per-hour requires" in fail(capsys, "extract", *at, "--price-per-hour", 1)
    assert not list(tmp_path.iterdir())


def test_a_worker_that_does_not_see_the_workspace_is_named(images, cluster, tmp_path, monkeypatch):
    # As if the folder of this path were another one there.
    monkeypatch.setattr(sharded_extract.Path, "touch", lambda self: None)
    with pytest.raises(ClusterError, match=rf"Node .* does not see the workspace {tmp_path}"):
        on_cluster(images, tmp_path, cluster)
    assert not (tmp_path / "manifest.parquet").exists()


def test_shards_that_fail_are_reported_and_the_rest_is_made(images, tmp_path, monkeypatch, local):
    do = shard_worker.ShardWorker.do

    def fail_once(self, task):
        if task.number == 3:
            raise DiskFullError("The disk is full.")
        return do(self, task)

    monkeypatch.setattr(shard_worker.ShardWorker, "do", fail_once)
    (tmp_path / f"{STORE}.shards").mkdir(parents=True)
    options = {"backbone": "hsv_histogram", "workspace": tmp_path, "shard_size": SHARD_SIZE}
    with pytest.raises(ExtractionError, match=r"1 of 10 shards failed, such as 3: The disk is"):
        extract(images, **options)
    monkeypatch.undo()
    (done,) = extract(images, **options)
    assert (done.n_embedded, done.n_unchanged) == (SHARD_SIZE, N_IMAGES - SHARD_SIZE)
    assert_same_rows(done.store, local)
