import json

import numpy as np
import pytest

from featurepipe.cli import run
from featurepipe.errors import FitError
from featurepipe.features.store import FeatureStore
from pictures import draw, draw_data_set

EXTRACT = ["extract", "dataset", "--attributes", "color,kind", "--weights", "random", "--size", "8"]


@pytest.fixture
def folder(tmp_path, monkeypatch, colour_mean):
    monkeypatch.chdir(tmp_path)
    draw_data_set(tmp_path / "dataset", n_each=12)
    assert run([*EXTRACT, "--backbone", "resnet50,xception", "--view", "rgb,grey"]) == 0
    assert run(["extract", "--backbone", "hsv-histogram"]) == 0
    return tmp_path


def read_run(folder, name="[!.]*"):
    (path,) = folder.glob(f"runs/{name}/run.json")
    return json.loads(path.read_text()) | {"name": path.parent.name}


def fail(capsys, *arguments):
    capsys.readouterr()
    assert run(["fit", "--head", "logistic", *arguments]) == 1
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_features_set_by_hand_are_read_by_each_attribute(folder, capsys):
    features = "kind=xception:grey, color=HSV-histogram+resnet50"
    assert run(["fit", "--head", "logistic", "--features", features]) == 0
    facts = read_run(folder)
    assert facts["name"] == "by-attribute-logistic"
    assert facts["features"] == {
        "color": ["hsv_histogram:rgb", "resnet50:rgb"],
        "kind": ["xception:grey"],
    }
    assert facts["backbone"] == {
        "color": "hsv_histogram+resnet50",
        "kind": "xception",
        "all": "hsv_histogram+resnet50+xception",
    }
    assert facts["view"] == {"color": "rgb+rgb", "kind": "grey", "all": "rgb+rgb+grey"}
    assert facts["selection_accuracy"]["all"] > 0.65
    capsys.readouterr()
    assert run(["report", "--json"]) == 0
    board = json.loads(capsys.readouterr().out)
    assert [row["view"] for row in board] == ["rgb+rgb", "grey", "rgb+rgb+grey"]


def test_one_run_reads_blocks_for_all_attributes(folder):
    arguments = ["--features", "xception:grey+hsv_histogram", "--task", "joint"]
    assert run(["fit", "--head", "logistic", *arguments]) == 0
    facts = read_run(folder)
    assert facts["name"] == "xception-grey+hsv_histogram-logistic-joint"
    assert facts["features"]["kind"] == ["xception:grey", "hsv_histogram:rgb"]


def test_prediction_computes_every_block_and_refuses_an_image_once(folder, capsys):
    features = "kind=xception:grey,color=hsv-histogram+resnet50"
    assert run(["fit", "--head", "logistic", "--features", features]) == 0
    draw(folder / "new" / "blue.png", "blue", bright_top=True, seed=77)
    (folder / "new" / "broken.png").write_bytes(b"broken")
    capsys.readouterr()
    assert run(["predict", "new", "--json"]) == 1
    blue, broken = map(json.loads, capsys.readouterr().out.splitlines())
    assert blue["attributes"]["color"][0]["class"] == "blue"
    assert blue["attributes"]["kind"][0]["class"] == "bright"
    assert broken["refused"].startswith("not an image")


def test_auto_says_what_it_tried_and_keeps_it(folder, capsys):
    capsys.readouterr()
    assert run(["fit", "--head", "logistic", "--features", "auto"]) == 0
    said = capsys.readouterr().err
    assert "Chosen: the best mean of both" in said
    assert "  chosen" in said
    facts = read_run(folder)
    assert facts["name"] == "auto-logistic"
    trials = facts["feature_trials"]
    assert len([trial for trial in trials if len(trial["blocks"]) <= 2]) == 2 * (5 + 10)
    assert 2 * 3 <= len([trial for trial in trials if len(trial["blocks"]) == 3]) <= 2 * 6
    assert facts["head_trials"] == []
    for attribute in ("color", "kind"):
        (chosen,) = (t for t in trials if t["attribute"] == attribute and t["chosen"])
        assert chosen["blocks"] == facts["features"][attribute]
        assert chosen["unseen_accuracy"] > 0.7
    # A histogram of colours cannot tell which half of a picture is bright.
    assert facts["features"]["kind"] != ["hsv_histogram:rgb"]


def test_auto_chooses_a_head_too_and_repeats_the_choice(folder, capsys):
    capsys.readouterr()
    assert run(["fit", "--features", "auto", "--repeats", "2"]) == 0
    assert "Heads on these features, mean over the attributes:" in capsys.readouterr().err
    facts = read_run(folder, "auto")
    trials = facts["head_trials"]
    assert [trial["head"] for trial in trials] == ["bagged-sgd", "logistic"]
    (chosen,) = (trial for trial in trials if trial["chosen"])
    assert facts["settings"]["head"] == chosen["head"]
    assert chosen["seen_accuracy"] > 0.8
    # Runs of a series belong together even if other heads were chosen.
    assert read_run(folder, "auto-2")["family"] == facts["family"]
    assert run(["repeat", "auto"]) == 0
    capsys.readouterr()
    assert run(["info", "runs/auto"]) == 0
    assert "featurepipe fit --features auto\n" in capsys.readouterr().out


def test_auto_keeps_bagged_sgd_if_its_solver_is_named(folder):
    assert run(["fit", "--features", "auto", "--solver", "minibatch"]) == 0
    assert read_run(folder, "auto-bagged-sgd")["head_trials"] == []


class TestWithinMemory:
    """Features and a head are chosen as without a bound, if it allows them."""

    @pytest.fixture
    def obstacles(self, monkeypatch):
        """Most features that each head is said to have memory for."""
        most = {}

        def plan(settings, needed, budget):
            if needed.n_features > most.get(settings.head, np.inf):
                raise FitError(f"{needed.n_features} features are too many.")

        monkeypatch.setattr("featurepipe.workflows.auto_memory.plan_chunks", plan)
        return most

    def test_the_choice_is_the_same(self, folder):
        assert run(["fit", "--features", "auto"]) == 0
        free = read_run(folder)
        # A bound that changes nothing makes the same run.
        assert run(["fit", "--features", "auto", "--memory", "2GB"]) == 0
        bounded = read_run(folder)
        assert (free["memory_bytes"], bounded["memory_bytes"]) == (None, 2_000_000_000)
        for fact in ("features", "feature_trials", "head_trials", "digest"):
            assert bounded[fact] == free[fact]

    def test_heads_that_do_not_fit_are_not_tried(self, folder, capsys, obstacles):
        obstacles["logistic"] = 0
        capsys.readouterr()
        assert run(["fit", "--features", "auto", "--memory", "2GB"]) == 0
        assert "Not trying logistic on" in capsys.readouterr().err
        assert read_run(folder)["settings"]["head"] == "bagged-sgd"

    def test_one_store_is_kept_if_several_do_not_fit(self, folder, capsys, obstacles):
        with FeatureStore.open(next(folder.glob("features/hsv*.h5"))) as store:
            widest = store.n_features
        obstacles |= {"logistic": widest, "bagged-sgd": widest}
        capsys.readouterr()
        assert run(["fit", "--features", "auto", "--memory", "2GB"]) == 0
        assert "no head fits into memory with the features above" in capsys.readouterr().err
        facts = read_run(folder)
        assert facts["features"]["color"] == facts["features"]["kind"]
        assert len(facts["features"]["color"]) == 1
        chosen = [trial["blocks"] for trial in facts["feature_trials"] if trial["chosen"]]
        assert chosen == [facts["features"]["color"]] * 2

    def test_too_little_is_refused_before_anything_is_written(self, folder, capsys):
        before = sorted(folder.rglob("*.json"))
        said = fail(capsys, "--features", "auto", "--memory", "50KB")
        assert "--memory 0.1MB is too little for --features auto to try 5 stores on" in said
        assert sorted(folder.rglob("*.json")) == before
        assert not list(folder.glob("runs/*"))


def test_auto_takes_only_the_backbones_that_are_named(folder):
    arguments = ["--features", "auto", "--backbone", "xception"]
    assert run(["fit", "--head", "logistic", *arguments]) == 0
    blocks = {tuple(trial["blocks"]) for trial in read_run(folder)["feature_trials"]}
    assert blocks == {
        ("xception:grey",),
        ("xception:rgb",),
        ("xception:grey", "xception:rgb"),
    }


def test_auto_warns_of_what_nothing_tells_apart(tmp_path, monkeypatch, colour_mean, capsys):
    monkeypatch.chdir(tmp_path)
    draw_data_set(tmp_path / "dataset", n_each=12, skip=("black_plain",))
    assert run([*EXTRACT, "--backbone", "resnet50"]) == 0
    capsys.readouterr()
    assert run(["fit", "--head", "logistic", "--features", "auto", "--quiet"]) == 0
    assert (
        "training images of color 'black' are of kind 'bright': nothing in them tells the two "
        "apart." in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--features", "resnet5"], "Unknown features 'resnet5'. Did you mean 'resnet50:rgb'?"),
        (["--features", "resnet50:shuffle"], "featurepipe extract --backbone resnet50 --view shuf"),
        (["--features", "size=resnet50"], "Unknown attribute 'size'. Expected one of: color, kind"),
        (["--features", "color=resnet50"], "does not name 'kind'"),
        (["--features", "color=resnet50,kind=xception,color=xception"], "names an attribute twice"),
        (["--features", "resnet50+resnet50:rgb"], "names a store twice"),
        (["--features", "auto", "--task", "joint"], "--task joint fits one head for all attr"),
        (["--features", "color=resnet50", "--task", "multi-label"], "fits one head for all"),
        (["--objective", "seen"], "Add --features auto"),
        (["--features", "resnet50", "--objective", "seen"], "Add --features auto"),
    ],
)
def test_features_that_cannot_be_read_are_refused(folder, capsys, arguments, message):
    assert message in fail(capsys, *arguments)
    assert not list(folder.glob("runs/*"))


def test_stores_that_share_backbone_and_view_are_told_apart_by_their_files(folder, capsys):
    arguments = ["--backbone", "resnet50", "--weights", "random", "--size", "12"]
    assert run(["extract", *arguments]) == 0
    assert "resnet50-random0-12-avg-rgb, resnet50-random0-8-avg-rgb" in fail(
        capsys, "--features", "resnet50"
    )
    chosen = ["--features", "resnet50-random0-12-avg-rgb+resnet50-random0-8-avg-rgb"]
    assert run(["fit", "--head", "logistic", *chosen]) == 0
    assert read_run(folder)["features"]["color"] == [
        "resnet50-random0-12-avg-rgb",
        "resnet50-random0-8-avg-rgb",
    ]


def test_moved_weights_need_a_backbone_where_a_run_reads_several(folder, capsys):
    features = "kind=xception:grey,color=resnet50"
    assert run(["fit", "--head", "logistic", "--features", features]) == 0
    capsys.readouterr()
    assert run(["predict", "dataset", "--weights", "random"]) == 1
    assert "Expected BACKBONE=PATH" in capsys.readouterr().err
    given = "xception=random,resnet50=random"
    assert run(["predict", "dataset/red_plain", "--weights", given]) == 0
