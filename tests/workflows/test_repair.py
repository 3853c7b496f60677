import json

import h5py
import numpy as np
import pytest

import featurepipe
from featurepipe import FeatureStore
from featurepipe.cli import run
from featurepipe.errors import LockedError, StoreError
from featurepipe.files import only_writer
from pictures import draw, draw_data_set

NAME = "resnet50-random0-8-avg-rgb"
OPTIONS = {"backbone": "resnet50", "weights": "random", "size_px": 8}
N = 48


@pytest.fixture
def store(tmp_path, monkeypatch, colour_mean):
    """The store of a workspace of 48 images, one of them refused."""
    monkeypatch.chdir(tmp_path)
    draw_data_set(tmp_path / "dataset", n_each=6)
    (tmp_path / "dataset" / "blue_plain" / "01.png").write_bytes(b"broken")
    featurepipe.extract("dataset", attributes=("color", "kind"), **OPTIONS)
    return tmp_path / "features" / f"{NAME}.h5"


def contents(path):
    """Features or reason of every settled image."""
    with FeatureStore.open(path) as store:
        ids = store.ids[store.rows("done")]
        features = dict(zip(ids, store.features().tolist(), strict=True))
        return features | store.refused()


def flip(path, name, row, bit=3):
    """Flip one bit of one row of a dataset, as a failing disk would."""
    with h5py.File(path) as file:
        dataset = file[name]
        at = dataset.id.get_offset() + row * dataset.id.get_storage_size() // len(dataset)
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1 << bit
    path.write_bytes(raw)


def others(path):
    """Names of the files beside the store that are not locks."""
    return sorted(
        found.name
        for found in path.parent.iterdir()
        if found != path and not found.name.endswith(".lock")
    )


def row_of(path, image_id):
    with FeatureStore.open(path) as store:
        return store.ids.tolist().index(image_id)


def extract_again(colour_mean):
    before = sum(engine.n_embedded for engine in colour_mean)
    (done,) = featurepipe.extract(**OPTIONS)
    assert sum(engine.n_embedded for engine in colour_mean) - before in (
        done.n_embedded,
        done.n_embedded + 1,  # and the test picture
    )
    return done.n_embedded


def test_a_sound_store_is_left_as_it_is(store):
    before = store.read_bytes(), store.stat().st_mtime_ns
    done = featurepipe.repair(NAME)
    assert (done.n_done, done.n_refused, done.n_pending) == (N - 1, 1, 0)
    assert not done.changed_file and done.damaged is None
    assert (store.read_bytes(), store.stat().st_mtime_ns) == before
    assert others(store) == []


@pytest.mark.parametrize("bit", [0, 3, 7])
@pytest.mark.parametrize("name", ["features", "ids", "digests", "crc32"])
def test_a_flipped_bit_is_noticed_and_its_row_embedded_again(store, capsys, colour_mean, name, bit):
    whole, damaged = contents(store), "red_plain/03.png"
    flip(store, name, row_of(store, damaged), bit)
    broken = store.read_bytes()
    assert run(["info", str(store), "--verify"]) == 1
    line = capsys.readouterr().err.strip()
    assert "1 bad row: " in line and "Run the same featurepipe extract again." in line

    done = featurepipe.repair(store)
    assert (done.n_done, done.n_refused, done.n_pending) == (N - 2, 1, 1)
    assert (done.n_damaged, done.n_changed) == (1, 0)
    assert done.damaged.read_bytes() == broken
    assert others(store) == [f"{NAME}.h5.damaged"]
    assert contents(store) == {key: value for key, value in whole.items() if key != damaged}
    assert extract_again(colour_mean) == 1
    assert contents(store) == whole
    assert run(["info", str(store), "--verify"]) == 0


def test_flipped_bits_of_a_status(store, capsys, colour_mean):
    whole = contents(store)
    flip(store, "status", row_of(store, "red_plain/03.png"), bit=6)  # done -> no status
    flip(store, "status", row_of(store, "blue_plain/01.png"), bit=0)  # refused -> no status
    assert run(["info", str(store), "--verify"]) == 1
    assert "2 bad rows: " in capsys.readouterr().err
    flip(store, "status", row_of(store, "red_plain/04.png"), bit=0)  # done -> pending
    done = featurepipe.repair(store)
    assert (done.n_pending, done.n_damaged) == (3, 2)
    assert extract_again(colour_mean) == 2
    assert contents(store) == whole


@pytest.mark.parametrize("name", ["reasons", "digests"])
def test_a_flipped_bit_of_a_refusal(store, colour_mean, name):
    whole = contents(store)
    flip(store, name, row_of(store, "blue_plain/01.png"))
    assert featurepipe.repair(store).n_damaged == 1
    assert extract_again(colour_mean) == 0
    assert contents(store) == whole


@pytest.mark.parametrize("n_lost", [1, 100, 24 * 6 + 1, 24 * 40])
def test_the_sound_rows_of_a_truncated_store_are_kept(store, capsys, colour_mean, n_lost):
    whole = contents(store)
    store.write_bytes(store.read_bytes()[:-n_lost])
    assert run(["fit"]) == 1
    assert "is truncated: its end is missing. Save what is sound: featurepipe repair" in (
        capsys.readouterr().err
    )
    done = featurepipe.repair(store)
    n_rows_lost = -(-n_lost // 24)
    refused_is_whole = row_of(store, "blue_plain/01.png") < N - n_rows_lost
    n_done_lost = n_rows_lost if refused_is_whole else n_rows_lost - 1
    assert (done.n_pending, done.n_refused) == (n_done_lost, 1)
    assert done.damaged.stat().st_size == store.stat().st_size - n_lost
    assert whole.items() >= contents(store).items()
    assert extract_again(colour_mean) == n_done_lost
    assert contents(store) == whole


@pytest.mark.parametrize("share", [0.0, 0.00001, 0.02, 0.2, 0.5])
def test_a_store_of_which_too_little_is_left_is_one_clear_line(store, capsys, share):
    raw = store.read_bytes()
    with h5py.File(store) as file:
        features_begin = file["features"].id.get_offset()
    store.write_bytes(raw[: int(features_begin * share)])
    assert run(["repair", NAME]) == 1
    err = capsys.readouterr().err
    assert err.startswith("featurepipe: ") and err.count("\n") == 1
    assert "elete it and extract again" in err
    assert store.read_bytes() == raw[: int(features_begin * share)]
    assert others(store) == []


def test_a_cut_between_any_two_bytes_of_the_features_loses_only_the_rows_behind(store):
    raw, whole = store.read_bytes(), contents(store)
    for n_lost in range(1, 24 * N, 97):
        store.write_bytes(raw[:-n_lost])
        done = featurepipe.repair(store)
        assert done.n_done >= (N - 1) - -(-n_lost // 24)
        assert whole.items() >= contents(store).items()


def test_datasets_of_unequal_lengths(store, capsys, colour_mean):
    whole = contents(store)
    with h5py.File(store, "r+") as file:
        digests = file["digests"][:-5]
        del file["digests"]
        file["digests"] = digests
    assert run(["info", str(store)]) == 1
    assert "unequal lengths" in (line := capsys.readouterr().err) and "featurepipe repair" in line
    done = featurepipe.repair(store)
    assert (done.n_done, done.n_refused, done.n_pending) == (N - 6, 1, 5)
    assert extract_again(colour_mean) == 5
    assert contents(store) == whole


def test_a_missing_dataset_is_beyond_repair(store):
    with h5py.File(store, "r+") as file:
        del file["digests"]
    with pytest.raises(StoreError, match="cannot be repaired: too little of it is left"):
        featurepipe.repair(store)


@pytest.mark.parametrize("content", [b"", b"no HDF5", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_what_is_no_store_is_one_clear_error(store, content):
    store.write_bytes(content)
    with pytest.raises(StoreError, match="or it is no feature store"):
        featurepipe.repair(store)
    assert store.read_bytes() == content
    assert others(store) == []


def test_an_image_that_changed_unseen_is_pending(store, folder_of_images, colour_mean):
    image = folder_of_images / "red_plain" / "03.png"
    draw(image, "white", bright_top=True, seed=5)
    stat, row = image.stat(), np.array([row_of(store, "red_plain/03.png")])
    with FeatureStore.open(store, writable=True) as opened:
        opened.write_seen(row, np.array([stat.st_size]), np.array([stat.st_mtime_ns]))
    assert extract_again(colour_mean) == 0
    done = featurepipe.repair(store)
    assert (done.n_pending, done.n_damaged, done.n_changed) == (1, 0, 1)
    assert extract_again(colour_mean) == 1
    assert contents(store)["red_plain/03.png"][0] > 0.9


def test_images_that_are_not_at_hand_keep_their_rows(store, folder_of_images):
    (folder_of_images / "red_plain" / "03.png").unlink()
    assert not featurepipe.repair(store).changed_file
    lone = store.parent.parent / "lone.h5"
    store.rename(lone)
    (store.parent.parent / "manifest.parquet").unlink()
    flip(lone, "features", 2)
    done = featurepipe.repair(lone)
    assert (done.n_done, done.n_pending) == (N - 2, 1)


@pytest.fixture
def folder_of_images(store):
    return store.parent.parent / "dataset"


def test_a_store_that_is_being_written_is_left_alone(store):
    with only_writer(store), pytest.raises(LockedError, match="is writing to"):
        featurepipe.repair(store)


def test_a_repair_that_fails_leaves_everything_as_it_was(store, monkeypatch):
    flip(store, "features", 2)
    broken = store.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("featurepipe.features.store.rewriting.copy_rows", full)
    assert run(["repair", str(store)]) == 1
    assert store.read_bytes() == broken
    assert others(store) == []


def test_the_command_says_what_was_kept(store, capsys):
    assert run(["repair", NAME]) == 0
    assert "is sound: 47 done and 1 refused rows, 0 pending" in capsys.readouterr().out
    flip(store, "features", 2)
    assert run(["repair", NAME]) == 0
    line = capsys.readouterr().out
    assert "kept 46 done and 1 refused rows; 1 are pending (1 rows were damaged" in line
    assert line.count("\n") == 1
    assert f"{NAME}.h5.damaged" in line
    assert run(["repair", NAME, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_pending"] == 1
    assert run(["repair", NAME[:-1]]) == 1
    assert f"Did you mean '{NAME}'" in capsys.readouterr().err
