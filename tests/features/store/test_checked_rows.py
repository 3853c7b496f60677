"""Rows that are read in parts by several threads, of each number that a store can hold."""

import time
from dataclasses import replace

import h5py
import numpy as np
import pytest
from test_store import KEY, MADE_BY, columns

from featurepipe import FeatureStore
from featurepipe.errors import StoreError
from featurepipe.features.store.shards import Shard, write_shards

# Rows of 32 KB: 64 of them are read at once.
N_ROWS, N_FEATURES = 300, 8192


def make(path, precision, features, first=0):
    ids = [f"{first + row:03}.jpg" for row in range(len(features))]
    probe = np.zeros((1, features.shape[1]), np.float32)
    key = replace(KEY, precision=precision)
    FeatureStore.create(path, ids=ids, key=key, made_by=MADE_BY, probe=probe)
    with FeatureStore.open(path, writable=True) as store:
        store.write_done(np.arange(len(features)), features, *columns(len(features)))


def overwrite(path, row, value):
    """Change the first feature of a row in the file, as another process does."""
    with h5py.File(path, locking=False) as file:
        dataset = file["features"]
        at = dataset.id.get_offset() + row * dataset[0].nbytes
        value = np.array(value, dataset.dtype)
    with path.open("r+b") as file:
        file.seek(at)
        before = file.read(value.nbytes)
        file.seek(at)
        file.write(value.tobytes())
    return np.frombuffer(before, value.dtype)[0]


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_rows_of_many_parts_come_in_the_order_asked_for(tmp_path, precision):
    rng = np.random.default_rng(0)
    features = rng.standard_normal((N_ROWS, N_FEATURES)).astype(precision).astype(np.float32)
    make(tmp_path / "a.h5", precision, features)
    shuffled = rng.integers(0, N_ROWS, 2 * N_ROWS)
    with FeatureStore.open(tmp_path / "a.h5") as store:
        for rows in (np.arange(N_ROWS), np.arange(7, 290), shuffled):
            read = store.features(rows)
            assert read.dtype == np.float32
            np.testing.assert_array_equal(read, features[rows])


def test_threads_read_shards_of_which_few_may_be_open(tmp_path, monkeypatch):
    monkeypatch.setattr("featurepipe.features.store.shards._MAX_OPEN", 1)
    read_direct = h5py.Dataset.read_direct

    def read_later(*arguments):
        time.sleep(0.01)
        read_direct(*arguments)

    monkeypatch.setattr(h5py.Dataset, "read_direct", read_later)
    features = np.random.default_rng(0).random((N_ROWS, N_FEATURES), np.float32)
    for first in range(0, N_ROWS, 10):
        make(tmp_path / f"a.shards/{first:03}.h5", "float32", features[first : first + 10], first)
    files = sorted((tmp_path / "a.shards").glob("*.h5"))
    write_shards(tmp_path / "a.shards", KEY, list(map(Shard.of, files)))
    with FeatureStore.open(tmp_path / "a.shards") as store:
        np.testing.assert_array_equal(store.features(), features)


@pytest.mark.parametrize("row", [0, 63, 64, 200, N_ROWS - 1])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_one_damaged_row_in_any_part_is_named(tmp_path, monkeypatch, precision, row):
    monkeypatch.setattr("featurepipe.features.store.checked_rows._SECONDS_BETWEEN_LOOKS", 0)
    make(tmp_path / "a.h5", precision, np.ones((N_ROWS, N_FEATURES), np.float32))
    overwrite(tmp_path / "a.h5", row, 2)
    with (
        FeatureStore.open(tmp_path / "a.h5") as store,
        pytest.raises(StoreError, match=rf"1 rows are damaged \(checksum\), first '{row:03}.jpg'"),
    ):
        store.features()


def test_each_number_of_float16_is_read_as_what_it_is(tmp_path):
    numbers = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = np.isfinite(numbers)
    assert finite.sum() == 63_488
    make(tmp_path / "a.h5", "float16", numbers[finite].reshape(-1, 64))
    with FeatureStore.open(tmp_path / "a.h5") as store:
        read = store.features().ravel()
    # Bit by bit: 0 and -0 are equal numbers.
    expected = numbers[finite].astype(np.float32)
    np.testing.assert_array_equal(read.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan, -np.nan])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_number_that_is_not_finite_is_refused(tmp_path, precision, odd):
    features = np.ones((3, 4), np.float32)
    features[1, 2] = odd
    make(tmp_path / "a.h5", precision, features)
    with FeatureStore.open(tmp_path / "a.h5") as store:
        with pytest.raises(StoreError, match=r"1 of 3 rows .* not finite, first '001.jpg'"):
            store.features()
        assert store.features(np.array([0, 2])).tolist() == [[1] * 4] * 2


def test_a_row_that_is_being_written_is_read_once_it_is(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    make(path, "float32", np.ones((3, 4), np.float32))
    before = overwrite(path, 1, 5)
    looks = []

    def finish_writing(seconds):
        looks.append(seconds)
        overwrite(path, 1, before)

    monkeypatch.setattr(time, "sleep", finish_writing)
    with FeatureStore.open(path) as store:
        assert store.features().tolist() == [[1] * 4] * 3
    assert len(looks) == 1
