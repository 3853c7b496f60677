import json
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from command_line import fail, succeed
from featurepipe import FeatureStore
from featurepipe.cli import run
from featurepipe.files import only_writer
from featurepipe.output_folders import MARKER
from featurepipe.reports.board import COLUMNS
from pictures import draw, draw_data_set

EXTRACT = ["extract", "dataset", "--attributes", "color,kind", "--weights", "random", "--size", "8"]


@pytest.fixture
def folder(tmp_path, monkeypatch, colour_mean):
    monkeypatch.chdir(tmp_path)
    draw_data_set(tmp_path / "dataset", n_each=12)
    return tmp_path


def test_the_main_job_from_images_to_predictions(folder, capsys):
    out = succeed(capsys, *EXTRACT, "--backbone", "resnet50,MobileNetV2")
    assert "96 images" in out
    assert sorted(path.name for path in (folder / "features").glob("*.h5")) == [
        "mobilenet_v2-random0-8-avg-rgb.h5",
        "resnet50-random0-8-avg-rgb.h5",
    ]
    out = succeed(capsys, "fit", "--head", "logistic")
    # Test figures are for the board.
    assert out.splitlines()[1].split() == ["run", "images", "accuracy", "color", "kind", "fit"]
    runs = [line for line in out.splitlines() if "-logistic" in line]
    assert len(runs) == 2 and all(line.endswith(" s") for line in runs)
    succeed(capsys, "fit", "--head", "logistic", "--task", "multi-label")
    out = succeed(capsys, "report")
    board = pd.read_csv(folder / "leaderboard.csv")
    assert list(board.columns) == list(COLUMNS)
    assert len(board) == 4 * 3
    assert set(board["attribute"]) == {"all", "color", "kind"}
    assert set(board["weights"]) == {"random"}
    assert set(board["n_test"]) == {19}
    assert set(board["n_train"]) == {77}
    assert (board["accuracy"][board["attribute"] == "color"] >= 0.9).all()
    assert board["run"][0] in out

    draw(folder / "new" / "red.png", "red", bright_top=True, seed=99)
    (folder / "new" / "broken.jpg").write_bytes(b"broken")
    capsys.readouterr()
    assert run(["predict", "new", "--top", "2", "--annotate", "out"]) == 1
    answers, said = capsys.readouterr()
    assert "\n  new/broken.jpg: not an image (" in said
    assert said.endswith(
        "\nfeaturepipe: No answer for 1 of 2 images (see above). The others are predicted.\n"
    )
    lines = answers.splitlines()
    assert lines[0] == "image,attribute,rank,class,probability,given,unknown,refused"
    assert lines[1].startswith('new/broken.jpg,,,,,,,"not an image')
    assert lines[2].startswith("new/red.png,color,1,red,0.")
    assert lines[4].startswith("new/red.png,kind,1,bright,0.")
    assert len(lines) == 6
    assert {path.name for path in (folder / "out").iterdir()} == {MARKER, "0002-red.jpg"}


def test_images_unlike_those_trained_on_are_marked_unknown(folder, capsys):
    succeed(capsys, *EXTRACT, "--backbone", "resnet50")
    succeed(capsys, "fit", "--head", "logistic")
    draw(folder / "new" / "green.png", "green", bright_top=False, seed=1)
    draw(folder / "new" / "red.png", "red", bright_top=False, seed=99)
    green, red = map(json.loads, succeed(capsys, "predict", "new", "--json").splitlines())
    assert green["attributes"]["color"][0]["unknown"] is True
    assert green["attributes"]["color"][0]["given"] is False
    assert red["attributes"]["color"][0]["unknown"] is False
    assert red["attributes"]["color"][0]["given"] is True
    everything = succeed(capsys, "predict", "new", "--coverage", "1", "--json").splitlines()
    assert json.loads(everything[0])["attributes"]["color"][0]["given"] is True

    assert run(["predict", "new/green.png", "--unrelated"]) == 0
    said = capsys.readouterr().err
    assert "color: 100.0 % of 1 unrelated images are marked unknown, and " in said
    assert "of 19 test images; AUROC of unrelated against test images 1.000." in said
    board = json.loads(succeed(capsys, "report", "--json"))
    assert all(0.7 <= row["answered"] <= 1 for row in board)
    facts = json.loads(next(folder.glob("runs/*/run.json")).read_text())
    assert facts["reliability"]["calibrated"]["color"]["bins"]
    assert set(facts["reliability"]["uncalibrated"]) == {"color", "kind"}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows refuses such names")
def test_predictions_keep_every_byte_of_a_name(folder, capsysbinary, monkeypatch):
    assert run([*EXTRACT, "--backbone", "resnet50"]) == 0
    assert run(["fit", "--head", "logistic"]) == 0
    name = "new/r\x1b[2Jéd.png"
    draw(folder / name, "red", bright_top=True, seed=99)
    capsysbinary.readouterr()
    assert run(["predict", "new"]) == 0
    lines = capsysbinary.readouterr().out.splitlines()
    assert [line.split(b",")[:4] for line in lines[1:]] == [
        [name.encode(), b"color", b"1", b"red"],
        [name.encode(), b"kind", b"1", b"bright"],
    ]
    assert run(["predict", "new", "--json"]) == 0
    (line,) = capsysbinary.readouterr().out.decode().splitlines()
    assert json.loads(line)["image"] == name
    assert "\x1b" not in line
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert run(["predict", "new"]) == 0
    shown = capsysbinary.readouterr().out.decode().splitlines()
    assert shown[1].startswith("new/r\\u001b[2Jéd.png,color,1,red,")


def test_json_of_every_command_is_json(folder, capsys):
    done = json.loads(succeed(capsys, *EXTRACT, "--backbone", "resnet50", "--json"))
    assert done[0]["n_images"] == done[0]["n_embedded"] == 96
    fitted = json.loads(succeed(capsys, "fit", "--head", "logistic", "--json"))
    assert [row["attribute"] for row in fitted] == ["color", "kind", "all"]
    board = json.loads(succeed(capsys, "report", "--json"))
    assert list(board[0]) == list(COLUMNS)
    lines = succeed(capsys, "predict", "dataset/red_plain", "--json").splitlines()
    assert len(lines) == 12
    answer = json.loads(lines[0])
    assert answer["image"] == "dataset/red_plain/00.png"
    assert answer["attributes"]["color"][0]["class"] == "red"
    assert 0.5 < answer["attributes"]["color"][0]["probability"] <= 1
    facts = json.loads(succeed(capsys, "info", ".", "--json"))
    assert facts["images"] == 96
    assert [run["name"] for run in facts["runs"]] == [fitted[0]["run"]]
    backbones = json.loads(succeed(capsys, "extract", "--list-backbones", "--json"))
    assert {"xception", "resnet50"} < {row["name"] for row in backbones}


def test_a_second_extraction_needs_no_path_and_finds_new_images(folder, capsys, colour_mean):
    succeed(capsys, *EXTRACT, "--backbone", "resnet50")
    draw(folder / "dataset" / "red_plain" / "new.png", "red", bright_top=False, seed=5)
    again = ["extract", "--backbone", "resnet50", "--weights", "random", "--size", "8", "--json"]
    done = json.loads(succeed(capsys, *again))
    assert (done[0]["n_images"], done[0]["n_embedded"]) == (97, 1)
    assert colour_mean[-1].n_embedded == 1


def test_the_current_folder_serves_where_no_source_is_given(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder / "dataset")
    arguments = ["extract", "--backbone", "resnet50", "--weights", "random", "--size", "8"]
    assert "96 images" in succeed(capsys, *arguments)
    succeed(capsys, "fit", "--head", "logistic")
    assert "96 images" in succeed(capsys, *arguments)


def test_held_out_combinations_are_never_trained_on(folder, capsys):
    succeed(capsys, *EXTRACT, "--backbone", "resnet50")
    succeed(capsys, "fit", "--head", "logistic", "--hold-out", "red_bright")
    board = json.loads(succeed(capsys, "report", "--json"))
    row = next(row for row in board if row["attribute"] == "all")
    assert (row["n_unseen"], row["n_test"]) == (12, 17)
    assert row["split"] == "test20-seed0-without-red_bright"
    assert 0 <= row["unseen_accuracy_low"] <= row["unseen_accuracy"] <= row["unseen_accuracy_high"]


def test_every_combination_is_held_out_in_turn(folder, capsys):
    succeed(capsys, *EXTRACT, "--backbone", "resnet50")
    by_hand = json.loads(
        succeed(capsys, "fit", "--head", "logistic", "--hold-out", "red_bright", "--json")
    )
    out = succeed(capsys, "fit", "--head", "logistic", "--hold-out-each", "--json")
    runs = {row["split"]: row["run"] for row in json.loads(out)}
    colours = ("black", "blue", "red", "white")
    assert set(runs) == {
        f"test20-seed0-without-{colour}_{kind}"
        for colour in colours
        for kind in ("bright", "plain")
    }
    assert runs[by_hand[0]["split"]] == by_hand[0]["run"]
    assert len(list((folder / "splits").glob("*.json"))) == len(runs)
    line = fail(capsys, "fit", "--hold-out-each", "--hold-out", "red_bright")
    assert "--hold-out red_bright cannot be combined with --hold-out-each" in line


def test_near_duplicates_are_listed_and_kept_on_one_side(folder, capsys):
    shutil.rmtree(folder / "dataset")
    rng = np.random.default_rng(0)
    for number in range(80):
        # Of any colours, so that images of one class are not all alike.
        pixels = rng.integers(0, 256, (2, 1, 3)).repeat(4, axis=0).repeat(8, axis=1)
        path = folder / "dataset" / ("a_x", "a_y", "b_x", "b_y")[number % 4] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    originals = sorted((folder / "dataset").glob("*/[1-3]?.png"))
    for original in originals:
        # Other bytes, the same pixels.
        Image.open(original).save(original.with_name(f"{original.stem}c.png"), compress_level=0)
    succeed(capsys, *EXTRACT, "--backbone", "resnet50")
    arguments = ["fit", "--head", "logistic"]
    succeed(capsys, *arguments)
    parts = json.loads((folder / "splits" / "test20-seed0.json").read_text())["group_of_image"]
    part_of = {image_id: part for part, ids in parts.items() for image_id in ids}
    copies = {
        (f"{path.parent.name}/{path.name}", f"{path.parent.name}/{path.stem}c.png")
        for path in originals
    }
    listed = pd.read_csv(folder / "splits" / "test20-seed0-near-duplicates.csv")
    across = {pair for pair in copies if part_of[pair[0]] != part_of[pair[1]]}
    assert across
    same = listed[listed["distance"] == 0]
    assert set(zip(same["image"], same["other_image"], strict=True)) == across
    assert (listed["part"] == listed["image"].map(part_of)).all()
    assert (listed["other_part"] == listed["other_image"].map(part_of)).all()
    assert set(listed["store"]) == {"resnet50-random0-8-avg-rgb"}

    remembered = folder / "features" / "resnet50-random0-8-avg-rgb-near-duplicates.npz"
    written = remembered.stat().st_mtime_ns
    capsys.readouterr()
    assert run([*arguments, "--quiet"]) == 0
    assert remembered.stat().st_mtime_ns == written
    warning = capsys.readouterr().err
    assert f"Split test20-seed0: {len(listed)} pairs of near-duplicates" in warning
    assert run([*arguments, "--group-duplicates", "--json"]) == 0
    out, err = capsys.readouterr()
    assert "near-duplicate images together in" in err
    assert "pairs of near-duplicates" not in err
    (split,) = {row["split"] for row in json.loads(out)}
    assert split == "test20-seed0-grouped"
    parts = json.loads((folder / "splits" / f"{split}.json").read_text())["group_of_image"]
    for pair in copies:
        assert sum(set(pair) <= set(ids) for ids in parts.values()) == 1
    assert not (folder / "splits" / f"{split}-near-duplicates.csv").exists()


def test_classes_of_imagenet_are_said_where_weights_may_be_of_it(folder, capsys, monkeypatch):
    for path in list((folder / "dataset").iterdir()):
        path.rename(
            path.with_name(path.name.replace("red_", "tench_").replace("blue_", "daisies_"))
        )
    (folder / "mine.weights.h5").write_bytes(b"whatever")
    for weights in ("random", "mine.weights.h5"):
        where = ["--workspace", weights[:4]]
        extract = [*EXTRACT[:4], "--size", "8", "--weights", weights, "--backbone", "resnet50"]
        succeed(capsys, *extract, *where)
        assert run(["fit", "--head", "logistic", *where]) == 0
        said = capsys.readouterr().err
        warning = "2 of 6 classes have names of ImageNet's own 1,000."
        assert (warning in said) == (weights != "random")
        assert ("before: daisies, tench" in said) == (weights != "random")


def test_colours_alone_show_no_near_duplicates(folder, capsys):
    succeed(capsys, *EXTRACT[:4], "--backbone", "hsv-histogram")
    line = fail(capsys, "fit", "--group-duplicates")
    assert "Colours alone do not show near-duplicates" in line


def test_repeated_splits_are_summarised_on_the_board(folder, capsys):
    succeed(capsys, *EXTRACT, "--backbone", "resnet50")
    succeed(capsys, "fit", "--head", "logistic")
    succeed(capsys, "fit", "--head", "logistic", "--repeats", "3")
    board = pd.DataFrame(json.loads(succeed(capsys, "report", "--json")))
    board = board[board["attribute"] == "all"].set_index("interval")
    summary, single = board.loc["splits"], board.loc["images"]
    assert summary["split"] == "test20-seed0 (3 splits)"
    assert len(single) == 3
    assert summary["accuracy"] == pytest.approx(single["accuracy"].mean())
    assert summary["log_loss_sd"] == pytest.approx(single["log_loss"].std())
    assert summary["run"] not in set(single["run"])


def test_the_same_fit_gives_the_same_run_byte_for_byte(folder, capsys):
    succeed(capsys, *EXTRACT, "--backbone", "resnet50")

    def files():
        succeed(capsys, "fit", "--head", "bagged-sgd")
        (run_folder,) = (folder / "runs").iterdir()
        return {
            name: (run_folder / name).read_bytes() for name in ("heads.skops", "predictions.npz")
        }

    assert files() == files()


def test_relabelling_extracts_nothing(folder, capsys, monkeypatch):
    succeed(capsys, *EXTRACT, "--backbone", "resnet50")
    monkeypatch.setattr("featurepipe.features.extraction.recipe.open_engine", pytest.fail)
    ids = [str(path.relative_to(folder / "dataset")) for path in folder.glob("dataset/*/*.png")]
    table = pd.DataFrame({"path": ids, "dark": ["black" in name or "blue" in name for name in ids]})
    table.to_csv(folder / "labels.csv", index=False)
    out = succeed(capsys, "fit", "--head", "logistic", "--labels", "labels.csv", "--json")
    assert [row["attribute"] for row in json.loads(out)] == ["dark", "all"]
    assert json.loads(out)[0]["selection_accuracy"] > 0.9


def test_refused_images_are_listed_and_strict_fails(folder, capsys):
    broken = folder / "dataset" / "red_plain" / "00.png"
    broken.write_bytes(b"")
    arguments = [*EXTRACT, "--backbone", "resnet50"]
    assert run(arguments) == 0
    out, err = capsys.readouterr()
    assert "1 refused" in out
    assert "red_plain/00.png: empty file" in err
    line = fail(capsys, *arguments, "--strict")
    assert "1 of 96 images were refused or could not be read (see above)" in line
    assert "--strict allows none" in line


def test_info_tells_what_a_store_is_and_verifies_it(folder, capsys):
    succeed(capsys, *EXTRACT, "--backbone", "resnet50")
    (store,) = (folder / "features").glob("*.h5")
    out = succeed(capsys, "info", str(store), "--verify")
    assert "96 rows: checksums and images match" in out
    draw(folder / "dataset" / "red_plain" / "00.png", "blue", bright_top=False, seed=1)
    line = fail(capsys, "info", str(store), "--verify")
    assert "red_plain/00.png (image changed)" in line
    assert "Run featurepipe extract --rehash again." in line
    assert "There is no nothing." in fail(capsys, "info", "nothing")


def test_another_writer_is_refused(folder, capsys):
    succeed(capsys, *EXTRACT, "--backbone", "resnet50")
    with only_writer(folder):
        line = fail(capsys, "fit")
    assert "Another featurepipe process is writing to" in line
    assert "--workspace" in line


def test_a_store_from_other_weights_is_refused(folder, capsys):
    succeed(capsys, *EXTRACT, "--backbone", "resnet50")
    succeed(capsys, "fit", "--head", "logistic")
    (folder / "other.h5").write_bytes(b"other")
    line = fail(capsys, "predict", "dataset", "--weights", "other.h5")
    assert "would not be the features of before" in line
    assert "weights.kind is 'random', not 'file'" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["extract", "absent"], "absent"),
        (["extract", "empty"], "empty"),
        (["extract", "dataset", "--backbone", "resnet5"], "Did you mean 'resnet50'?"),
        (["extract", "dataset", "--weights", "absent.h5"], "There are no weights at 'absent.h5'"),
        (["extract", "dataset", "--view", "gray"], "Did you mean 'grey'?"),
        (["fit"], "has no images yet"),
        (["report"], "has no run yet"),
        (["predict", "dataset"], "has no run yet"),
        (["predict", "absent/*.jpg"], "absent/*.jpg"),
    ],
)
def test_bad_input_is_one_clear_line(folder, capsys, arguments, message):
    (folder / "empty").mkdir()
    assert message in fail(capsys, *arguments)
    assert not (folder / "manifest.parquet").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "--head", "bagged-sdg"], "Did you mean 'bagged-sgd'?"),
        (["fit", "--backbone", "xception"], "featurepipe extract --backbone xception"),
        (["fit", "--hold-out", "red_brigth"], "Did you mean 'red_bright'?"),
        (["fit", "--variance-threshold", "7"], "--variance-threshold"),
        (["predict", "dataset", "--run", "absent"], "Unknown run 'absent'"),
    ],
)
def test_bad_input_to_fit_is_one_clear_line(folder, capsys, arguments, message):
    succeed(capsys, *EXTRACT, "--backbone", "resnet50")
    assert message in fail(capsys, *arguments)
    assert not (folder / "runs").exists()


def test_what_is_tuned_is_kept_and_said(folder, capsys):
    succeed(capsys, *EXTRACT, "--backbone", "resnet50")
    line = fail(capsys, "fit", "--tune", "--variance-threshold", "5%")
    assert "--tune cannot be combined with --variance-threshold 5%" in line
    line = fail(capsys, "fit", "--curve", "images", "--memory", "4GB")
    assert "--curve images cannot be combined with --memory 4GB" in line
    assert run(["fit", "--tune", "--head", "knn"]) == 0
    said = capsys.readouterr().err
    assert "Tuned color of resnet50-knn: " in said and "Tuned kind of resnet50-knn: " in said
    (kept,) = (folder / "runs").glob("*/run.json")
    info = json.loads(kept.read_text())
    assert info["settings"]["tune"] is True
    assert set(info["tuned"]) == {"color", "kind"}
    for tuned in info["tuned"].values():
        assert set(tuned["chosen"]) == {"variance_threshold", "scaling"}
        assert tuned["log_loss"] <= tuned["default_log_loss"]


def test_a_class_of_too_few_images_cannot_be_split(folder, capsys):
    draw(folder / "dataset" / "pink_plain" / "a.png", "red", bright_top=False, seed=1)
    succeed(capsys, *EXTRACT, "--backbone", "resnet50")
    line = fail(capsys, "fit")
    assert "'pink'" in line and "3" in line


@pytest.mark.parametrize(
    ("damage", "message", "advice"),
    [
        (
            lambda store: store.write_bytes(store.read_bytes()[:-100]),
            "its end is missing",
            "Run featurepipe extract again",
        ),
        (
            lambda store: store.write_bytes(b"something else"),
            "it is not an HDF5 file",
            "Run featurepipe extract again",
        ),
    ],
)
def test_a_damaged_store_is_one_clear_line(folder, capsys, damage, message, advice):
    succeed(capsys, *EXTRACT, "--backbone", "resnet50")
    (store,) = (folder / "features").glob("*.h5")
    damage(store)
    damaged = store.read_bytes()
    for command in ("fit", "info"):
        line = fail(capsys, command, *([str(store)] if command == "info" else []))
        assert message in line and advice in line
    assert store.read_bytes() == damaged
    assert run([*EXTRACT, "--backbone", "resnet50"]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "is damaged" in line]
    assert len(said) == 1 and message in said[0] and "computed again" in said[0]
    succeed(capsys, "fit", "--head", "logistic")


def test_no_readable_image_is_one_clear_line(folder, capsys):
    for image in folder.glob("dataset/*/*.png"):
        image.write_bytes(b"broken")
    line = fail(capsys, *EXTRACT)
    assert "None of the 96 images can be read" in line


def test_no_readable_image_to_predict_is_one_clear_line(folder, capsys):
    succeed(capsys, *EXTRACT)
    succeed(capsys, "fit", "--head", "logistic")
    for image in folder.glob("dataset/red_plain/*.png"):
        image.write_bytes(b"broken")
    assert "None of the 12 images can be read" in fail(capsys, "predict", "dataset/red_plain")


def test_a_full_disk_is_one_clear_line(folder, capsys, monkeypatch):
    class Usage:
        free = 10

    monkeypatch.setattr("featurepipe.features.store.layout.shutil.disk_usage", lambda _: Usage)
    assert "The disk is full" in fail(capsys, *EXTRACT)


def test_ctrl_c_exits_with_130_and_keeps_what_is_done(folder, capsys, monkeypatch):
    batches = iter(range(100))

    def interrupted(self, images):
        if next(batches) == 2:
            raise KeyboardInterrupt
        return compute(self, images)

    from pictures import ColourMean

    compute = ColourMean.compute
    monkeypatch.setattr(ColourMean, "compute", interrupted)
    assert run([*EXTRACT, "--backbone", "resnet50"]) == 130
    assert "Finished work is saved" in capsys.readouterr().err
    monkeypatch.setattr(ColourMean, "compute", compute)
    (store,) = (folder / "features").glob("*.h5")
    with FeatureStore.open(store) as half:
        assert half.counts() == {"pending": 80, "done": 16, "refused": 0}
    done = json.loads(succeed(capsys, *EXTRACT, "--backbone", "resnet50", "--json"))
    assert done[0]["n_embedded"] == 80


def test_prediction_takes_the_run_that_training_rows_favour(folder, capsys):
    succeed(capsys, *EXTRACT, "--backbone", "resnet50")
    succeed(capsys, "fit", "--head", "logistic")
    succeed(capsys, "fit", "--head", "bagged-sgd")
    # A split of its own, whose figures are of other rows.
    succeed(capsys, "fit", "--head", "logistic", "--hold-out", "red_bright")
    board = json.loads(succeed(capsys, "report", "--json"))
    rows = [row for row in board if row["attribute"] == "all" and row["split"] == "test20-seed0"]
    best = min(rows, key=lambda row: (-row["selection_accuracy"], row["predict_ms_per_image"]))
    assert len(rows) == 2
    assert run(["predict", "dataset/red_plain"]) == 0
    assert f"Predicting with {best['run']}." in capsys.readouterr().err
    other = next(row["run"] for row in rows if row is not best)
    assert run(["predict", "dataset/red_plain", "--run", other]) == 0
    assert f"Predicting with {other}." in capsys.readouterr().err


def test_a_workspace_is_about_one_set_of_images(folder, capsys):
    succeed(capsys, *EXTRACT, "--backbone", "resnet50")
    for name in ("red_cat", "blue_dog"):
        draw(folder / "others" / name / "a.png", "red", bright_top=False, seed=0)
    line = fail(capsys, "extract", "others", "--weights", "random", "--size", "8")
    assert "holds other images: 96 images such as black_bright/00.png, read from" in line
    assert "None of them is among the 2 images of" in line
    assert line.endswith("such as blue_dog/a.png. Give another --workspace.")


def test_labels_of_a_table_with_groups(folder, capsys):
    ids = sorted(str(path.relative_to(folder / "dataset")) for path in folder.glob("dataset/*/*"))
    table = pd.DataFrame(
        {
            "image": [*ids, "absent.png"],
            "color": [*(name.split("_")[0] for name in ids), "red"],
            "owner": [*(f"owner {index % 30}" for index in range(len(ids))), "nobody"],
        }
    )
    table.to_csv(folder / "labels.csv", index=False)
    arguments = ["extract", "dataset", "--labels", "labels.csv", "--group", "owner"]
    assert run([*arguments, "--backbone", "resnet50", "--weights", "random", "--size", "8"]) == 0
    assert "1 row of labels.csv without an image" in capsys.readouterr().err
    fitted = json.loads(succeed(capsys, "fit", "--head", "logistic", "--json"))
    assert {row["attribute"] for row in fitted} == {"color", "all"}
    assert fitted[0]["split"] == "test20-seed0-by-owner"
    parts = json.loads((folder / "splits" / "test20-seed0-by-owner.json").read_text())
    owners = table.set_index("image")["owner"]
    sides = [set(owners[list(parts["group_of_image"][part])]) for part in ("train", "test")]
    assert sides[0] and sides[1] and not sides[0] & sides[1]
