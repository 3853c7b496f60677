"""Images that no shard has get new ones; those that are there are looked at."""

from itertools import pairwise

import numpy as np
import pytest

from featurepipe.features.extraction.shard_plan import plan_tasks
from featurepipe.features.extraction.sharded_store import ShardedStore
from featurepipe.features.store.shards import Shard
from featurepipe.manifest import Labelling, ManifestRows
from featurepipe.manifest.manifest import new_manifest
from featurepipe.manifest.manifest_file import ROWS_PER_GROUP
from featurepipe.workspace import Workspace

IDS = [f"{row:02d}.jpg" for row in range(20)]


@pytest.fixture
def plan(tmp_path):
    def make(stores, n_per_shard, ids=IDS, root="/images"):
        path = Workspace(tmp_path).manifest
        new_manifest(ids, root, root, None, Labelling(), {}, []).save(path)
        with ManifestRows(path) as images:
            tasks = plan_tasks(stores, images, n_per_shard)
        return [(task.number, task.rows, task.files, task.n_images) for task in tasks]

    return make


class Listed(Shard):
    """A shard whose file need not be there."""

    def read_ids(self, folder):
        return np.array([one.encode() for one in self.file.split("-")[2].split("+")])


def store_of(tmp_path, *parts):
    """A store with shards of some images; their numbers are 0, 1, …"""
    shards = [
        Listed.model_construct(
            file=f"{number:06d}-00000000-{'+'.join(part)}",
            n_rows=len(part),
            first_id=part[0],
            last_id=part[-1],
        )
        for number, part in enumerate(parts)
    ]
    return ShardedStore(tmp_path, by_file={shard.file: shard for shard in shards})


def test_a_new_store_is_cut_into_equal_shards(plan, tmp_path):
    assert plan([ShardedStore(tmp_path)], 8) == [
        (number, ((first, last),), {0: None}, last - first)
        for number, (first, last) in enumerate(pairwise((0, 7, 14, 20)))
    ]


def test_images_that_were_added_get_a_shard_of_their_own(plan, tmp_path):
    store = store_of(tmp_path, IDS[:5], IDS[6:15])
    names = [shard.file for shard in store.shards]
    assert plan([store], 100) == [
        (2, ((5, 6), (15, 20)), {0: None}, 6),
        (0, (), {0: names[0]}, 5),
        (1, (), {0: names[1]}, 9),
    ]


def test_stores_that_lack_the_same_images_share_a_task(plan, tmp_path):
    one, two = store_of(tmp_path, IDS[:10]), store_of(tmp_path, IDS[:10], IDS[10:15])
    names = [shard.file for shard in two.shards]
    assert plan([one, two], 10) == [
        (2, ((10, 20),), {0: None}, 10),
        (3, ((15, 20),), {1: None}, 5),
        (0, (), {0: names[0], 1: names[0]}, 10),
        (1, (), {1: names[1]}, 5),
    ]


def test_each_of_several_tar_files_has_its_own_shards(plan, tmp_path):
    ids = [f"{tar}.tar/{row}.jpg" for tar, n in (("a", 3), ("b", 5), ("c", 2)) for row in range(n)]
    tasks = plan([ShardedStore(tmp_path)], 4, ids, "/images/*.tar")
    assert [rows for _, rows, _, _ in tasks] == [((0, 3),), ((3, 6),), ((6, 8),), ((8, 10),)]
    # In one folder, names mean nothing.
    assert len(plan([ShardedStore(tmp_path)], 5, ids)) == 2


def test_shards_go_on_over_the_groups_of_a_manifest(plan, tmp_path):
    ids = [f"{row:06d}.jpg" for row in range(2 * ROWS_PER_GROUP + 7)]
    store = store_of(tmp_path, ids[5:9])
    tasks = plan([store], 67_000, ids)
    assert [rows for _, rows, _, _ in tasks] == [
        ((0, 5), (9, 66_672)),
        ((66_672, 133_340),),
        ((133_340, 200_007),),
        (),
    ]
