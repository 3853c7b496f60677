"""featurepipe train: from images to runs beside those of heads, and what they answer."""

import json
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import featurepipe
from featurepipe.cli import run
from featurepipe.errors import (
    FeaturepipeError,
    FitError,
    ManifestError,
    RunError,
    SplitError,
    UsageError,
    WorkspaceError,
)
from featurepipe.features.engines.keras_engine import build_backbone
from featurepipe.features.engines.quiet_keras import keras
from featurepipe.features.extraction.pixel_cache import PixelCache
from featurepipe.features.extraction.recipe import make_recipe
from featurepipe.models.networks import training
from featurepipe.output_folders import MARKER
from featurepipe.runs.changes import Present
from featurepipe.runs.choosing import find_run
from featurepipe.runs.run_facts import NetworkShape
from featurepipe.runs.run_folder import load_run
from featurepipe.splits import Split
from featurepipe.workspace import Workspace
from pictures import COLOURS, draw, draw_data_set
from run_infos import sign

pytestmark = [
    pytest.mark.keras,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:keras"),
]

SMALL = {"size_px": 16, "batch_size": 16, "epochs": 2, "augment": False}
MOBILENET = {"backbone": "mobilenet_v2", "weights": "random", "size_px": 32, "epochs": 1,
             "batch_size": 8, "augment": False}  # fmt: skip
FILES = {
    MARKER, "heads.skops", "history.csv", "network.keras", "predictions.npz", "run.json",
    "selection.npz", "training.png", "training.svg",
}  # fmt: skip


@dataclass
class Place:
    """A workspace, its run of heads, its run of a network, and what that was trained on."""

    root: Path
    heads: str
    network: str
    fitted: np.ndarray

    def folder(self, name):
        return self.root / "runs" / name

    def images(self, ids):
        return [self.root / "dataset" / image_id for image_id in ids]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("place")
    draw_data_set(root / "dataset", n_each=8)
    featurepipe.extract(
        root / "dataset", attributes=["color", "kind"], backbone="hsv_histogram", workspace=root
    )
    heads = featurepipe.fit(head="logistic", workspace=root)["run"].iloc[0]
    fitted, train_network = [], training.train_network

    def record(network, train, *arguments, **options):
        fitted.append(train.load(np.arange(len(train))))
        return train_network(network, train, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train_network", record)
        table = featurepipe.train("smallervggnet", **SMALL, workspace=root)
    return Place(root, heads, table["run"].iloc[0], fitted[0])


@pytest.fixture
def copied(place, tmp_path):
    """The same in a folder of its own."""
    shutil.copytree(place.root, tmp_path / "copied")
    return Place(tmp_path / "copied", place.heads, place.network, place.fitted)


@pytest.fixture(scope="module")
def tagged(tmp_path_factory):
    """A workspace whose images have sets of labels, and its multi-label network."""
    root = tmp_path_factory.mktemp("tagged")
    rows = []
    for index in range(36):
        colour, bright = ("red", "blue")[index % 2], index % 3 > 0
        draw(root / "images" / f"{index:02}.png", colour, bright, seed=index)
        rows.append((f"{index:02}.png", f"{colour}|bright" if bright else colour))
    pd.DataFrame(rows, columns=["path", "tags"]).to_csv(root / "labels.csv", index=False)
    featurepipe.extract(
        root / "images", labels=root / "labels.csv", backbone="hsv_histogram", workspace=root
    )
    with learning_nothing():
        table = featurepipe.train("smallervggnet", **SMALL | {"epochs": 1}, workspace=root)
    return Place(root, "", table["run"].iloc[0], np.empty(0))


@pytest.fixture(scope="module")
def finetuned(place, tmp_path_factory):
    """A fine-tuned network as it begins, in a workspace with features of its backbone."""
    root = tmp_path_factory.mktemp("finetuned") / "copied"
    shutil.copytree(place.root, root)
    options = {"backbone": "mobilenet_v2", "weights": "random", "size_px": 32, "engine": "keras"}
    featurepipe.extract(workspace=root, **options)
    with learning_nothing():
        table = featurepipe.train("finetune", epochs=1, augment=False, workspace=root)
    return Place(root, place.heads, table["run"].iloc[0], place.fitted)


@pytest.fixture(scope="module")
def paired(place):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("featurepipe.reports.plots.plot_training", lambda *_: {})
        return featurepipe.train("pair", **MOBILENET, unfreeze=1, workspace=place.root)


@contextmanager
def learning_nothing():
    """Where what is asked is not how a network learns, nor how curves are drawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Model, "fit", learn_nothing)
        patch.setattr("featurepipe.reports.plots.plot_training", lambda *_: {})
        yield


def learn_nothing(*_, **__):
    return SimpleNamespace(history={"loss": [0.5]})


def files_of(root):
    return {path: path.stat().st_mtime_ns for path in root.rglob("[!.]*") if path.is_file()}


def fail(capsys, *arguments):
    capsys.readouterr()
    assert run(list(map(str, arguments))) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("featurepipe: ")
    return line


def test_a_run_of_a_network_is_a_run(place):
    folder = place.folder(place.network)
    assert {path.name for path in folder.iterdir()} == FILES
    assert not list(place.root.glob("runs/.*"))
    history = pd.read_csv(folder / "history.csv")
    assert history["epoch"].tolist() == [1, 2]
    assert history["best"].sum() == 1
    info = load_run(folder).info
    assert info.costs.epochs == 2
    assert info.ended_by == ""
    assert info.best_epoch == history["epoch"][history["best"]].iloc[0]
    kept = keras.saving.load_model(folder / "network.keras", compile=False)
    assert info.costs.n_parameters == kept.count_params()
    assert info.network == NetworkShape(size_px=16, outputs={"color": 4, "kind": 2}, same=None)
    assert info.costs.model_bytes == sum(
        (folder / name).stat().st_size for name in ("heads.skops", "network.keras")
    )


def test_heads_and_network_are_fitted_by_the_same_split(place):
    heads, network = (load_run(place.folder(name)) for name in (place.heads, place.network))
    assert [path.stem for path in place.root.glob("splits/*.json")] == [network.info.split.name]
    assert network.info.split == heads.info.split
    assert network.predictions.ids.tolist() == heads.predictions.ids.tolist()
    assert network.info.n_train == heads.info.n_train


def test_what_selects_is_neither_fitted_on_nor_tested_on(place):
    network = load_run(place.folder(place.network))
    split = Split.load(place.root / "splits" / f"{network.info.split.name}.json")
    trained, chosen = set(split.ids[split.rows("train")]), set(network.selection.ids)
    assert len(chosen) == network.info.n_validation == len(network.selection) > 0
    assert chosen < trained
    with PixelCache.open(Workspace(place.root).pixels(16)) as cache:
        ids = sorted(cache.row_of)
        id_of = {pixels.tobytes(): each for pixels, each in zip(cache.read(ids), ids, strict=True)}
    assert len(id_of) == len(ids)
    assert {id_of[pixels.tobytes()] for pixels in place.fitted} == trained - chosen
    assert set(network.predictions.ids) == set(split.ids[split.rows("test")])


def test_the_board_has_both_and_what_networks_cost(place):
    board = featurepipe.report(workspace=place.root).set_index(["run", "attribute"])
    costs = ["n_parameters", "epochs", "peak_memory_bytes"]
    assert board.loc[place.heads, costs].isna().all(axis=None)
    of_network = board.loc[place.network, costs]
    assert of_network.index.tolist() == ["color", "kind", "all"]
    assert (of_network["n_parameters"] > 100_000).all()
    assert set(of_network["epochs"]) == {2}
    assert (of_network["peak_memory_bytes"] > 2**24).all()
    both = board.loc[[place.heads, place.network]]
    assert (
        both[["accuracy", "log_loss", "selection_accuracy", "predict_images_per_s"]]
        .notna()
        .all(axis=None)
    )
    assert set(board.loc[place.network, "weights"]) == {"none"}


def test_predictions_are_those_of_the_run(place):
    kept = load_run(place.folder(place.network))
    ids = kept.predictions.ids.tolist()
    answers = featurepipe.predict(
        place.images(ids), workspace=place.root, run=place.network, top=4, coverage=0.8
    )
    for attribute, (classes, expected) in kept.model.in_words(kept.predictions.scores).items():
        own = answers[answers["attribute"] == attribute]
        found = own.pivot(index="image", columns="class", values="probability")
        paths = [str(path) for path in place.images(ids)]
        np.testing.assert_allclose(found.loc[paths, list(classes)], expected, atol=1e-3)
        unknown = own.groupby("image")["unknown"].first().loc[paths]
        p_values = kept.predictions.image_p_values[attribute]
        assert ((p_values >= 0) & (p_values <= 1)).all()
        assert unknown.tolist() == (p_values <= 1 - 0.8).tolist()


def test_new_pictures_are_answered(place, tmp_path, capsys):
    for number, colour in enumerate(["red", "green"]):
        draw(tmp_path / f"{colour}.png", colour, bright_top=True, seed=500 + number, side=20)
    arguments = ["predict", tmp_path, "--run", place.network, "--workspace", place.root]
    assert run([*map(str, arguments), "--json", "--coverage", "1"]) == 0
    answers = [json.loads(line)["attributes"] for line in capsys.readouterr().out.splitlines()]
    assert len(answers) == 2
    for answer in answers:
        ((color,), (kind,)) = answer["color"], answer["kind"]
        assert color["class"] in COLOURS
        assert kind["class"] in {"bright", "plain"}
        assert color["given"] is True
        assert 0 < color["probability"] <= 1
    line = fail(capsys, *arguments, "--weights", "random")
    assert "trained network and keeps its own weights" in line


def test_a_complete_run_is_left_as_it_is(place, monkeypatch):
    info = load_run(place.folder(place.network)).info
    leftover = Workspace(place.root).training(info.digest)

    def fail_at_once(*_, **__):
        raise FitError(f"trained, with a checkpoint: {leftover.exists()}")

    monkeypatch.setattr(training, "train_network", fail_at_once)
    before = (place.folder(place.network) / "run.json").read_bytes()
    table = featurepipe.train("smallervggnet", **SMALL, workspace=place.root)
    assert table["run"].unique().tolist() == [place.network]
    assert (place.folder(place.network) / "run.json").read_bytes() == before
    leftover.mkdir()
    with pytest.raises(FitError, match="trained, with a checkpoint: False"):
        featurepipe.train("smallervggnet", **SMALL, workspace=place.root, resume=False)


def test_a_damaged_run_is_trained_again(copied, monkeypatch, caplog):
    def fail_at_once(*_, **__):
        raise FitError("trained")

    monkeypatch.setattr(training, "train_network", fail_at_once)
    path = copied.folder(copied.network) / "run.json"
    path.write_text(path.read_text().replace('"best_epoch"', '"best"'))
    with pytest.raises(FitError, match="trained"):
        featurepipe.train("smallervggnet", **SMALL, workspace=copied.root)
    assert "run.json has no best_epoch. Train it again." in caplog.text


def test_an_interrupted_run_is_kept_and_goes_on(copied, monkeypatch, capsys):
    fits = []

    def fit(*_, **__):
        fits.append(len(fits))
        if len(fits) == 2:
            raise KeyboardInterrupt
        return learn_nothing()

    monkeypatch.setattr("featurepipe.reports.plots.plot_training", lambda *_: {})
    monkeypatch.setattr(keras.Model, "fit", fit)
    arguments = [
        "train", "fashionnet", "--size", "16", "--epochs", "2", "--hold-out",
        "red_plain", "--branches", "kind=rgb", "--workspace", str(copied.root), "--json",
    ]  # fmt: skip
    assert run(arguments) == 130
    folder = copied.folder("fashionnet")
    info = load_run(folder).info
    assert info.ended_by == "interrupt"
    assert [path.name for path in copied.root.glob("runs/.*")] == [f".training-{info.digest}"]
    assert len(pd.read_csv(folder / "history.csv")) == 1
    capsys.readouterr()
    assert run(arguments) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["run"] for row in rows} == {folder.name}
    assert len(fits) == 3
    assert not list(copied.root.glob("runs/.*"))
    kept = load_run(folder)
    assert (kept.info.ended_by, kept.info.costs.epochs) == ("", 2)
    assert kept.info.view == {"color": "rgb", "kind": "rgb", "all": "rgb"}
    # Of the combination that was held out all images are answered, and none was trained on.
    unseen = kept.predictions.select("unseen").ids.tolist()
    assert unseen == [f"red_plain/{index:02}.png" for index in range(8)]
    assert not any(image_id.startswith("red_plain") for image_id in kept.selection.ids)
    board = featurepipe.report(workspace=copied.root)
    own = board[(board["run"] == folder.name) & (board["attribute"] == "all")]
    assert own["n_unseen"].tolist() == [8]
    assert own["unseen_accuracy"].notna().all()


def test_sets_of_labels(tagged):
    kept = load_run(tagged.folder(tagged.network))
    assert kept.info.task == "multi-label"
    assert kept.info.network.outputs == {"tags": 3}
    assert kept.predictions.labels["tags"].classes == ("blue", "bright", "red")
    assert not kept.predictions.labels["tags"].exclusive
    answers = featurepipe.predict([tagged.root / "images" / "00.png"], workspace=tagged.root, top=3)
    assert answers["class"].sort_values().tolist() == ["blue", "bright", "red"]
    assert answers["probability"].between(0, 1).all()


def test_a_network_is_not_repeated(place, capsys):
    line = fail(capsys, "repeat", place.network, "--workspace", place.root)
    assert "is a trained network, and only runs of heads can be repeated" in line


def test_the_best_run_predicts_and_the_best_heads_audit(copied, caplog):
    path = copied.folder(copied.network) / "run.json"
    info = json.loads(path.read_text())
    info["selection_accuracy"]["all"] = 1.0
    # At a tie the faster run would win.
    info["costs"]["predict_ms_per_image"] = 0.0
    path.write_text(json.dumps(info))
    caplog.set_level("INFO", "featurepipe")
    assert find_run(Workspace(copied.root), None).folder == path.parent
    table = featurepipe.audit(workspace=copied.root)
    assert f"Auditing with {copied.heads}." in caplog.text
    assert not table["reason"].str.contains(copied.network).any()
    shutil.rmtree(copied.folder(copied.heads))
    for folder in copied.root.glob("runs/*"):
        assert load_run(folder).network is not None
    with pytest.raises(WorkspaceError, match="no run of heads yet"):
        featurepipe.audit(workspace=copied.root)


def test_other_labels_of_training_images_make_a_network_old(place):
    """It keeps the labels of its validation and test images; its digest covers the others."""
    present, kept = Present.of(Workspace(place.root)), load_run(place.folder(place.network))
    assert present.changes(kept) == present.added(kept) == []
    manifest = present.manifest
    own = {*kept.selection.ids, *kept.predictions.ids}
    row = next(row for row, image in enumerate(manifest.ids) if image not in own)
    colors = list(manifest.cells["color"])
    colors[row] = ("white",) if colors[row] == ("red",) else ("red",)
    relabelled = replace(manifest, cells=manifest.cells | {"color": colors})
    changed = Present(present.workspace, relabelled).changes(kept)
    assert changed == ["labels of training images changed"]


def test_a_network_of_other_classes_is_not_the_runs(copied, tagged):
    folder = copied.folder(copied.network)
    shutil.copyfile(tagged.folder(tagged.network) / "network.keras", folder / "network.keras")
    image = copied.root / "dataset" / "red_plain" / "00.png"
    with pytest.raises(RunError, match=r"network\.keras does not match its SHA-256"):
        featurepipe.predict([image], workspace=copied.root, run=copied.network)
    sign(folder)
    with pytest.raises(RunError, match=r"has other outputs .*Train it again"):
        featurepipe.predict([image], workspace=copied.root, run=copied.network)
    (folder / "network.keras").write_bytes(b"no network")
    sign(folder)
    with pytest.raises(RunError, match=r"is damaged: .*network\.keras cannot be read"):
        featurepipe.predict([image], workspace=copied.root, run=copied.network)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("fashionnet --backbone xception", "--backbone only applies to finetune and pair"),
        ("fashionnet --weights random", "--weights only applies to finetune and pair"),
        ("fashionet", "network 'fashionet'"),
        ("fashionnet --branches hue=rgb", "--branches names the attribute 'hue'"),
        ("fashionnet --branches kind=red", "branch 'red'"),
        ("smallervggnet --branches kind=rgb", "--branches only applies to fashionnet"),
        ("smallervggnet --unfreeze 1", "--unfreeze only applies to finetune and pair"),
        ("finetune --positive-pairs 0.5", "--positive-pairs only applies to pair"),
        ("smallervggnet --loss-weights hue=2", "--loss-weights names the attribute 'hue'"),
        ("finetune --backbone hsv_histogram", "cannot be fine-tuned"),
    ],
)
def test_options_that_do_not_fit_are_refused(place, capsys, options, said):
    line = fail(capsys, "train", *options.split(), "--size", "16", "--workspace", place.root)
    assert said in line


@pytest.mark.parametrize(
    ("network", "options", "said"),
    [
        ("fashionnet", {"branches": {"hue": "grey"}}, "--branches names the attribute 'hue'"),
        ("fashionnet", {"loss_weights": {"hue": 2.0}}, "--loss-weights names the attribute 'hue'"),
        ("fashionnet", {"thresholds": "f1"}, "--thresholds f1 only applies to sets of labels"),
        ("smallervggnet", {"size_px": 11}, r"too small for smallervggnet \(minimum 12\)"),
        ("finetune", {"backbone": "nosuch"}, "Unknown backbone 'nosuch'"),
        ("finetune", {"backbone": "xception", "weights": "random", "size_px": 70}, "minimum 71"),
        ("pair", MOBILENET | {"batch_size": 3}, "Pairs cannot be formed"),
        ("pair", MOBILENET | {"unfreeze": 99}, "--unfreeze 99 is more than the 18 blocks"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_images_are_decoded(
    place, monkeypatch, network, options, said
):
    monkeypatch.setattr(
        "featurepipe.workflows.train.decode_pixels", lambda *_: pytest.fail("decoded")
    )
    before = files_of(place.root)
    with pytest.raises(FeaturepipeError, match=said):
        featurepipe.train(network, **options, workspace=place.root)
    assert files_of(place.root) == before


def test_what_finetune_begins_from_must_be_known(tagged):
    with pytest.raises(UsageError, match=r"has no features of one\. Choose one with --backbone"):
        featurepipe.train("finetune", workspace=tagged.root)


def test_a_class_of_a_single_image_cannot_be_divided(tmp_path):
    draw_data_set(tmp_path / "dataset", n_each=3)
    draw(tmp_path / "dataset" / "green_plain" / "00.png", "green", bright_top=False, seed=77)
    featurepipe.extract(
        tmp_path / "dataset",
        attributes=["color", "kind"],
        backbone="hsv_histogram",
        workspace=tmp_path,
    )
    with pytest.raises(SplitError, match=r"needs: 'green' of 'color' \(1\)\."):
        featurepipe.train("smallervggnet", **SMALL, workspace=tmp_path)
    assert not (tmp_path / "runs").exists()


def test_finetune_begins_from_a_regression_on_cached_features(finetuned):
    kept = load_run(finetuned.folder(finetuned.network))
    assert kept.name == "mobilenet_v2-finetune"
    assert kept.info.begins_from.weights["kind"] == "random"
    assert kept.info.begins_from.size_px == kept.info.network.size_px == 32
    assert set(kept.info.backbone.values()) == {"mobilenet_v2"}
    history = pd.read_csv(kept.folder / "history.csv")
    assert history["stage"].tolist() == ["top", "last blocks"]
    # The images decide nothing else here: the top is the regression, whose answers are right.
    first, second = history["validation_loss"]
    assert second == pytest.approx(first, rel=1e-4)
    assert first < 0.7 * (np.log(4) + np.log(2))
    test = kept.predictions.select("test")
    assert test.correct("color").mean() >= 0.75


def test_the_last_block_alone_is_trained(place, paired):
    (name,) = paired["run"].unique()
    history = pd.read_csv(place.folder(name) / "history.csv")
    assert history["stage"].tolist() == ["top", "last blocks"]
    kept = keras.saving.load_model(place.folder(name) / "network.keras", compile=False)
    (trained,) = [layer for layer in kept.layers if isinstance(layer, keras.Model)]
    begun = build_backbone(make_recipe("mobilenet_v2", "random", size_px=32).network)
    moved = {
        layer.name
        for layer, before in zip(trained.layers, begun.layers, strict=True)
        if any(map(np.any, map(np.subtract, layer.get_weights(), before.get_weights())))
    }
    # What follows the last block belongs to it; normalisation never moves.
    last = {"block_16_expand", "block_16_depthwise", "block_16_project", "Conv_1"}
    assert moved == (last if history["best"].iloc[1] else set())


def test_pairs_are_verified(place, paired, tagged, capsys):
    (name,) = paired["run"].unique()
    slope, intercept = load_run(place.folder(name)).info.network.same
    history = pd.read_csv(place.folder(name) / "history.csv")
    assert {"train_loss:same", "validation_accuracy:same"} <= set(history.columns)
    one, other = place.images(["red_plain/00.png", "white_bright/01.png"])
    different = featurepipe.same(one, other, workspace=place.root)
    arguments = ["same", str(one), str(one), "--workspace", str(place.root)]
    capsys.readouterr()
    assert run([*arguments, "--run", name, "--json"]) == 0
    same = json.loads(capsys.readouterr().out)["same"]
    assert same == pytest.approx(1 / (1 + np.exp(-intercept)), rel=1e-4)
    assert slope < 0
    assert 0 <= different < same <= 1
    line = fail(capsys, *arguments, "--run", place.network)
    assert "cannot compare images" in line
    with pytest.raises(WorkspaceError, match="featurepipe train pair"):
        featurepipe.same(one, other, workspace=tagged.root)


def test_images_that_are_gone_are_one_error_unless_their_pixels_are_cached(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.chdir(tmp_path)
    draw_data_set(tmp_path / "dataset", n_each=4)
    featurepipe.extract("dataset", attributes=["color", "kind"], backbone="hsv-histogram")
    (tmp_path / "dataset").rename("moved")
    gone = rf"^{tmp_path / 'dataset'}, where the images were, is gone\. Move it back"
    for command in (featurepipe.extract, partial(featurepipe.train, "smallervggnet", **SMALL)):
        with pytest.raises(ManifestError, match=gone):
            command()
    (tmp_path / "moved").rename("dataset")
    with learning_nothing():
        featurepipe.train("smallervggnet", **SMALL)
        (tmp_path / "dataset").rename("moved")
        caplog.clear()
        featurepipe.train("smallervggnet", **SMALL, seed=1)
    assert f"All images are in {Path('pixels/16.h5')}, which is used as it is." in caplog.messages
    (again,) = featurepipe.extract("moved", backbone="hsv-histogram")
    assert (again.n_unchanged, again.n_embedded) == (32, 0)
