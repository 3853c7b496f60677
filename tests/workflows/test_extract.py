"""extract(): which images it embeds, and what it refuses before anything is written."""

from functools import partial

import numpy as np
import pytest

import featurepipe
from featurepipe import FeatureStore
from featurepipe.errors import (
    DiskFullError,
    FeaturepipeError,
    StoreMismatchError,
    UnknownNameError,
    UsageError,
    WeightsError,
)
from featurepipe.features.headless import HeadlessNetwork
from featurepipe.manifest import Manifest
from pictures import draw, draw_data_set
from refusals import assert_refused_first

N = 24
RANDOM = {"weights": "random", "size_px": 8}
NAME = "resnet50-random0-8-avg-rgb"
LISTED = ["blue_plain/00.png", "red_plain/00.png", "red_plain/01.png", "white_plain/02.png"]


@pytest.fixture
def folder(tmp_path, monkeypatch, colour_mean):
    """24 images, of which a table labels four."""
    monkeypatch.chdir(tmp_path)
    draw_data_set(tmp_path / "dataset", n_each=3)
    write_table(tmp_path / "labels.csv", {name: name.split("_")[0] for name in LISTED})
    return tmp_path


def write_table(path, labels):
    rows = [f"{image_id},{label}" for image_id, label in labels.items()]
    path.write_text("\n".join(["path,color", *rows]))


def extract(source=None, **options):
    return featurepipe.extract(source, **{"backbone": "resnet50", **RANDOM, **options})


def ids_of(folder):
    return Manifest.load(folder / "manifest.parquet").ids.tolist()


def files_below(folder):
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock" and not path.name.endswith(".lock")
    }


def test_a_label_table_chooses_the_images(folder, caplog):
    (done,) = extract("dataset", labels="labels.csv")
    assert (done.n_images, done.n_embedded) == (4, 4)
    assert ids_of(folder) == LISTED
    line = next(line for line in caplog.messages if "does not name" in line)
    assert line.startswith("Ignoring 20 images below ")
    assert "that labels.csv does not name: " in line
    assert line.endswith("Use --all-images to include them")
    with FeatureStore.open(done.store) as store:
        assert store.ids.tolist() == LISTED


def test_the_choice_holds_when_the_source_is_remembered(folder, caplog):
    extract("dataset", labels="labels.csv")
    draw(folder / "dataset" / "red_plain" / "new.png", "red", bright_top=False, seed=9)
    (done,) = extract()
    assert (done.n_images, done.n_embedded) == (4, 0)
    (done,) = extract(all_images=True)
    assert (done.n_images, done.n_embedded) == (N + 1, N - 3)
    caplog.clear()
    (done,) = extract()
    assert (done.n_images, done.n_embedded) == (N + 1, 0)
    assert "does not name" not in caplog.text
    # Labels that are given anew choose anew.
    (done,) = extract(labels="labels.csv")
    assert done.n_images == 4


def test_labels_given_to_fit_keep_the_images_for_later_extractions(folder):
    extract("dataset", attributes=("color", "kind"))
    names = [name for name in ids_of(folder) if "white" not in name]
    write_table(folder / "labels.csv", {name: name.split("_")[0] for name in names})
    featurepipe.fit(head="logistic", labels="labels.csv", n_jobs=1)
    assert len(ids_of(folder)) == N
    (done,) = extract()
    assert (done.n_images, done.n_embedded) == (N, 0)
    assert len(ids_of(folder)) == N


def test_labels_given_to_fit_for_a_table_of_images_are_remembered(folder):
    write_table(folder / "dataset" / "images.csv", dict.fromkeys(LISTED, "x"))
    extract("dataset/images.csv")
    manifest = Manifest.load(folder / "manifest.parquet")
    manifest.relabelled(labels="labels.csv").save(folder / "manifest.parquet")
    (done,) = extract()
    assert (done.n_images, done.n_embedded) == (4, 0)
    manifest = Manifest.load(folder / "manifest.parquet")
    assert [cell for (cell,) in manifest.table["color"]] == ["blue", "red", "red", "white"]


def test_how_labels_are_read_is_remembered(folder):
    write_table(folder / "sets.csv", dict(zip(LISTED, ["a|b", "a|b", "c", "a|b"], strict=True)))
    extract("dataset", labels="sets.csv", label_separator="", min_per_class=2)
    extract()
    manifest = Manifest.load(folder / "manifest.parquet")
    assert [manifest.table["color"][name] for name in LISTED] == [
        ("a|b",),
        ("a|b",),
        None,
        ("a|b",),
    ]


def test_weights_given_once_are_ignored_by_backbones_without_any(folder):
    done = extract("dataset", backbone=("resnet50", "hsv_histogram"), size_px=40)
    assert [one.store.stem for one in done] == [
        "resnet50-random0-40-avg-rgb",
        "hsv_histogram-none-40-avg-rgb",
    ]
    (folder / "mine.h5").write_bytes(b"weights")
    done = extract("dataset", backbone=("resnet50", "hsv-histogram"), weights="mine.h5", size_px=40)
    assert [one.store.stem for one in done] == [
        "resnet50-mine-40-avg-rgb",
        "hsv_histogram-none-40-avg-rgb",
    ]


def test_each_backbone_may_have_weights_of_its_own(folder):
    (folder / "a.h5").write_bytes(b"a")
    (folder / "b.h5").write_bytes(b"b")
    backbones = ("resnet50", "mobilenet_v2")
    for weights in ("resnet50=a.h5,MobileNetV2=b.h5", {"mobilenet_v2": "b.h5", "resnet50": "a.h5"}):
        done = extract("dataset", backbone=backbones, weights=weights)
        assert [one.store.stem for one in done] == [
            "resnet50-a-8-avg-rgb",
            "mobilenet_v2-b-8-avg-rgb",
        ]


BAD = [
    ({"backbone": "resnet5"}, UnknownNameError, "Did you mean 'resnet50'"),
    ({"backbone": ("resnet50", "nosuch")}, UnknownNameError, "Unknown backbone 'nosuch'"),
    ({"view": ("rgb", "gray")}, UnknownNameError, "Did you mean 'grey'"),
    ({"engine": "openvin"}, UnknownNameError, "Did you mean 'openvino'"),
    ({"precision": "float31"}, UnknownNameError, "Unknown precision 'float31'"),
    ({"precision": "float16"}, UsageError, "smaller than the smallest float16"),
    ({"precision": "int8", "engine": "keras"}, UsageError, "by OpenVINO on the processor, not by"),
    ({"weights": "absent.h5"}, WeightsError, "no weights at 'absent.h5'"),
    ({"weights": "xception=random"}, UsageError, "names 'xception', which is no backbone of"),
    (
        {"weights": "labels.csv", "backbone": ("resnet50", "xception")},
        WeightsError,
        "labels.csv cannot be weights",
    ),
    ({"attributes": ("colour", "colour")}, UsageError, "appears twice"),
    ({"labels": "labels.csv", "attributes": ("mood",)}, UnknownNameError, "attribute 'mood'"),
    ({"labels": "absent.csv"}, FeaturepipeError, "absent.csv"),
    ({"group": "patient"}, UnknownNameError, "group column 'patient'"),
    ({"all_images": True}, UsageError, "--all-images requires --labels"),
    ({"source": "absent"}, FeaturepipeError, "absent"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD)
@pytest.mark.parametrize("is_new", [True, False])
def test_bad_options_are_refused_before_anything_is_written_or_opened(
    folder, monkeypatch, is_new, options, error, message
):
    if not is_new:
        extract("dataset", attributes=("color", "kind"))
        draw(folder / "dataset" / "red_plain" / "new.png", "red", bright_top=False, seed=9)
    before = files_below(folder)
    monkeypatch.setattr("featurepipe.features.extraction.recipe.open_engine", pytest.fail)
    monkeypatch.setattr(FeatureStore, "open_locked", pytest.fail)
    with pytest.raises(error, match=message):
        extract(**{"source": "dataset", **options})
    assert files_below(folder) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "xception", "size_px": 70}, r"70 px are too small for xception \(minimum 71"),
        (
            {"backbone": "hsv_histogram", "pooling": "max"},
            "hsv_histogram cannot be pooled by 'max'",
        ),
    ],
)
def test_what_a_backbone_cannot_be_is_refused_before_anything_is_written(
    tmp_path, monkeypatch, options, message
):
    monkeypatch.chdir(tmp_path)
    draw_data_set(tmp_path / "dataset", n_each=1)
    before = files_below(tmp_path)
    with pytest.raises(UsageError, match=message):
        featurepipe.extract("dataset", weights="random", **options)
    assert files_below(tmp_path) == before


def test_a_store_made_otherwise_is_refused_before_the_manifest_is_written(folder, monkeypatch):
    extract("dataset")
    store = folder / "features" / f"{NAME}.h5"
    store.replace(store.with_name("xception-random0-8-avg-rgb.h5"))
    draw(folder / "dataset" / "red_plain" / "new.png", "red", bright_top=False, seed=9)
    before = files_below(folder)
    monkeypatch.setattr("featurepipe.features.extraction.recipe.open_engine", pytest.fail)
    with pytest.raises(StoreMismatchError, match="backbone is 'resnet50', not 'xception'"):
        extract(backbone=("xception", "mobilenet_v2"))
    assert files_below(folder) == before


def test_a_lost_manifest_is_made_again_from_its_images_only(folder):
    extract("dataset")
    expected = ids_of(folder)
    (folder / "manifest.parquet").unlink()
    draw_data_set(folder / "others", n_each=2)
    message = (
        "holds features of other images, such as black_bright/00.png, and its manifest is gone. "
        f"{folder} has none of them, but images such as dataset/black_bright/00.png. Give the "
        "SOURCE of the former"
    )
    # The current folder has the images below other names.
    assert_refused_first(folder, extract, message)
    (done,) = extract("dataset")
    assert (done.n_embedded, done.n_unchanged) == (0, N)
    assert ids_of(folder) == expected


def test_a_damaged_store_does_not_hinder_a_new_manifest(folder):
    extract("dataset")
    (folder / "manifest.parquet").unlink()
    (folder / "features" / "damaged.h5").write_bytes(b"no store")
    extract("dataset")
    assert len(ids_of(folder)) == N


def test_the_current_folder_is_named_where_it_is_the_source(folder, monkeypatch, caplog):
    monkeypatch.chdir(folder / "dataset")
    caplog.set_level("INFO", logger="featurepipe")
    extract(workspace="../home")
    line = next(line for line in caplog.messages if line.startswith("No SOURCE"))
    assert line == (
        "No SOURCE was given, and ../home has no manifest: using the current folder, "
        f"{folder / 'dataset'}, with {N} images."
    )
    caplog.clear()
    extract(workspace="../home")
    extract(folder / "dataset", workspace="../home")
    assert not any(line.startswith("No SOURCE") for line in caplog.messages)


def test_a_disk_without_room_for_all_stores_is_told_before_any_is_made(folder, monkeypatch):
    extract("dataset")
    before = files_below(folder)

    class Usage:
        free = 2 * 32 * 2048 * 4

    monkeypatch.setattr("featurepipe.features.store.layout.shutil.disk_usage", lambda _: Usage)
    monkeypatch.setattr("featurepipe.features.extraction.recipe.open_engine", pytest.fail)
    with pytest.raises(DiskFullError, match="needs 1 MB"):
        extract(backbone=("xception", "inception_v3", "resnet50_v2"))
    assert files_below(folder) == before


def test_an_engine_that_cannot_be_opened_leaves_nothing_behind(folder, monkeypatch, colour_mean):
    real = HeadlessNetwork.require_possible
    assert real

    def open_engine(network, **_):
        if network.backbone.name == "xception":
            raise WeightsError("do not fit")
        return type(colour_mean[0])(network.input_size)

    extract("dataset")
    before = files_below(folder)
    monkeypatch.setattr("featurepipe.features.extraction.recipe.open_engine", open_engine)
    draw(folder / "dataset" / "red_plain" / "new.png", "red", bright_top=False, seed=9)
    before = files_below(folder)
    with pytest.raises(WeightsError, match="do not fit"):
        extract(backbone=("mobilenet_v2", "xception"))
    assert files_below(folder) == before


@pytest.mark.parametrize("grows", [False, True])
def test_an_existing_store_is_opened_once(folder, monkeypatch, grows):
    extract("dataset")
    if grows:
        draw(folder / "dataset" / "red_plain" / "new.png", "red", bright_top=False, seed=9)
    opened, real = [], FeatureStore.open_locked.__func__

    def count(cls, path):
        opened.append(path)
        return real(cls, path)

    monkeypatch.setattr(FeatureStore, "open_locked", classmethod(count))
    (done,) = extract()
    assert done.n_embedded == int(grows)
    assert len(opened) == 1


def test_stores_of_one_pass_hold_what_each_alone_would(folder):
    together = extract("dataset", backbone=("resnet50", "mobilenet_v2"), view=("rgb", "grey"))
    assert len(together) == 4
    alone = extract("dataset", view="grey", workspace="alone")
    with FeatureStore.open(together[1].store) as one, FeatureStore.open(alone[0].store) as other:
        assert one.key == other.key
        np.testing.assert_array_equal(one.features(), other.features())


def test_every_store_is_brought_up_to_date_where_no_backbone_is_named(folder):
    extract("dataset", view=("rgb", "grey"))
    extract("dataset", backbone="hsv_histogram", size_px=40)
    draw(folder / "dataset" / "red_plain" / "new.png", "red", bright_top=False, seed=9)
    done = featurepipe.extract()
    assert [(one.store.stem, one.n_images, one.n_embedded) for one in done] == [
        ("hsv_histogram-none-40-avg-rgb", N + 1, 1),
        ("resnet50-random0-8-avg-grey", N + 1, 1),
        (NAME, N + 1, 1),
    ]


def test_a_damaged_store_is_healed_where_no_backbone_is_named(folder):
    extract("dataset")
    store = folder / "features" / f"{NAME}.h5"
    with FeatureStore.open(store) as whole:
        expected = whole.features(np.arange(N))
    with store.open("r+b") as file:
        file.truncate(store.stat().st_size - 40)
    (done,) = featurepipe.extract()
    assert (done.n_embedded, done.n_unchanged) == (2, N - 2)
    with FeatureStore.open(store) as healed:
        np.testing.assert_array_equal(healed.features(np.arange(N)), expected)


def test_options_of_features_require_a_backbone_where_the_workspace_has_some(folder):
    extract("dataset")
    for option, name in (({"view": "grey"}, "--view"), ({"size_px": 9}, "--size")):
        message = f"{name} requires --backbone, since the workspace has features of resnet50"
        assert_refused_first(folder, partial(featurepipe.extract, **option), message)


def test_a_store_of_which_nothing_is_left_is_named(folder):
    extract("dataset")
    store = folder / "features" / f"{NAME}.h5"
    store.write_bytes(b"no store")
    with pytest.raises(FeaturepipeError, match=rf"{NAME}.h5"):
        featurepipe.extract()
    assert store.read_bytes() == b"no store"


def test_weights_are_refused_beside_a_network_that_has_its_own(folder):
    with pytest.raises(UsageError, match=r"mine\.onnx has its own weights"):
        featurepipe.extract("dataset", backbone="mine.onnx", weights="random")
