"""A store of shards reads as a store of one file does, and notices what happened to its files."""

import errno
import os
import shutil
from itertools import pairwise

import h5py
import numpy as np
import pytest
from test_store import KEY, make

from featurepipe import FeatureStore
from featurepipe.errors import StoreDamagedError, StoreError
from featurepipe.features.store.shards import Shard, read_shards, shard_damage, write_shards

N = 23
IDS = [f"{'x' * (k % 7)}{k:02d}.jpg" for k in range(N)]
CUTS = (0, 9, 10, 23)


def fill(path, ids, seed):
    make(path, ids)
    with FeatureStore.open(path, writable=True) as store:
        rows, rng = np.arange(len(ids)), np.random.default_rng(seed)
        digests = rng.integers(0, 256, (len(ids), 32), dtype=np.uint8)
        numbers = np.arange(len(ids))
        features = rng.standard_normal((len(ids), 4)).astype("f4")
        store.write_done(rows, features, digests, numbers, numbers)


@pytest.fixture
def both(tmp_path):
    """The same rows in three shards and in one file."""
    folder, ids = tmp_path / "a.shards", sorted(IDS)
    parts = [ids[start:end] for start, end in pairwise(CUTS)]
    for number, part in enumerate(parts):
        fill(folder / f"{number:05d}.h5", part, seed=number)
    write_shards(folder, KEY, [Shard.of(path) for path in sorted(folder.glob("*.h5"))])
    one = tmp_path / "one.h5"
    make(one, ids)
    with FeatureStore.open(one, writable=True) as store:
        for number, part in enumerate(parts):
            with FeatureStore.open(folder / f"{number:05d}.h5") as shard:
                rows = np.searchsorted(ids, part)
                every = np.arange(len(part))
                store.write_done(
                    rows, shard.features(every), shard.digests, shard.sizes, shard.mtimes
                )
    return folder, one


def test_it_reads_as_one_file_does(both):
    folder, one = both
    rows = np.random.default_rng(0).permutation(N)
    with FeatureStore.open(folder) as shards, FeatureStore.open(one) as store:
        assert (len(shards), shards.n_features, shards.key) == (N, 4, KEY)
        assert shards.ids.tolist() == store.ids.tolist()
        assert shards.counts() == {"pending": 0, "done": N, "refused": 0}
        for name in ("status", "digests", "sizes", "mtimes", "probe"):
            np.testing.assert_array_equal(getattr(shards, name), getattr(store, name))
        for some in (rows, rows[:5], np.arange(8, 12), np.arange(0)):
            np.testing.assert_array_equal(shards.features(some), store.features(some))
            np.testing.assert_array_equal(shards.checksums(some), store.checksums(some))
            np.testing.assert_array_equal(
                shards.unchecked_features(some), store.unchecked_features(some)
            )
        assert len(shards.damaged_rows()) == 0


def test_ids_that_are_read_one_by_one_are_not_cut(both):
    with FeatureStore.open(both[0]) as shards:
        assert shards._file["ids"].dtype.itemsize == max(map(len, IDS))


def delete(path):
    path.unlink()


def move(path):
    path.rename(path.with_name("elsewhere.h5"))


def truncate(path):
    os.truncate(path, path.stat().st_size - 100)


def link(path):
    kept = path.with_name("kept.bin")
    path.rename(kept)
    path.symlink_to(kept)


@pytest.mark.parametrize(
    ("change", "damage"),
    [
        (delete, "it is missing"),
        (move, "it is missing"),
        (truncate, "bytes, not"),
        (link, "it is no regular file"),
    ],
)
def test_a_shard_that_changed_is_named_when_the_store_is_opened(both, change, damage):
    folder, _ = both
    change(folder / "00001.h5")
    with pytest.raises(
        StoreDamagedError, match=f"of its 3 shards, 00001.h5 is unsound: .*{damage}"
    ):
        FeatureStore.open(folder)
    unsound = [shard.file for shard in read_shards(folder)[1] if shard_damage(folder, shard)]
    assert unsound == ["00001.h5"]


def test_a_shard_that_may_not_be_read_is_named(both, monkeypatch):
    (both[0] / "00002.h5").chmod(0)
    if os.geteuid() == 0:
        # Root may read every file: here, one whose mode forbids it to its owner is refused.
        open_file = os.open

        def refuse(path, flags):
            if not path.stat().st_mode & 0o400:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return open_file(path, flags)

        monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StoreDamagedError, match=r"00002\.h5 is unsound: it cannot be opened"):
        FeatureStore.open(both[0])


def test_another_file_of_the_same_size_is_noticed(both):
    folder, _ = both
    size = (folder / "00002.h5").stat().st_size
    fill(folder / "00002.h5", sorted(IDS)[10:23], seed=99)
    assert (folder / "00002.h5").stat().st_size == size
    with (
        FeatureStore.open(folder) as store,
        pytest.raises(StoreDamagedError, match=r"00002\.h5 is not the file that shards\.json"),
    ):
        store.features(np.array([15]))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"format": "featurepipe-shards-2", "shards": []}',
        '{"format": "featurepipe-shards-1", "shards": [{"file": "../a.h5"}]}',
        '{"format": "featurepipe-shards-1", "shards": []}',
    ],
)
def test_a_damaged_list_is_named(both, text):
    (both[0] / "shards.json").write_text(text)
    with pytest.raises(StoreDamagedError, match=r"shards\.json"):
        FeatureStore.open(both[0])


def test_a_file_that_is_listed_twice_is_refused(both):
    key, shards = read_shards(both[0])
    write_shards(both[0], key, [*shards, shards[0]])
    with pytest.raises(StoreDamagedError, match="lists a file twice"):
        FeatureStore.open(both[0])


def test_a_folder_without_a_list_is_no_store(both, tmp_path):
    shutil.rmtree(both[0])
    (tmp_path / "a.shards").mkdir()
    with pytest.raises(StoreError, match=r"has no shards\.json"):
        FeatureStore.open(tmp_path / "a.shards")


def test_a_shard_is_listed_with_its_first_and_last_image(both):
    folder, _ = both
    _, shards = read_shards(folder)
    ids = sorted(IDS)
    for shard, (start, end) in zip(shards, pairwise(CUTS), strict=True):
        assert (shard.first_id, shard.last_id) == (ids[start], ids[end - 1])
        assert [raw.decode() for raw in shard.read_ids(folder)] == ids[start:end]
    with pytest.raises(StoreDamagedError, match=r"00000\.h5 has other images than were listed"):
        shards[0].model_copy(update={"last_id": "z"}).read_ids(folder)
    with pytest.raises(StoreError, match="There is no feature store"):
        shards[0].read_ids(folder / "elsewhere")


def test_a_shard_without_order_is_refused(tmp_path):
    make(tmp_path / "a.h5", ["a.jpg", "b.jpg"])
    make(tmp_path / "none.h5", [])
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["ids"][:] = file["ids"][:][::-1]
    for name in ("a.h5", "none.h5"):
        with pytest.raises(StoreDamagedError, match="images are not in order, or it has none"):
            Shard.of(tmp_path / name)
