"""A worker that computes other features than the others, or than a store holds, is refused."""

import numpy as np
import pytest

from featurepipe import extract
from featurepipe.cluster.connecting import Node
from featurepipe.errors import ClusterError
from featurepipe.features.engines import descriptors
from featurepipe.features.extraction.recipe import make_recipe
from featurepipe.features.extraction.shard_job import WorkerFacts
from featurepipe.features.extraction.sharded_store import ShardedStore
from featurepipe.workflows.same_features import SameFeatures
from pictures import draw_data_set

FIRST, SECOND = Node("1" * 20, "one", 1, 0), Node("2" * 20, "two", 1, 0)
PROBE = np.random.default_rng(0).random((8, 5), np.float32)


@pytest.fixture
def store(tmp_path):
    return ShardedStore(tmp_path / "hsv.shards")


@pytest.fixture
def same(store):
    return SameFeatures([store], [make_recipe("hsv_histogram", "none")])


def test_the_first_worker_decides_what_a_new_store_holds(store, same):
    assert same.accept(FIRST, WorkerFacts(("float32",), (PROBE,))) == ""
    assert store.key.precision == "float32"
    np.testing.assert_array_equal(store.probe, PROBE)
    assert same.accept(SECOND, WorkerFacts(("float32",), (PROBE * (1 + 1e-6),))) == ""


def test_other_features_are_refused(same):
    same.accept(FIRST, WorkerFacts(("float32",), (PROBE,)))
    reason = same.accept(SECOND, WorkerFacts(("float32",), (PROBE * 1.01,)))
    assert reason.startswith("it computes other features than hsv.shards holds (distance 1.0e-02")


def test_another_precision_is_refused(same):
    same.accept(FIRST, WorkerFacts(("float32",), (PROBE,)))
    reason = same.accept(SECOND, WorkerFacts(("bfloat16",), (PROBE,)))
    assert reason == (
        "it would compute in bfloat16, and node one (11111111) in float32. "
        "Say which: --precision float32"
    )


def test_one_machine_refuses_to_change_a_store_of_shards_as_well(tmp_path, monkeypatch):
    draw_data_set(tmp_path / "images", n_each=2)
    space = tmp_path / "space"
    folder = space / "features" / "hsv_histogram-none-128-avg-rgb.shards"
    folder.mkdir(parents=True)
    (done,) = extract(tmp_path / "images", backbone="hsv_histogram", workspace=space)
    assert done.store == folder
    compute = descriptors.HsvHistogram.embed
    monkeypatch.setattr(
        descriptors.HsvHistogram, "embed", lambda self, images: compute(self, images) * 1.1
    )
    with pytest.raises(ClusterError, match=r"This machine cannot .* computes other features"):
        extract(workspace=space)
