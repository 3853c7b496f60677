import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import featurepipe
from featurepipe import FeatureStore
from featurepipe.cli import run
from featurepipe.errors import (
    StoreError,
    StoreMismatchError,
    UnknownNameError,
    UsageError,
    WorkspaceError,
)
from featurepipe.workflows import feature_table
from pictures import draw, draw_data_set

NAME = "resnet50-random0-8-avg-rgb"
STORE = f"features/{NAME}.h5"
OPTIONS = {"backbone": "resnet50", "weights": "random", "size_px": 8}
# Hard to write in decimal: the next after 1, the least, a large one, and 0.1.
VALUES = np.array([np.nextafter(np.float32(1), 2), 1e-45, 3.4e38, 0.1, -0.0, 7], np.float32)


@pytest.fixture
def folder(tmp_path, monkeypatch, colour_mean):
    """A workspace of 24 images: one refused, and four labelled by a table."""
    monkeypatch.chdir(tmp_path)
    draw_data_set(tmp_path / "dataset", n_each=3)
    (tmp_path / "dataset" / "blue_plain" / "01.png").write_bytes(b"broken")
    rows = ["red_plain/00.png,red,a|b", "red_plain/01.png,red,b", "red_plain/02.png,,c"]
    lines = ["path,color,tags", *rows, 'white_plain/00.png,"wh,ite ü",']
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    featurepipe.extract("dataset", labels="labels.csv", all_images=True, **OPTIONS)
    with FeatureStore.open(STORE, writable=True) as store:
        rest = store.digests[:1], store.sizes[:1], store.mtimes[:1]
        store.write_done(np.array([0]), VALUES[None], *rest)
    return tmp_path


@pytest.fixture
def expected(folder):
    with FeatureStore.open(STORE) as store:
        return store.ids[store.rows("done")].tolist(), store.features()


def read(path):
    """Ids, features and labels (missing ones as None) of an exported file."""
    if path.endswith(".npz"):
        with np.load(path, allow_pickle=False) as arrays:
            labels = {
                name.removeprefix("label_"): arrays[name].tolist()
                for name in arrays
                if name.startswith("label_")
            }
            return arrays["ids"].tolist(), arrays["features"], labels
    if path.endswith(".csv"):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    else:
        table = pq.read_table(path)
        assert table.schema.field("features").type == pa.list_(pa.float32(), 6)
        numbers = table["features"].combine_chunks().flatten().to_numpy().reshape(-1, 6)
        labels = {name: table[name].to_pylist() for name in table.column_names[1:-1]}
        return table["id"].to_pylist(), numbers, labels
    features = table.loc[:, "f0000":]
    labels = table.iloc[:, 1 : -features.shape[1]].astype(object)
    return (
        table["id"].tolist(),
        features.astype(np.float32).to_numpy(),
        labels.where(labels.notna(), None).to_dict("list"),
    )


@pytest.mark.parametrize("target", ["out.npz", "deep/out.parquet", "out.csv"])
def test_features_come_back_bit_for_bit(expected, target):
    done = featurepipe.export(STORE, target)
    ids, features, labels = read(target)
    assert ids == expected[0]
    assert len(ids) == done.n_rows == 23
    assert features.dtype == np.float32
    assert features.tobytes() == expected[1].tobytes()
    assert features[0].tobytes() == VALUES.tobytes()
    assert labels == {}
    assert (done.n_features, done.n_pending, done.n_refused, done.labels) == (6, 0, 1, ())


@pytest.mark.parametrize("target", ["half.npz", "half.parquet", "half.csv", "half.h5"])
def test_features_of_a_float16_store_stay_float16(folder, target):
    features = np.array([[0.1, -2], [65504, 6e-8]], np.float16)
    with FeatureStore.open(STORE) as store:
        key, made_by = replace(store.key, precision="float16"), store.made_by
    FeatureStore.create(
        Path("a.h5"), ids=["a", "b"], key=key, made_by=made_by, probe=np.zeros((1, 2), np.float32)
    )
    with FeatureStore.open("a.h5", writable=True) as store:
        stamps = np.zeros(2, np.int64)
        digests = np.zeros((2, 32), np.uint8)
        store.write_done(np.arange(2), features.astype(np.float32), digests, stamps, stamps)
    featurepipe.export("a.h5", target)
    if target == "half.h5":
        with FeatureStore.open(target) as packed:
            assert packed.dtype == np.float16
            np.testing.assert_array_equal(packed.features(), features.astype(np.float32))
        return
    if target == "half.parquet":
        table = pq.read_table(target)
        assert table.schema.field("features").type == pa.list_(pa.float16(), 2)
        ids, exported = table["id"].to_pylist(), np.array(table["features"].to_pylist())
        exported = exported.astype(np.float16)
    else:
        ids, exported, _ = read(target)
    assert ids == ["a", "b"]
    np.testing.assert_array_equal(exported, features.astype(np.float32))
    assert exported.dtype == (np.float32 if target == "half.csv" else np.float16)


@pytest.mark.parametrize("suffix", [".npz", ".parquet", ".csv"])
def test_a_target_may_have_any_name(expected, suffix):
    featurepipe.export(STORE, f"caf\udce9{suffix}")
    Path(f"caf\udce9{suffix}").rename(f"out{suffix}")
    assert read(f"out{suffix}")[0] == expected[0]


@pytest.mark.parametrize(
    ("target", "missing"), [("out.npz", ""), ("out.parquet", None), ("out.csv", "")]
)
def test_labels_come_by_attribute(expected, target, missing):
    done = featurepipe.export(NAME, target, labels=True)
    ids, features, labels = read(target)
    assert done.labels == ("color", "tags")
    assert list(labels) == ["color", "tags"]
    of = {name: dict(zip(ids, cells, strict=True)) for name, cells in labels.items()}
    assert of["tags"]["red_plain/00.png"] == "a|b"
    assert of["tags"]["red_plain/02.png"] == "c"
    assert of["color"]["red_plain/01.png"] == "red"
    assert of["color"]["white_plain/00.png"] == "wh,ite ü"
    assert of["color"]["red_plain/02.png"] == missing
    assert of["tags"]["black_bright/00.png"] == missing
    assert features.tobytes() == expected[1].tobytes()


@pytest.mark.parametrize("target", ["out.parquet", "out.csv"])
def test_chunks_are_put_together(expected, target, monkeypatch):
    monkeypatch.setattr(feature_table, "_CHUNK_BYTES", 5 * 6 * 4)
    featurepipe.export(STORE, target, labels=True)
    ids, features, _ = read(target)
    assert ids == expected[0]
    assert features.tobytes() == expected[1].tobytes()


def test_pending_rows_are_told_and_left_out(folder, caplog):
    with h5py.File(STORE, "r+") as file:
        file["status"][[3, 4]] = 0
    done = featurepipe.export(STORE, "out.npz")
    assert (done.n_rows, done.n_pending, done.n_refused) == (21, 2, 1)
    assert "2 of 23 images" in caplog.text and "missing from the export" in caplog.text
    assert len(read("out.npz")[0]) == 21


def test_a_damaged_store_is_not_exported(folder):
    with h5py.File(STORE, "r+") as file:
        file["features"][20, 1] += 1
    (folder / "out.csv").write_text("what was there")
    for target in ("out.csv", "out.parquet"):
        with pytest.raises(StoreError, match=r"1 rows are damaged .* featurepipe extract again"):
            featurepipe.export(STORE, target)
    assert (folder / "out.csv").read_text() == "what was there"
    assert not list(folder.glob("*out.parquet*"))


@pytest.mark.parametrize(
    ("store", "target", "error", "message"),
    [
        (STORE, "out.txt", UsageError, r"suffix is '.txt'. Use .npz, .parquet, .csv or .h5"),
        (NAME[:-1], "out.csv", UnknownNameError, f"Did you mean '{NAME}'"),
        ("absent.h5", "out.csv", StoreError, r"There is no feature store absent.h5"),
    ],
)
def test_bad_input_is_one_clear_error(folder, store, target, error, message):
    with pytest.raises(error, match=message):
        featurepipe.export(store, target)
    assert not list(folder.glob("*out.*"))


def test_labels_of_other_images_are_an_error(folder, tmp_path_factory):
    lone = tmp_path_factory.mktemp("lone") / "lone.h5"
    lone.write_bytes((folder / STORE).read_bytes())
    with pytest.raises(WorkspaceError, match="There are no labels"):
        featurepipe.export(lone, "out.npz", labels=True, workspace=lone.parent)
    assert featurepipe.export(lone, "out.npz", labels=True).labels == ("color", "tags")
    for name in ("cat", "dog"):
        draw(folder / "others" / name / "a.png", "red", bright_top=False, seed=0)
    featurepipe.extract("others", workspace=lone.parent, **OPTIONS)
    with pytest.raises(WorkspaceError, match=r"labels of .*others belong to other images"):
        featurepipe.export(lone, "out.npz", labels=True, workspace=lone.parent)


def test_an_attribute_of_the_name_of_a_column_is_an_error(folder, monkeypatch):
    (folder / "labels.csv").write_text("path,f0002\nred_plain/00.png,a\nred_plain/01.png,b\n")
    featurepipe.extract("dataset", labels="labels.csv", attributes=["f0002"], **OPTIONS)
    monkeypatch.setattr("featurepipe.workflows.export.replacing", pytest.fail)
    with pytest.raises(UsageError, match="'f0002' has the name of another column"):
        featurepipe.export(NAME, "out.csv", labels=True)
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert featurepipe.export(NAME, "out.npz", labels=True).labels == ("f0002",)


def test_the_command_says_what_it_wrote(folder, capsys):
    assert run(["export", NAME, "out.csv", "--labels"]) == 0
    line = capsys.readouterr().out
    assert line == (
        "out.csv: 23 images of 6 features, labels color, tags; left out: 0 pending, 1 refused\n"
    )
    assert run(["export", NAME, "out.npz", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_rows"] == 23
    assert run(["export", NAME, "out.xls"]) == 1
    assert capsys.readouterr().err.startswith("featurepipe: Cannot export to out.xls")


@pytest.fixture
def two_machines(folder):
    """Two stores of the same options: each has a part of the images, and they share some."""
    stores = {}
    parts = {"left": ("red_plain", "white_plain"), "right": ("white_plain", "blue_plain")}
    for name, kinds in parts.items():
        for kind in kinds:
            shutil.copytree(folder / "dataset" / kind, folder / name / "images" / kind)
        (done,) = extract_again(folder, name)
        stores[name] = done.store
    return stores


def extract_again(folder, name, **options):
    home = folder / name
    return featurepipe.extract(home / "images", workspace=home / "work", **OPTIONS | options)


def rows_of(path):
    with FeatureStore.open(path) as store:
        rows = store.rows("done")
        features = dict(zip(store.ids[rows], store.features(rows).tolist(), strict=True))
        return features, store.refused(), store.key, store.counts()


def test_stores_of_several_machines_are_packed_into_one(two_machines, folder):
    left, right = (rows_of(path) for path in two_machines.values())
    done = featurepipe.export(list(two_machines.values()), folder / "packed.h5")
    features, refused, key, counts = rows_of(folder / "packed.h5")
    assert features == left[0] | right[0]
    assert list(refused) == ["blue_plain/01.png"] == [*(left[1] | right[1])]
    assert key == left[2]
    assert (done.n_rows, done.n_refused, counts["pending"]) == (8, 1, 0)
    assert (len(left[0]), len(right[0])) == (6, 5)
    with FeatureStore.open(folder / "packed.h5") as packed:
        assert len(packed.damaged_rows()) == 0
        assert packed.ids.tolist() == sorted(packed.ids)


def test_a_packed_store_is_one_to_extract_with(two_machines, folder):
    home = folder / "whole"
    for name in two_machines:
        shutil.copytree(folder / name / "images", home / "images", dirs_exist_ok=True)
    target = home / "work" / "features" / two_machines["left"].name
    featurepipe.export(list(two_machines.values()), target)
    (done,) = extract_again(folder, "whole")
    assert (done.store, done.n_embedded, done.n_unchanged) == (target, 0, 8)


def test_pending_images_are_taken_from_whichever_store_has_them(two_machines, folder):
    left, right = two_machines.values()
    image = "white_plain/00.png"
    with FeatureStore.open(left, writable=True) as store:
        store.rewrite(store.ids, np.flatnonzero(store.ids != image))
    assert rows_of(left)[3]["pending"] == 1
    featurepipe.export([left, right], folder / "packed.h5")
    assert rows_of(folder / "packed.h5")[0][image] == rows_of(right)[0][image]
    done = featurepipe.export(left, folder / "alone.h5")
    assert (done.n_pending, image in rows_of(folder / "alone.h5")[0]) == (1, False)


def test_stores_that_do_not_belong_together_are_not_packed(two_machines, folder):
    left, right = two_machines.values()
    target = folder / "packed.h5"
    draw(folder / "right" / "images" / "white_plain" / "00.png", "red", bright_top=False, seed=9)
    extract_again(folder, "right")
    message = r"different images by the name 'white_plain/00\.png'"
    with pytest.raises(StoreMismatchError, match=message):
        featurepipe.export([left, right], target)
    (other,) = extract_again(folder, "right", size_px=9)
    with pytest.raises(StoreMismatchError, match="size_px is 8, not 9"):
        featurepipe.export([left, other.store], target)
    for stores, file, options, message in (
        ([left, right], "out.csv", {}, "can hold one store, not 2"),
        ([left], "packed.h5", {"labels": True}, "A store holds no labels"),
        ([left, right], right, {}, "already, and a store is never replaced"),
    ):
        with pytest.raises(UsageError, match=message):
            featurepipe.export(stores, file, **options)
    assert not target.exists()


def test_a_damaged_store_is_not_packed(two_machines, folder):
    left, right = two_machines.values()
    with h5py.File(right, "r+") as file:
        file["features"][0] += 1
    with pytest.raises(StoreError, match="1 row did not match the checksum"):
        featurepipe.export([left, right], folder / "packed.h5")
    assert not (folder / "packed.h5").exists()


def test_the_command_packs_several_stores(two_machines, capsys):
    assert run(["export", *map(str, two_machines.values()), "packed.h5"]) == 0
    assert "packed.h5: 8 images of 6 features, 1 refused" in capsys.readouterr().out
