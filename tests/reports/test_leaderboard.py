from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from featurepipe.manifest import Labels
from featurepipe.predictions import Predictions
from featurepipe.reports.leaderboard import (
    COLUMNS,
    format_leaderboard,
    leaderboard,
    write_leaderboard,
)

DESIGNED = (
    "run, backbone, view, weights, head, task, attribute, split, n_train, n_test, "
    "selection_accuracy, accuracy, accuracy_low, accuracy_high, balanced_accuracy, macro_f1, "
    "top5_accuracy, log_loss, brier, ece, n_unseen, unseen_accuracy, unseen_accuracy_low, "
    "unseen_accuracy_high, subset_accuracy, label_accuracy, micro_f1, map, "
    "extract_images_per_s, fit_s, predict_ms_per_image, model_bytes"
)


@dataclass
class FakeRun:
    info: dict
    predictions: Predictions


def make_run(name, n_right=6, split="test20-seed0", part="test", **info):
    """A run that gets the colour of `n_right` of 8 images right."""
    codes = np.arange(8) % 2
    indicator = np.eye(2, dtype=bool)[codes]
    right = np.where(np.arange(8) < n_right, 0.75, 0.25)[:, None]
    scores = np.where(indicator, right, 1 - right)
    labels = Labels("color", ("blue", "red"), True, indicator, np.ones(8, bool))
    predictions = Predictions(
        np.array([f"{row}.jpg" for row in range(8)]),
        np.full(8, part),
        "per-attribute",
        {"color": labels},
        {"color": scores},
    )
    facts = {
        "run": name,
        "backbone": {"color": "xception", "all": "xception"},
        "view": {"color": "rgb", "all": "rgb"},
        "weights": {"color": "imagenet", "all": "imagenet"},
        "head": "bagged-sgd",
        "task": "per-attribute",
        "split": split,
        "n_train": {"color": 32},
        "selection_accuracy": {"color": 0.8125, "all": 0.8125},
        "extract_images_per_s": 123.456789,
        "fit_s": 2.0,
        "predict_ms_per_image": 0.25,
        "model_bytes": 1234567,
    }
    return FakeRun(facts | info, predictions)


def test_columns_are_those_of_the_plan():
    assert ", ".join(COLUMNS) == DESIGNED
    assert ", ".join(leaderboard([make_run("a")]).columns) == DESIGNED


def test_a_run_has_a_row_for_each_attribute_and_for_all():
    board = leaderboard([make_run("a")])
    assert board["attribute"].tolist() == ["color", "all"]
    color = board.iloc[0]
    assert (color["run"], color["split"], color["n_train"], color["n_test"]) == (
        "a",
        "test20-seed0",
        32,
        8,
    )
    assert color["selection_accuracy"] == 0.8125
    assert color["accuracy"] == 0.75
    assert color["log_loss"] == pytest.approx(-(6 * np.log(0.75) + 2 * np.log(0.25)) / 8)
    assert color["model_bytes"] == 1234567
    assert pd.isna(board.iloc[1]["n_train"])


def test_the_best_run_of_a_split_comes_first():
    runs = [
        make_run("weak", 3),
        make_run("elsewhere", 8, split="z"),
        make_run("strong", 7),
        make_run("b", 5),
        make_run("a", 5),
        make_run("untested", part="train"),
    ]
    board = leaderboard(runs)
    assert board["run"].tolist()[::2] == ["strong", "a", "b", "weak", "untested", "elsewhere"]


def test_facts_that_a_run_lacks_are_missing():
    run = make_run("a", fit_s=None)
    del run.info["extract_images_per_s"]
    board = leaderboard([run, make_run("b")])
    assert board.set_index("run").loc["a", ["fit_s", "extract_images_per_s"]].isna().all(axis=None)


def test_csv_has_empty_cells_and_six_digits(tmp_path):
    write_leaderboard(leaderboard([make_run("a")]), tmp_path / "leaderboard.csv")
    lines = (tmp_path / "leaderboard.csv").read_text().splitlines()
    assert lines[0] == DESIGNED.replace(", ", ",")
    cells = dict(zip(COLUMNS, lines[1].split(","), strict=True))
    assert cells["accuracy_low"] == "0.409275"
    assert cells["log_loss"] == "0.562335"
    assert cells["extract_images_per_s"] == "123.457"
    assert cells["model_bytes"] == "1234567"
    assert cells["n_unseen"] == "0"
    assert cells["top5_accuracy"] == cells["unseen_accuracy"] == cells["map"] == ""
    assert dict(zip(COLUMNS, lines[2].split(","), strict=True))["n_train"] == ""


def test_csv_is_read_back_as_it_was(tmp_path):
    board = leaderboard([make_run("a"), make_run("b", 2)])
    write_leaderboard(board, tmp_path / "leaderboard.csv")
    read = pd.read_csv(tmp_path / "leaderboard.csv")
    board["n_train"] = board["n_train"].astype("float64")
    pd.testing.assert_frame_equal(read, board, check_dtype=False, rtol=1e-5, atol=1e-9)


def test_the_terminals_board_leaves_out_what_says_nothing():
    text = format_leaderboard(leaderboard([make_run("a")]), width=10_000)
    header = text.splitlines()[0].split()
    assert "accuracy" in header
    for column in ["top5_accuracy", "n_unseen", "unseen_accuracy", "subset_accuracy", "map"]:
        assert column not in header
    assert "123.5" in text
    assert "nan" not in text.lower()
    assert "<NA>" not in text


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_terminals_board_is_wrapped_in_blocks(width):
    board = leaderboard([make_run("first"), make_run("second", 3)])
    text = format_leaderboard(board, width)
    assert max(map(len, text.splitlines())) <= width
    blocks = text.split("\n\n")
    assert len(blocks) > 1
    for block in blocks:
        header, *lines = block.splitlines()
        assert header.startswith("run    attribute")
        assert [line.split()[:2] for line in lines] == [
            ["first", "color"],
            ["first", "all"],
            ["second", "color"],
            ["second", "all"],
        ]


def test_no_runs_make_an_empty_board(tmp_path):
    board = leaderboard([])
    assert board.empty
    write_leaderboard(board, tmp_path / "leaderboard.csv")
    assert (tmp_path / "leaderboard.csv").read_text() == DESIGNED.replace(", ", ",") + "\n"
