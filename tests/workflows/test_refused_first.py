"""Everything that can be refused is refused before anything is written, read or computed.

A row is a bad option; those of fit and train come with a new table of labels, so that a
workspace that is relabelled too early is found out.
"""

import shutil

import pandas as pd
import pytest

import featurepipe
from featurepipe.runs.run_facts import NetworkShape
from featurepipe.runs.run_files import file_digests
from featurepipe.runs.run_folder import load_run
from featurepipe.runs.run_info import RUN_FILE, write_run_info
from pictures import draw_data_set
from refusals import assert_refused_first, content
from run_infos import network_info


def write_tables(folder):
    """Tables of labels beside the images, some of which cannot be learnt."""
    ids = sorted(path.relative_to(folder / "dataset").as_posix() for path in folder.rglob("*.png"))
    colours = [image_id.split("_")[0] for image_id in ids]
    one_rare = ["rare", *("red" if colour == "red" else "other" for colour in colours[1:])]
    train = [int(image_id[-6:-4]) > 1 for image_id in ids]
    # Of the class "rare", a single image is trained on.
    given_rare = ["rare" if image_id.startswith("red_plain/0") else "b" for image_id in ids]
    given_split = ["train" if row else "test" for row in train]
    for row, image_id in enumerate(ids):
        if given_rare[row] == "rare":
            given_split[row] = "train" if image_id.endswith("/00.png") else "test"
    tables = {
        "good": {"hue": ["red" if colour == "red" else "other" for colour in colours]},
        "rare": {"hue": one_rare},
        "single": {"hue": ["red"] * len(ids)},
        "sets": {"hue": ["red|warm" if colour == "red" else "cold" for colour in colours]},
        "given": {"hue": given_rare, "split": given_split},
        "unlabelled": {"hue": [None] * len(ids)},
        "all": {"all": colours},
    }
    for name, columns in tables.items():
        table = pd.DataFrame({"path": ids, **columns})
        table.to_csv(folder / f"{name}.csv", index=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with images, tables, and a workspace with a run of heads and one of a network."""
    folder = tmp_path_factory.mktemp("made")
    draw_data_set(folder / "dataset", n_each=6)
    write_tables(folder)
    home = folder / "home"
    featurepipe.extract(
        folder / "dataset",
        attributes=["color", "kind"],
        backbone="hsv_histogram",
        workspace=home,
    )
    featurepipe.fit(head="knn", calibrate="none", workspace=home)
    heads = home / "runs" / "hsv_histogram-knn"
    shutil.copytree(heads, home / "runs" / "smallervggnet")
    shape = NetworkShape(size_px=16, outputs={"color": 4, "kind": 2}, same=None)
    split = load_run(heads).info.split
    files = file_digests(heads)
    info = network_info(("color", "kind"), network=shape, split=split, files=files)
    write_run_info(home / "runs" / "smallervggnet", info)
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path / "folder")
    monkeypatch.chdir(tmp_path / "folder")
    return tmp_path / "folder"


FIT = [
    ({"head": "nosuch"}, "Unknown head 'nosuch'"),
    ({"solver": "nosuch"}, "'nosuch'"),
    ({"task": "nosuch"}, "Unknown task 'nosuch'"),
    ({"calibrate": "nosuch"}, "Unknown calibration 'nosuch'"),
    ({"backbone": "nosuch"}, "Unknown features of backbone 'nosuch'"),
    ({"backbone": "xception"}, "Unknown features of backbone 'xception'"),
    ({"features": "nosuch"}, "Unknown features 'nosuch'"),
    ({"features": "colour=hsv_histogram"}, "Unknown attribute 'colour'"),
    ({"features": "auto", "task": "joint"}, "--task joint"),
    ({"features": "auto", "objective": "nosuch"}, "Unknown objective 'nosuch'"),
    ({"objective": "unseen"}, "--objective unseen requires --features auto"),
    ({"thresholds": "f2"}, "'f2'"),
    ({"thresholds": "f1"}, "--thresholds f1"),
    ({"variance_threshold": "much"}, "'much'"),
    (
        {"tune": True, "variance_threshold": "1%"},
        "--tune cannot be combined with",
    ),
    ({"curve": "images", "memory": "1GB"}, "--curve images cannot be combined with"),
    ({"memory": "much"}, "'much'"),
    ({"memory": "1KB"}, "--memory"),
    ({"memory": "1KB", "features": "auto"}, "--memory"),
    ({"memory": "200KB", "head": "knn"}, "--head knn"),
    ({"memory": "200KB", "tune": True}, "--tune"),
    ({"n_jobs": 0}, "--jobs is 0"),
    ({"executor": "nosuch"}, "no executor 'nosuch'"),
    ({"ray_address": "head:1"}, "--ray-address requires --executor ray"),
    ({"executor": "ray", "n_jobs": 2}, "--jobs 2 only applies to --executor local"),
    ({"test_size": 2.0}, "2.0"),
    ({"seed": -1}, "-1"),
    ({"repeats": 0}, "0"),
    ({"hold_out": ["nosuch"]}, "Unknown combination 'nosuch'"),
    ({"hold_out": ["red"]}, "'red'"),
    (
        {"hold_out": ["red"], "hold_out_each": True},
        "cannot be combined with --hold-out-each",
    ),
    ({"group": "nosuch"}, "'nosuch'"),
    ({"attributes": ["nosuch"]}, "'nosuch'"),
    ({"group_duplicates": True}, "Colours alone do not show near-duplicates"),
    ({"labels": "absent.csv"}, "absent.csv"),
    ({"labels": "rare.csv"}, "classes with a single training image: rare"),
    ({"labels": "rare.csv", "seed": 5}, "needs: 'rare' of 'hue' (1)"),
    ({"labels": "single.csv"}, "have the same label of attribute 'hue'"),
    ({"labels": "given.csv", "seed": 0}, "classes with a single training image: rare"),
    ({"labels": "unlabelled.csv"}, "has no label for any"),
    ({"labels": "all.csv"}, "cannot be named 'all'"),
    ({"min_per_class": 0}, "is 0. Set at least 1"),
    ({"min_per_class": 1000}, "the largest has"),
    ({"labels": "sets.csv", "task": "joint"}, "'hue'"),
]

TRAIN = [
    ({"network": "nosuch"}, "'nosuch'"),
    ({"task": "nosuch"}, "'nosuch'"),
    ({"precision": "nosuch"}, "'nosuch'"),
    ({"executor": "nosuch"}, "no executor 'nosuch'"),
    ({"ray_address": "head:1"}, "--ray-address requires --executor ray"),
    ({"schedule": "nosuch"}, "'nosuch'"),
    ({"class_weight": "nosuch"}, "'nosuch'"),
    ({"calibrate": "nosuch"}, "'nosuch'"),
    ({"branches": {"hue": "red"}}, "'red'"),
    ({"branches": {"nosuch": "rgb"}}, "'nosuch'"),
    ({"loss_weights": {"nosuch": 2.0}}, "'nosuch'"),
    ({"unfreeze": 1}, "--unfreeze"),
    ({"positive_pairs": 0.5}, "--positive-pairs"),
    ({"backbone": "xception"}, "--backbone"),
    ({"weights": "random"}, "--weights"),
    ({"network": "finetune"}, "--backbone"),
    ({"network": "finetune", "backbone": "nosuch"}, "'nosuch'"),
    ({"network": "finetune", "backbone": "hsv_histogram"}, "hsv_histogram"),
    ({"network": "finetune", "backbone": "xception", "weights": "absent.h5"}, "absent.h5"),
    ({"thresholds": "f1"}, "--thresholds f1"),
    ({"test_size": 2.0}, "2.0"),
    ({"repeats": 0}, "0"),
    ({"hold_out": ["nosuch"]}, "Unknown combination 'nosuch'"),
    (
        {"hold_out": ["red"], "hold_out_each": True},
        "cannot be combined with --hold-out-each",
    ),
    ({"group": "nosuch"}, "'nosuch'"),
    ({"attributes": ["nosuch"]}, "'nosuch'"),
    ({"group_duplicates": True}, "Colours alone do not show near-duplicates"),
    ({"labels": "absent.csv"}, "absent.csv"),
    ({"labels": "rare.csv", "seed": 0}, "'rare'"),
    ({"labels": "single.csv"}, "have the same label of attribute 'hue'"),
    ({"labels": "unlabelled.csv"}, "has no label for any"),
    ({"labels": "all.csv"}, "cannot be named 'all'"),
]

IMAGE = "dataset/red_plain/00.png"
PREDICT = [
    ({"images": ["absent/*.png"]}, "absent/*.png"),
    ({"run": "nosuch"}, "Unknown run 'nosuch'"),
    ({"top": 0}, "--top is 0"),
    ({"coverage": 0.0}, "--coverage is 0"),
    ({"coverage": 1.5}, "--coverage is 1.5"),
    ({"coverage_per": "images"}, "Unknown --coverage-per 'images'. Did you mean 'image'?"),
    ({"batch_size": 0}, "batch size is 0"),
    ({"weights": ["nosuch=random"]}, "is for 'nosuch', but the features are those of"),
    ({"weights": ["xception=random"]}, "the features are those of hsv_histogram"),
    ({"weights": ["absent.h5"]}, "absent.h5"),
    ({"annotate": "good.csv"}, "--annotate"),
    ({"annotate": "good.csv/copies"}, "--annotate"),
    ({"explain": "good.csv"}, "--explain"),
    ({"explain": "dataset/red_plain"}, "--explain dataset/red_plain already holds images"),
    ({"explain": "copies", "run": "nosuch"}, "Unknown run 'nosuch'"),
    ({"explain": "copies", "weights": ["absent.h5"]}, "absent.h5"),
    ({"explain": "copies", "annotate": "dataset"}, "--annotate dataset already holds"),
    ({"annotate": "copies", "run": "nosuch"}, "Unknown run 'nosuch'"),
    ({"annotate": "copies", "weights": ["absent.h5"]}, "absent.h5"),
    ({"run": "smallervggnet", "weights": ["random"]}, "keeps its own weights"),
]

SAME = [
    ({"image": "absent.png"}, "absent.png"),
    ({"other": "dataset"}, "dataset"),
    ({}, "featurepipe train pair"),
    ({"run": "nosuch"}, "Unknown run 'nosuch'"),
    ({"run": "hsv_histogram-knn"}, "cannot compare images"),
    ({"run": "smallervggnet"}, "cannot compare images"),
]


@pytest.mark.parametrize(("options", "message"), FIT)
def test_fit(folder, options, message):
    options = {"labels": "good.csv", "workspace": "home"} | options
    assert_refused_first(folder, lambda: featurepipe.fit(**options), message)


@pytest.mark.parametrize(("options", "message"), TRAIN)
def test_train(folder, options, message):
    network = "fashionnet" if "branches" in options else "smallervggnet"
    usual = {"network": network, "task": "per-attribute", "labels": "good.csv", "size_px": 96}
    options = usual | {"workspace": "home"} | options
    assert_refused_first(folder, lambda: featurepipe.train(**options), message)


@pytest.mark.parametrize(("options", "message"), PREDICT)
def test_predict(folder, options, message):
    options = {"images": [IMAGE], "run": "hsv_histogram-knn", "workspace": "home"} | options
    assert_refused_first(folder, lambda: featurepipe.predict(**options), message)
    assert not (folder / "copies").exists()


@pytest.mark.parametrize(("options", "message"), SAME)
def test_same(folder, options, message):
    options = {"image": IMAGE, "other": IMAGE, "workspace": "home"} | options
    assert_refused_first(folder, lambda: featurepipe.same(**options), message)


@pytest.mark.parametrize(
    ("run", "options", "message"),
    [
        ("nosuch", {}, "Unknown run 'nosuch'"),
        ("smallervggnet", {}, "is a trained network"),
        ("hsv_histogram-knn", {"n_jobs": 0}, "--jobs is 0"),
    ],
)
def test_repeat(folder, run, options, message):
    assert_refused_first(
        folder, lambda: featurepipe.repeat(run, workspace="home", **options), message
    )


@pytest.mark.parametrize("command", ["repeat", "report", "audit", "predict"])
def test_a_damaged_run_where_there_is_no_other(folder, command):
    shutil.rmtree(folder / "home" / "runs" / "smallervggnet")
    path = folder / "home" / "runs" / "hsv_histogram-knn" / RUN_FILE
    path.write_text(path.read_text().replace('"number": 0', '"number": "first"'))
    arguments = {"repeat": ["hsv_histogram-knn"], "predict": [[IMAGE]]}.get(command, [])
    assert_refused_first(
        folder,
        lambda: getattr(featurepipe, command)(*arguments, workspace="home"),
        "has no valid split.number (got 'first'). Fit it again.",
    )


def test_heads_that_are_missing(folder):
    (folder / "home" / "runs" / "hsv_histogram-knn" / "heads.skops").unlink()
    assert_refused_first(
        folder,
        lambda: featurepipe.predict([IMAGE], run="hsv_histogram-knn", workspace="home"),
        "heads.skops is missing",
    )


def test_audit(folder):
    assert_refused_first(
        folder, lambda: featurepipe.audit(run="nosuch", workspace="home"), "Unknown run 'nosuch'"
    )
    shutil.rmtree(folder / "home" / "features")
    assert_refused_first(
        folder, lambda: featurepipe.audit(workspace="home"), "has no features any more"
    )


@pytest.mark.parametrize(
    "command", ["fit", "train", "predict", "same", "repeat", "report", "audit"]
)
def test_a_workspace_that_is_not_there(folder, command):
    arguments = {
        "train": ["smallervggnet"],
        "predict": [[IMAGE]],
        "same": [IMAGE, IMAGE],
        "repeat": ["hsv_histogram-knn"],
    }.get(command, [])
    call = getattr(featurepipe, command)
    assert_refused_first(folder, lambda: call(*arguments, workspace="absent"), "")
    assert not (folder / "absent").exists()


def test_what_is_not_refused_changes_the_workspace(folder):
    before = content(folder)
    featurepipe.fit(head="knn", calibrate="none", labels="good.csv", workspace="home")
    after = content(folder)
    assert before["home/manifest.parquet"] != after["home/manifest.parquet"]
    assert "home/runs/hsv_histogram-knn-2/run.json" in set(after) - set(before)
