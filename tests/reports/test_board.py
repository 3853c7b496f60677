from dataclasses import dataclass, fields, replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from featurepipe.manifest import Labels
from featurepipe.predictions import Predictions
from featurepipe.reports.board import COLUMNS, Costs, leaderboard, write_leaderboard

PLANNED = (
    "run, backbone, view, weights, head, task, attribute, split, n_train, n_test, "
    "selection_accuracy, accuracy, accuracy_low, accuracy_high, balanced_accuracy, macro_f1, "
    "top5_accuracy, log_loss, brier, ece, n_unseen, unseen_accuracy, unseen_accuracy_low, "
    "unseen_accuracy_high, subset_accuracy, label_accuracy, micro_f1, map, "
    "extract_images_per_s, fit_s, predict_ms_per_image, model_bytes, "
    "n_parameters, epochs, peak_memory_bytes, predict_images_per_s"
)
FURTHER = (
    "solver, calibrate, current, interval, accuracy_sd, tied_with_best, log_loss_sd, "
    "log_loss_tied_with_best, unseen_accuracy_sd, unseen_harmonic_mean, "
    "unseen_balanced_accuracy, unseen_macro_f1, unseen_log_loss, "
    "answered, unseen_answered, risk_coverage_area"
)


COSTS = Costs(
    extract_images_per_s=123.456789, fit_s=2.0, predict_ms_per_image=0.25, model_bytes=1234567
)


@dataclass
class FakeRun:
    name: str
    info: SimpleNamespace
    predictions: Predictions


def make_run(name, n_right=6, split="test20-seed0", number=0, part="test", groups=None, **facts):
    """A run that gets the colour of `n_right` of 8 images right."""
    codes = np.arange(8) % 2
    indicator = np.eye(2, dtype=bool)[codes]
    right = np.where(np.arange(8) < n_right, 0.75, 0.25)[:, None]
    scores = np.where(indicator, right, 1 - right)
    labels = Labels("color", ("blue", "red"), True, indicator, np.ones(8, bool))
    predictions = Predictions.of(
        np.array([f"{row}.jpg" for row in range(8)]),
        np.full(8, part),
        np.arange(8) if groups is None else groups,
        "per-attribute",
        {"color": labels},
        {"color": scores},
    )
    names = {field.name for field in fields(Costs)}
    info = {
        "family": f"family of {name}",
        "split": SimpleNamespace(name=split, number=number, series="seed0"),
        "backbone": {"color": "xception", "all": "xception"},
        "view": {"color": "rgb", "all": "rgb"},
        "weights": {"color": "imagenet", "all": "imagenet"},
        "head": "bagged-sgd",
        "solver": None,
        "calibrate": None,
        "task": "per-attribute",
        "n_train": {"color": 32},
        "selection_accuracy": {"color": 0.8125, "all": 0.8125},
        "costs": replace(COSTS, **{key: facts[key] for key in facts if key in names}),
    }
    info |= {key: facts[key] for key in facts if key not in names}
    return FakeRun(name, SimpleNamespace(**info), predictions)


def test_columns_are_those_of_the_plan_in_its_order():
    assert leaderboard([make_run("a")]).columns.tolist() == list(COLUMNS)
    planned, further = PLANNED.split(", "), FURTHER.split(", ")
    assert [name for name in COLUMNS if name in planned] == planned
    ends = {name for name in COLUMNS if name.endswith(("_low", "_high"))}
    assert set(COLUMNS) - ends == {*planned, *further} - ends


def test_ends_of_an_interval_follow_their_figure():
    figures = [*COLUMNS[COLUMNS.index("accuracy") : COLUMNS.index("extract_images_per_s")]]
    no_figures = {"n_unseen", "tied_with_best", "log_loss_tied_with_best"}
    measured = [
        name
        for name in figures
        if not name.endswith(("_low", "_high", "_sd")) and name not in no_figures
    ]
    for name in measured:
        place = figures.index(name)
        assert figures[place : place + 3] == [name, f"{name}_low", f"{name}_high"]


def test_a_run_on_other_labels_or_images_is_not_current():
    board = leaderboard([make_run("a"), make_run("b")], {"b"})
    assert dict(zip(board["run"], board["current"], strict=True)) == {"a": True, "b": False}


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


def random_run(name, p_right, seed, **info):
    """Answers to 400 images, right with the given probability, and as sure as that."""
    rng = np.random.default_rng(seed)
    indicator = np.eye(2, dtype=bool)[np.arange(400) % 2]
    sure = np.where(rng.random(400) < p_right, p_right, 1 - p_right)[:, None]
    run = make_run(name, **info)
    labels = Labels("color", ("blue", "red"), True, indicator, np.ones(400, bool))
    scores = np.where(indicator, sure, 1 - sure)
    ids = np.array([f"{row}.jpg" for row in range(400)])
    run.predictions = Predictions.of(
        ids,
        np.full(400, "test"),
        np.arange(400),
        "per-attribute",
        {"color": labels},
        {"color": scores},
    )
    return run


def test_runs_that_the_data_cannot_tell_from_the_best_are_tied_with_it():
    runs = [random_run("a", 0.9, 0), random_run("b", 0.9, 1), random_run("c", 0.7, 2)]
    board = leaderboard(runs).set_index(["run", "attribute"])
    for column in ["tied_with_best", "log_loss_tied_with_best"]:
        assert board.loc[(["a", "b"], "color"), column].tolist() == [True, True]
        assert board.loc[("c", "color"), column] is np.False_


def test_runs_of_different_questions_are_not_compared():
    elsewhere = random_run("b", 0.6, 1, split="z")
    relabelled = random_run("c", 0.6, 1)
    relabelled.predictions.labels["color"].indicator[:] = True
    board = leaderboard([random_run("a", 0.9, 0), elsewhere, relabelled])
    assert board["tied_with_best"].isna().all()


def test_runs_that_are_calibrated_otherwise_are_told_apart():
    runs = [make_run("a", calibrate="none"), make_run("b")]
    board = leaderboard(runs).set_index("run")["calibrate"]
    assert board["a"].tolist() == ["none", "none"]
    assert board["b"].isna().all()


def test_the_solver_tells_literal_bagged_sgd_apart():
    runs = [make_run("a"), make_run("b", solver="sklearn")]
    solvers = leaderboard(runs).set_index("run")["solver"]
    assert solvers["b"].tolist() == ["sklearn", "sklearn"]
    assert solvers["a"].isna().all()


def make_family(*n_right):
    """Runs of three splits, whose names are not in the order of the splits."""
    return [
        make_run(
            f"run{repeat}",
            right,
            split=f"seed0-repeat{repeat}",
            number=0 if repeat == 2 else repeat,
            family="both",
            fit_s=float(repeat),
        )
        for repeat, right in enumerate(n_right, start=1)
    ]


def test_runs_over_repeated_splits_are_summarised():
    board = leaderboard([*make_family(5, 6, 7), make_run("alone", split="seed0")])
    summary = "run2 (3 splits)"
    assert board["run"].tolist()[::2] == ["alone", summary, "run1", "run2", "run3"]
    row = board.set_index(["run", "attribute"]).loc[(summary, "color")]
    assert (row["split"], row["interval"]) == ("seed0 (3 splits)", "splits")
    assert (row["backbone"], row["head"], row["n_train"], row["n_test"]) == (
        "xception",
        "bagged-sgd",
        32,
        8,
    )
    assert (row["accuracy"], row["accuracy_sd"], row["fit_s"]) == (0.75, 0.125, 2)
    # Nadeau & Bengio: t of 2 degrees of freedom is 4.302653; 8 images tested, 32 trained.
    reach = 4.302653 * 0.125 * np.sqrt(1 / 3 + 8 / 32)
    assert row["accuracy_low"] == pytest.approx(0.75 - reach)
    assert row["accuracy_high"] == 1 < 0.75 + reach
    assert pd.isna(row["tied_with_best"])
    assert set(board.loc[board["run"] != summary, "interval"]) == {"images"}


def test_a_single_repeat_has_no_summary():
    assert leaderboard(make_family(5))["run"].tolist() == ["run1", "run1"]


def test_unseen_combinations_have_no_interval_over_splits():
    runs = make_family(4, 6)
    for run in runs:
        parts = np.repeat(["unseen", "test"], 4)
        run.predictions = replace(run.predictions, parts=parts)
    row = leaderboard(runs).iloc[0]
    assert row["run"] == "run2 (2 splits)"
    assert (row["unseen_accuracy"], row["unseen_accuracy_sd"]) == (1, 0)
    assert pd.isna(row["unseen_accuracy_low"])


def test_grouped_images_say_so():
    board = leaderboard([make_run("a", groups=np.array([0, 0, 1, 2, 3, 4, 5, 6]))])
    assert board["interval"].tolist() == ["groups", "groups"]


def test_facts_that_a_run_lacks_are_missing():
    run = make_run("a", fit_s=None, extract_images_per_s=None)
    board = leaderboard([run, make_run("b")])
    assert board.set_index("run").loc["a", ["fit_s", "extract_images_per_s"]].isna().all(axis=None)


OF_NETWORK = {"n_parameters": 23_587_712, "epochs": 41, "peak_memory_bytes": 5_368_709_120}


def test_a_network_says_what_it_costs_and_a_head_does_not(tmp_path):
    board = leaderboard([make_run("head"), make_run("network", **OF_NETWORK)])
    assert board.columns[-4:].tolist() == [*OF_NETWORK, "predict_images_per_s"]
    assert set(board.dtypes[list(OF_NETWORK)].astype(str)) == {"Int64"}
    by_run = board.set_index("run")
    for name, value in OF_NETWORK.items():
        assert by_run.loc["network", name].tolist() == [value, value]
        assert by_run.loc["head", name].isna().all()
    assert board["predict_images_per_s"].tolist() == [4000.0] * 4
    write_leaderboard(board, tmp_path / "leaderboard.csv")
    _, *lines = (tmp_path / "leaderboard.csv").read_text().splitlines()
    assert {line.split(",", 1)[0]: line.rsplit(",", 5)[1:] for line in lines} == {
        "head": ["1234567", "", "", "", "4000"],
        "network": ["1234567", "23587712", "41", "5368709120", "4000"],
    }


@pytest.mark.parametrize("ms", [None, float("nan")])
def test_a_run_of_unknown_speed_predicts_no_images_a_second(ms):
    board = leaderboard([make_run("a", predict_ms_per_image=ms)])
    assert board["predict_images_per_s"].isna().all()


def test_costs_of_networks_are_averaged_over_splits():
    runs = make_family(5, 6, 7)
    for run, epochs, ms in zip(runs, [10, 20, 33], [1.0, 2.0, 4.0], strict=True):
        measured = OF_NETWORK | {"epochs": epochs, "predict_ms_per_image": ms}
        run.info.costs = replace(run.info.costs, **measured)
    row = leaderboard(runs).set_index(["run", "attribute"]).loc[("run2 (3 splits)", "color")]
    assert row[["n_parameters", "peak_memory_bytes"]].tolist() == [23_587_712, 5_368_709_120]
    assert (row["epochs"], row["predict_ms_per_image"]) == (21, pytest.approx(7 / 3))
    assert row["predict_images_per_s"] == pytest.approx((1000 + 500 + 250) / 3)


def test_words_that_differ_between_the_splits_vary():
    runs = make_family(5, 6)
    runs[1].info.head = "logistic"
    row = leaderboard(runs).set_index(["run", "attribute"]).loc[("run2 (2 splits)", "all")]
    assert (row["head"], row["solver"]) == ("varies", runs[0].info.solver)


def test_csv_has_empty_cells_and_six_digits(tmp_path):
    write_leaderboard(leaderboard([make_run("a")]), tmp_path / "leaderboard.csv")
    lines = (tmp_path / "leaderboard.csv").read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    cells = dict(zip(COLUMNS, lines[1].split(","), strict=True))
    assert cells["accuracy_low"] == "0.349144"
    assert cells["log_loss"] == "0.562335"
    assert cells["extract_images_per_s"] == "123.457"
    assert cells["model_bytes"] == "1234567"
    assert cells["predict_images_per_s"] == "4000"
    assert cells["n_parameters"] == cells["epochs"] == cells["peak_memory_bytes"] == ""
    assert cells["n_unseen"] == "0"
    assert cells["top5_accuracy"] == cells["unseen_accuracy"] == cells["map"] == ""
    assert dict(zip(COLUMNS, lines[2].split(","), strict=True))["n_train"] == ""


def test_csv_is_read_back_as_it_was(tmp_path):
    board = leaderboard([make_run("a"), make_run("b", 2)])
    write_leaderboard(board, tmp_path / "leaderboard.csv")
    read = pd.read_csv(tmp_path / "leaderboard.csv")
    empty = ["solver", "calibrate", "n_parameters", "epochs", "peak_memory_bytes"]
    board = board.astype(dict.fromkeys(["n_train", *empty], "float64"))
    pd.testing.assert_frame_equal(read, board, check_dtype=False, rtol=1e-5, atol=1e-9)


def test_no_runs_make_an_empty_board(tmp_path):
    board = leaderboard([])
    assert board.empty
    write_leaderboard(board, tmp_path / "leaderboard.csv")
    assert (tmp_path / "leaderboard.csv").read_text() == ",".join(COLUMNS) + "\n"
