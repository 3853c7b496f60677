import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurepipe import FeatureStore
from featurepipe.errors import (
    DiskFullError,
    LockedError,
    StoreDamagedError,
    StoreError,
    StoreMismatchError,
)
from featurepipe.features.store import StoreKey, WeightsKey
from featurepipe.features.store.layout import about_checksum, read_about
from featurepipe.features.store.stages import StageTimes

KEY = StoreKey(
    backbone="xception",
    weights=WeightsKey("random", backbone="xception", keras="3.9", seed=0),
    size_px=299,
    pooling="avg",
    view="rgb",
    decoding="full",
    resize="pillow-bilinear",
    preprocessing="tf",
    precision="float32",
)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "features" / "a.h5"
    make(path, ["c.jpg", "a.jpg", "ü/b.jpg"])
    return path


def make(path, ids, n_features=4):
    FeatureStore.create(
        path,
        ids=ids,
        key=KEY,
        made_by={"engine": "x", "machine": "y", "versions": {"h5py": "3"}},
        probe=np.arange(2 * n_features, dtype="f4").reshape(2, -1),
    )


def grow(path, ids):
    with FeatureStore.open(path, writable=True) as store:
        store.rewrite([*store.ids, *ids], np.arange(len(store)))


def columns(n, value=7):
    digests = np.full((n, 32), value, np.uint8)
    return digests, np.full(n, value, np.int64), np.full(n, value + 1, np.int64)


def write(path, rows, value=1.5):
    rows = np.asarray(rows)
    with FeatureStore.open(path, writable=True) as store:
        features = np.full((len(rows), store.n_features), value, np.float32) + rows[:, None]
        store.write_done(rows, features, *columns(len(rows)))


def test_a_new_store_is_pending_and_sorted(path):
    with FeatureStore.open(path) as store:
        assert store.ids.tolist() == ["a.jpg", "c.jpg", "ü/b.jpg"]
        assert store.counts() == {"pending": 3, "done": 0, "refused": 0}
        assert store.key == KEY
        assert store.probe.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
        assert np.isnan(store.images_per_s)
        assert len(store.features()) == 0


def test_rows_come_back_as_written(path):
    write(path, [0, 2])
    with FeatureStore.open(path) as store:
        assert store.features().tolist() == [[1.5] * 4, [3.5] * 4]
        assert store.features(np.array([2, 0])).tolist() == [[3.5] * 4, [1.5] * 4]
        assert store.rows("done").tolist() == [0, 2]
        assert store.sizes.tolist() == [7, 0, 7]
        assert store.mtimes.tolist() == [8, 0, 8]
        with pytest.raises(StoreError, match="1 of the requested rows are not done"):
            store.features(np.array([0, 1]))


def test_refused_rows_keep_their_reason(path):
    with FeatureStore.open(path, writable=True) as store:
        store.write_refused(np.array([1]), ["größe " * 60], *columns(1))
    with FeatureStore.open(path) as store:
        assert store.counts() == {"pending": 2, "done": 0, "refused": 1}
        assert store.refused()["c.jpg"].startswith("größe größe")


def test_timing_adds_up(path):
    with FeatureStore.open(path, writable=True) as store:
        store.add_timing(10, 2.0, StageTimes(0.5, 1.0, 2.0, 0.0))
        store.add_timing(20, 1.0, StageTimes(0.5, 0.0, 0.5, 0.25))
        assert store.images_per_s == 10.0
        assert store.stages == StageTimes(read=1.0, decode=1.0, infer=2.5, write=0.25)
        assert store.stages.bottleneck == "infer"


def test_growing_keeps_rows_and_adds_pending_ones(path):
    write(path, [1])
    grow(path, ["b.jpg", "c.jpg"])
    with FeatureStore.open(path) as store:
        assert store.ids.tolist() == ["a.jpg", "b.jpg", "c.jpg", "ü/b.jpg"]
        assert store.rows("done").tolist() == [2]
        assert store.features().tolist() == [[2.5] * 4]
        assert store.key == KEY


@given(old=st.sets(st.text("abüz/.1", min_size=1), min_size=1), new=st.sets(st.text("abüz/.1")))
@settings(max_examples=30, deadline=None)
def test_growing_never_moves_features_to_another_image(tmp_path_factory, old, new):
    path = tmp_path_factory.mktemp("grow") / "a.h5"
    make(path, sorted(old), n_features=1)
    value = {image_id: float(number) for number, image_id in enumerate(sorted(old))}
    with FeatureStore.open(path, writable=True) as store:
        features = np.array([[value[image_id]] for image_id in store.ids], np.float32)
        store.write_done(np.arange(len(old)), features, *columns(len(old)))
    grow(path, sorted(new))
    with FeatureStore.open(path) as store:
        done = store.rows("done")
        assert store.ids.tolist() == sorted(old | new)
        assert dict(zip(store.ids[done], store.features()[:, 0], strict=True)) == value


def test_one_writer_and_readers_meanwhile(path):
    write(path, [0])
    with FeatureStore.open(path, writable=True):
        with pytest.raises(LockedError, match="Another featurepipe process is writing"):
            FeatureStore.open(path, writable=True)
        with FeatureStore.open(path) as reader:
            assert reader.features().tolist() == [[1.5] * 4]


def test_another_key_is_refused_with_every_difference(path):
    with FeatureStore.open(path) as store:
        store.require_key(KEY)
        with pytest.raises(StoreMismatchError, match=r"size_px is 299, not 224; weights.back"):
            store.require_key(replace(KEY, size_px=224, weights=WeightsKey("random", seed=1)))


@pytest.mark.parametrize(
    ("name", "damaged", "first"),
    [
        ("features", np.float32([2.5, 2.5, 2.75, 2.5]), "c.jpg"),
        ("digests", np.uint8([7] * 31 + [6]), "c.jpg"),
        ("ids", b"b.jpg", "b.jpg"),
        ("ids", b"\xe3.jpg", "\ufffd.jpg"),
    ],
)
def test_a_flipped_bit_is_found(path, name, damaged, first):
    write(path, [0, 1])
    with h5py.File(path, "r+") as file:
        file[name][1] = damaged
    with FeatureStore.open(path) as store:
        assert store.damaged_rows().tolist() == [1]
        assert store.features(np.array([0])).tolist() == [[1.5] * 4]
        with pytest.raises(StoreError, match=rf"1 rows are damaged \(checksum\), first '{first}'"):
            store.features()
    grow(path, ["c.jpg", "d.jpg"])
    with FeatureStore.open(path) as store:
        assert store.features(store.rows("done")[:1]).tolist() == [[1.5] * 4]
        assert len(store.damaged_rows()) == 1


def test_a_flipped_bit_of_a_status_or_a_reason_is_found(path):
    with FeatureStore.open(path, writable=True) as store:
        store.write_refused(np.array([0, 1]), ["empty file", "größe"], *columns(2))
        assert store.damaged_rows().tolist() == []
    with h5py.File(path, "r+") as file:
        file["reasons"][0] = b"empty fild"
        file["status"][1:] = (3, 1)
    with FeatureStore.open(path) as store:
        assert store.damaged_rows().tolist() == [0, 1, 2]
        assert store.counts() == {"pending": 1, "done": 1, "refused": 1}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), "its end is missing"),
        (lambda path: path.write_bytes(b"no HDF5"), "it is not an HDF5 file"),
        (lambda path: path.unlink(), "There is no feature store"),
        (lambda path: path.unlink() or h5py.File(path, "w").close(), "but no feature store"),
    ],
)
def test_unusable_files_say_what_is_wrong(path, damage, message):
    damage(path)
    with pytest.raises(StoreError, match=message):
        FeatureStore.open(path)


def rewrite_key(path, values):
    """Another key, with a checksum that fits."""
    with h5py.File(path, "r+") as file:
        file.attrs["key"] = np.bytes_(json.dumps(values, sort_keys=True).encode())
        file.attrs["crc32"] = about_checksum(read_about(file))


def test_the_key_lies_in_the_file_as_sorted_json(path):
    with h5py.File(path) as file:
        text = bytes(file.attrs["key"]).decode()
    assert text == json.dumps(KEY.as_dict(), sort_keys=True) == KEY.to_json()
    assert json.loads(text) == {
        "backbone": "xception",
        "decoding": "full",
        "pooling": "avg",
        "precision": "float32",
        "preprocessing": "tf",
        "resize": "pillow-bilinear",
        "size_px": 299,
        "view": "rgb",
        "weights": {"backbone": "xception", "keras": "3.9", "kind": "random", "seed": 0},
    }
    assert StoreKey.from_json(text, "x") == KEY


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.pop("view"), "the field 'view' is missing"),
        (lambda values: values.update(size_px="8"), "the field 'size_px' is '8'"),
        (lambda values: values.update(colour=1), "the field 'colour' is unknown"),
        (lambda values: values.update(weights="none"), "the field 'weights' is 'none'"),
        (lambda values: values["weights"].pop("kind"), "the field 'weights.kind' is missing"),
        (lambda values: values["weights"].update(seed="0"), "the field 'weights.seed' is '0'"),
        (lambda values: values["weights"].update(url="x"), "the field 'weights.url' is unknown"),
    ],
)
def test_an_invalid_key_is_an_error_that_names_the_field(path, change, message):
    values = KEY.as_dict()
    change(values)
    rewrite_key(path, values)
    with pytest.raises(StoreError, match=rf"a\.h5 holds no valid store key: {message}") as error:
        FeatureStore.open(path)
    assert not isinstance(error.value, StoreDamagedError)


def test_a_full_disk_shows_before_the_work(tmp_path, monkeypatch):
    class Usage:
        free = 1000

    monkeypatch.setattr("featurepipe.features.store.layout.shutil.disk_usage", lambda folder: Usage)
    with pytest.raises(DiskFullError, match=r"needs \d+ MB and .* has 0 MB free"):
        make(tmp_path / "a.h5", ["a.jpg"] * 1000, n_features=2048)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_while_writing_keeps_the_old_file(path, monkeypatch):
    write(path, [0])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("featurepipe.features.store.store.copy_rows", full)
    with pytest.raises(DiskFullError, match="The disk is full"):
        grow(path, ["new.jpg"])
    with FeatureStore.open(path) as store:
        assert store.features().tolist() == [[1.5] * 4]
    assert sorted(file.name for file in path.parent.iterdir() if "lock" not in file.name) == [
        "a.h5"
    ]


def test_a_store_that_may_not_be_that_large_keeps_what_was_committed(path):
    resource = pytest.importorskip("resource")
    write(path, [0])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with FeatureStore.open(path, writable=True) as store:
            # The features of the last row lie beyond it.
            resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size - 8, before[1]))
            with pytest.raises(DiskFullError, match=r"The file is too large: .*a\.h5"):
                store.write_done(np.array([2]), np.ones((1, 4), "f4"), *columns(1))
            with pytest.raises(DiskFullError, match=r"The file is too large: .*a\.h5"):
                store.rewrite([*store.ids, *map(str, range(100))], np.arange(3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with FeatureStore.open(path, writable=True) as store:
        assert store.counts() == {"pending": 2, "done": 1, "refused": 0}
        assert store.features().tolist() == [[1.5] * 4]
    write(path, [1, 2])
    with FeatureStore.open(path) as store:
        assert store.features().tolist() == [[1.5] * 4, [2.5] * 4, [3.5] * 4]


def test_a_store_opens_with_plain_h5py(path):
    write(path, [0, 1])
    with h5py.File(path) as file:
        done = file["status"][:] == 1
        ids, features = file["ids"].asstr()[done], file["features"][done]
    assert ids.tolist() == ["a.jpg", "c.jpg"]
    assert features.tolist() == [[1.5] * 4, [2.5] * 4]


MADE_BY = {"engine": "x", "machine": "y", "versions": {"h5py": "3"}}
HALF = replace(KEY, precision="float16")


def make_half(path):
    probe = np.array([[0.1, 1e5]], np.float32)
    ids = [f"{number}.jpg" for number in range(5)]
    FeatureStore.create(path, ids=ids, key=HALF, made_by=MADE_BY, probe=probe)


def test_a_float16_store_keeps_float16_and_gives_float32(tmp_path):
    path = tmp_path / "half.h5"
    make_half(path)
    values = np.array([[0.1, -2.0], [65504, 6e-8]], np.float32)
    with FeatureStore.open(path, writable=True) as store:
        store.write_done(np.array([1, 4]), values, *columns(2))
    with h5py.File(path) as file:
        assert (file["features"].dtype, file["probe"].dtype) == (np.float16, np.float32)
    with FeatureStore.open(path) as store:
        assert store.dtype == np.float16
        # The probe is compared with what engines compute, and so keeps its precision.
        np.testing.assert_array_equal(store.probe, np.array([[0.1, 1e5]], np.float32))
        read = store.features()
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, values.astype(np.float16).astype(np.float32))
        np.testing.assert_array_equal(store.features(np.array([4, 1, 4])), read[[1, 0, 1]])
        assert not len(store.damaged_rows())
    grow(path, ["new.jpg"])
    with FeatureStore.open(path) as store:
        assert len(store) == 6
        np.testing.assert_array_equal(store.features(), read)


def test_every_flipped_bit_of_a_float16_row_is_noticed(tmp_path):
    path = tmp_path / "half.h5"
    make_half(path)
    with FeatureStore.open(path, writable=True) as store:
        store.write_done(np.array([0, 2]), np.array([[1, 2], [3, 4]], np.float32), *columns(2))
    with h5py.File(path) as file:
        start = file["features"].id.get_offset()
    sound = path.read_bytes()
    for bit in range(32):
        flipped = bytearray(sound)
        flipped[start + 2 * 4 + bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with FeatureStore.open(path) as store:
            assert store.damaged_rows().tolist() == [2]
            with pytest.raises(StoreError, match="1 rows are damaged"):
                store.features()
            assert store.features(np.array([0])).tolist() == [[1, 2]]


def test_a_number_beyond_float16_is_refused_when_it_is_read(tmp_path):
    path = tmp_path / "half.h5"
    make_half(path)
    with FeatureStore.open(path, writable=True) as store:
        store.write_done(np.array([3]), np.array([[1, 1e5]], np.float32), *columns(1))
    with (
        FeatureStore.open(path) as store,
        pytest.raises(StoreError, match=r"not finite, first '3.jpg'.*--precision float32"),
    ):
        store.features()
