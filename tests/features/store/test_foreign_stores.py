"""Stores that name other files, or claim what they do not hold."""

import json
import os

import h5py
import numpy as np
import pytest

import featurepipe
from featurepipe import FeatureStore
from featurepipe.errors import (
    NotReadableError,
    NotWritableError,
    StoreDamagedError,
    StoreError,
)
from featurepipe.features.store.layout import (
    DONE,
    PENDING,
    about_checksum,
    checksums,
    read_about,
)
from featurepipe.features.store.stages import StageTimes
from pictures import draw_data_set

NAME = "resnet50-random0-8-avg-rgb"
OPTIONS = {"backbone": "resnet50", "weights": "random", "size_px": 8}
SECRET = b"nobody may read or change this" * 1000


@pytest.fixture
def store(tmp_path, monkeypatch, colour_mean):
    monkeypatch.chdir(tmp_path)
    draw_data_set(tmp_path / "dataset", n_each=3)
    featurepipe.extract("dataset", attributes=("color", "kind"), **OPTIONS)
    (tmp_path / "secret").write_bytes(SECRET)
    return tmp_path / "features" / f"{NAME}.h5"


def external_data(file, secret):
    shape, kind = file["features"].shape, file["features"].dtype
    del file["features"]
    file.create_dataset("features", shape, kind, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])


def external_link(file, secret):
    with h5py.File(secret.with_suffix(".h5"), "w") as other:
        other["features"] = file["features"][:]
    del file["features"]
    file["features"] = h5py.ExternalLink(str(secret.with_suffix(".h5")), "features")


def soft_link(file, secret):
    file["elsewhere"] = file["features"][:]
    del file["features"]
    file["features"] = h5py.SoftLink("/elsewhere")


def virtual_data(file, secret):
    shape, kind = file["features"].shape, file["features"].dtype
    layout = h5py.VirtualLayout(shape, kind)
    layout[:] = h5py.VirtualSource(str(secret), "features", shape)
    del file["features"]
    file.create_virtual_dataset("features", layout)


def compressed(file, secret):
    features = file["features"][:]
    del file["features"]
    file.create_dataset("features", data=features, compression="gzip")


def text_of_variable_length(file, secret):
    file.attrs["note"] = "text"


def reference(file, secret):
    file.attrs["note"] = file["features"].ref


def named_type(file, secret):
    file["type"] = np.dtype("f4")


def foreign_group(file, secret):
    file.create_group("more")["link"] = h5py.SoftLink("/features")


FOREIGN = {
    external_data: "'/features' lies in another file",
    external_link: "'/features' is a link",
    soft_link: "'/features' is a link",
    virtual_data: "'/features' lies in another file",
    compressed: "'/features' has a filter",
    text_of_variable_length: "'/' has an attribute that is neither a number nor text",
    reference: "'/' has an attribute that is neither a number nor text",
    named_type: "'/type' is neither a group nor a dataset",
    foreign_group: "'/more/link' is a link",
}


def content(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and path.name[0] != ".")
    return {path: path.read_bytes() for path in files}


@pytest.mark.parametrize("status", [PENDING, DONE])
@pytest.mark.parametrize("change", FOREIGN)
def test_no_other_file_is_read_or_written(store, colour_mean, change, status):
    secret = store.parents[1] / "secret"
    with h5py.File(store, "r+") as file:
        file["status"][:] = status
        change(file, secret)
    before = content(store.parents[1])
    calls = [
        lambda: featurepipe.extract(**OPTIONS),
        featurepipe.fit,
        lambda: featurepipe.info(store, verify=True),
        lambda: featurepipe.export(NAME, "out.npz"),
    ]
    for call in calls:
        with pytest.raises(StoreError) as error:
            call()
        assert f"was not written by featurepipe: {FOREIGN[change]}" in str(error.value)
        assert not isinstance(error.value, StoreDamagedError)
        assert content(store.parents[1]) == before


def test_a_truncated_store_with_a_foreign_part_is_not_healed(store):
    with h5py.File(store, "r+") as file:
        external_data(file, store.parents[1] / "secret")
    store.write_bytes(store.read_bytes()[:-10])
    before = content(store.parents[1])
    with pytest.raises(StoreError, match="lies in another file"):
        featurepipe.extract(**OPTIONS)
    assert content(store.parents[1]) == before


def contents(store):
    with FeatureStore.open(store) as opened:
        return dict(zip(opened.ids, opened.features().tolist(), strict=True))


def claim_rows(store, n_images, **options):
    """Replace every dataset of rows by one of which nothing is written."""
    with h5py.File(store, "r+") as file:
        for name in set(file) - {"probe", "timing"}:
            shape, kind = (n_images, *file[name].shape[1:]), file[name].dtype
            del file[name]
            file.create_dataset(name, shape, kind, **options)


@pytest.mark.parametrize("n_images", [1000, 2 * 10**9])
def test_rows_that_a_file_has_no_room_for_are_not_read(store, n_images):
    claim_rows(store, n_images)
    with pytest.raises(StoreDamagedError, match="is too small for its ids"):
        FeatureStore.open(store)


def test_rows_in_a_hole_of_a_file_are_not_read(store):
    reserved = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    reserved.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    reserved.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    claim_rows(store, 2 * 10**8, dcpl=reserved)
    size = store.stat()
    assert size.st_size > 40 * 10**9 > 2000 * 512 * size.st_blocks
    with pytest.raises(StoreDamagedError, match="is too small for its ids"):
        FeatureStore.open(store)


@pytest.mark.parametrize("value", [np.zeros(9), np.array([b"featurepipe-store-3"]), 3])
def test_the_format_is_a_text(store, value):
    with h5py.File(store, "r+") as file:
        file.attrs["format"] = value
    with pytest.raises(StoreError, match="no feature store of this version"):
        FeatureStore.open(store)


@pytest.mark.parametrize("value", [np.zeros(9), np.bytes_(b"7")])
def test_the_checksum_is_a_number(store, value):
    with h5py.File(store, "r+") as file:
        file.attrs["crc32"] = value
    with pytest.raises(StoreDamagedError, match="do not match their checksum"):
        FeatureStore.open(store)


def test_a_store_without_features_is_damaged(store):
    with h5py.File(store, "r+") as file:
        for name in ("features", "probe"):
            n_rows = len(file[name])
            del file[name]
            file.create_dataset(name, (n_rows, 0), "f4")
    with pytest.raises(StoreDamagedError, match="it has 0 features for each image"):
        FeatureStore.open(store)


@pytest.mark.parametrize("n_more", [0, 1])
def test_a_store_of_rows_in_a_hole_is_made_anew(store, n_more):
    whole = contents(store)
    reserved = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    reserved.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    reserved.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    claim_rows(store, 2 * 10**8, dcpl=reserved)
    with h5py.File(store, "r+") as file:
        del file["status"]
        file.create_dataset("status", 2 * 10**8 + n_more, "u1", dcpl=reserved)
    featurepipe.extract(**OPTIONS)
    assert contents(store) == whole
    assert store.with_name(f"{store.name}.unreadable").exists()


def test_a_store_without_images_is_sound(store):
    claim_rows(store, 0)
    with FeatureStore.open(store) as opened:
        assert len(opened) == 0


@pytest.mark.parametrize("make", ["fifo", "device", "folder"])
def test_only_regular_files_are_opened(store, make):
    store.unlink()
    if make == "fifo":
        os.mkfifo(store)
    elif make == "device":
        store.symlink_to("/dev/zero")
    else:
        store.mkdir()
    for call in (lambda: FeatureStore.open(store), lambda: featurepipe.extract(**OPTIONS)):
        with pytest.raises(NotReadableError, match="is not a regular file"):
            call()


MADE_BY = {"engine": "x", "machine": "y", "versions": {}, "weights_label": "a"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rubbish", "Invalid JSON"),
        ("[]", "Input should be an object"),
        (json.dumps({"machine": "y", "versions": {}}), "engine: Field required"),
        (json.dumps(MADE_BY | {"engine": 3}), "engine: Input should be a valid string"),
        (json.dumps(MADE_BY | {"versions": {"h5py": None}}), "versions.h5py: Input should be"),
        (json.dumps(MADE_BY | {"more": "z"}), "more: Extra inputs are not permitted"),
    ],
)
def test_what_made_a_store_is_checked(store, text, message):
    with h5py.File(store, "r+") as file:
        file.attrs["made_by"] = np.bytes_(text.encode())
        file.attrs["crc32"] = about_checksum(read_about(file))
    with pytest.raises(StoreDamagedError, match="made_by is not valid") as caught:
        FeatureStore.open(store)
    assert message in str(caught.value)


@pytest.mark.parametrize("value", [-1, np.nan, np.inf, 1e300])
def test_timing_that_cannot_be_is_forgotten(store, value):
    with h5py.File(store, "r+") as file:
        file["timing"][1] = value
    with FeatureStore.open(store, writable=True) as opened:
        assert np.isnan(opened.images_per_s)
        assert opened.stages == StageTimes()
        opened.add_timing(6, 2.0, StageTimes(infer=1.5))
        assert opened.images_per_s == 3
        assert opened.stages == StageTimes(infer=1.5)


def test_nothing_is_written_through_a_link(store, colour_mean):
    outside = store.parents[1] / "outside.h5"
    store.rename(outside)
    store.symlink_to(outside)
    before = outside.read_bytes()
    assert featurepipe.info(store)["done"] == 24
    for call in (
        lambda: featurepipe.extract(**OPTIONS, rehash=True),
        lambda: FeatureStore.open(store, writable=True),
    ):
        with pytest.raises(NotWritableError, match=r"is a link to .*outside\.h5"):
            call()
    assert outside.read_bytes() == before


def test_images_that_are_there_twice_with_sound_checksums_are_kept_once(store, colour_mean):
    whole = contents(store)
    with h5py.File(store, "r+") as file:
        ids = file["ids"][:]
        ids[:] = ids[0]
        file["ids"][:] = ids
        file["crc32"][:] = checksums(ids, file["digests"][:], file["features"][:])
    (done,) = featurepipe.extract(**OPTIONS)
    assert done.n_embedded == len(whole) - 1
    assert contents(store) == whole
