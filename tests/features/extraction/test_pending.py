"""Pending images are those that no finished shard has, by exact comparison."""

import numpy as np
import pytest

from featurepipe.features.extraction.pending import FinishedIds, pending_ids
from featurepipe.manifest import Labelling, ManifestRows
from featurepipe.manifest.manifest import new_manifest
from featurepipe.manifest.manifest_file import ROWS_PER_GROUP

N = 2 * ROWS_PER_GROUP + 1000
IDS = np.array(sorted(f"{'ü' * (row % 3)}{row:07d}.jpg" for row in range(N)), dtype=object)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("manifest") / "m.parquet"
    new_manifest(IDS.tolist(), "/x", "/x", None, Labelling(), {}, []).save(path)
    return path


class Shards:
    """Shards of some ids, which count how often each is loaded."""

    def __init__(self, *parts):
        self.n_loads = [0] * len(parts)
        self.finished = [self._of(k, sorted(part)) for k, part in enumerate(parts)]

    def _of(self, number, ids):
        def load():
            self.n_loads[number] += 1
            return np.array([one.encode() for one in ids])

        return FinishedIds(ids[0], ids[-1], load)


def found(path, finished):
    with ManifestRows(path) as images:
        parts = list(pending_ids(images, finished))
    rows = np.concatenate([rows for rows, _ in parts])
    ids = [one for _, ids in parts for one in ids.to_pylist()]
    assert ids == IDS[rows].tolist()
    return rows


def test_consecutive_shards_in_any_order(path):
    parts = np.array_split(IDS, 31)
    shards = Shards(*(part for k, part in enumerate(parts) if k % 7))
    rows = found(path, reversed(shards.finished))
    lacking = np.concatenate([part for k, part in enumerate(parts) if k % 7 == 0])
    np.testing.assert_array_equal(rows, np.searchsorted(IDS, lacking))
    assert shards.n_loads == [1] * 26


def test_shards_that_overlap_and_have_images_that_the_manifest_lacks(path):
    rng = np.random.default_rng(0)
    order = rng.permutation(N)
    done, pending = order[: N // 2], np.sort(order[N // 2 :])
    others = [f"{one}.png" for one in IDS[rng.choice(N, 500)]]
    parts = [*np.array_split(IDS[done], 5), others, ["!", "~"], ["!!"], ["\U0010ffff"]]
    shards = Shards(*parts)
    np.testing.assert_array_equal(found(path, shards.finished), pending)
    # Those before the first and behind the last image are never loaded.
    assert shards.n_loads == [1] * 7 + [0, 0]


def test_nothing_and_everything(path):
    np.testing.assert_array_equal(found(path, []), np.arange(N))
    assert len(found(path, Shards(IDS).finished)) == 0
    only = Shards([IDS[-1]], [IDS[0]])
    np.testing.assert_array_equal(found(path, only.finished), np.arange(1, N - 1))


def test_a_longer_id_is_another(path):
    longer = Shards([f"{IDS[5]}x", IDS[7], f"{IDS[ROWS_PER_GROUP - 1]}{'x' * 300}"])
    np.testing.assert_array_equal(found(path, longer.finished), np.delete(np.arange(N), 7))
