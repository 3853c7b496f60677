import json
import logging
import sys

import pandas as pd
import pytest

from featurepipe.commands import terminal
from featurepipe.errors import UnknownNameError

CLEARS = "a\x1b[2J.png"
NO_TEXT = "caf\udce9.png"


def test_programs_get_every_byte(capsysbinary):
    terminal.write(f"{CLEARS}\n")
    terminal.write(NO_TEXT)
    assert capsysbinary.readouterr().out == b"a\x1b[2J.png\ncaf\xe9.png\n"


def test_a_terminal_gets_escapes(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    terminal.write(f"{CLEARS}\n{NO_TEXT}")
    assert capsys.readouterr().out == "a\\u001b[2J.png\ncaf\\udce9.png\n"


@pytest.mark.parametrize("name", [CLEARS, NO_TEXT, "c1\x9b2J", "größer"])
def test_json_is_valid_text_that_gives_the_same_value(capsysbinary, name):
    terminal.write_json({"image": name})
    terminal.write_json({"image": name}, indent=None)
    out = capsysbinary.readouterr().out.decode()
    assert out.replace("\n", "").isprintable()
    assert out.count("\n") == 4
    first, second = out[: out.index("}") + 1], out[out.index("}") + 1 :]
    assert json.loads(first) == json.loads(second) == {"image": name}


def test_log_lines_show_names_as_escapes(capsys):
    terminal.show_log(logging.WARNING)
    try:
        terminal.LOGGER.info("not shown")
        terminal.LOGGER.warning("1 image was refused: %s", CLEARS)
    finally:
        terminal.LOGGER.handlers.clear()
    assert capsys.readouterr().err == "1 image was refused: a\\u001b[2J.png\n"


def summary(*runs):
    rows = [
        {"run": run, "split": split, "attribute": attribute, "selection_accuracy": accuracy,
         "fit_s": fit_s, "n_train": 77}
        for run, split, accuracy, fit_s in runs
        for attribute in ("color", "all")
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_fitted_runs_are_one_line_each(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    table = summary(
        ("mobilenet_v2-bagged-sgd", "test20-seed0", 0.93751, 1.2345),
        ("xception-logistic", "test20-seed0", 1.0, 523.0),
        ("xception-knn", "test20-seed0", float("nan"), 12345.0),
    )
    terminal.write_runs(table, as_json=False)
    assert capsys.readouterr().out == (
        "                         training  selection\n"
        "run                        images   accuracy      fit\n"
        "mobilenet_v2-bagged-sgd        77     93.8 %  1 s\n"
        "xception-logistic              77    100.0 %  8.7 min\n"
        "xception-knn                   77      –      3.4 h\n"
        "\n"
        "Selection accuracy is the share of training images that are right, each predicted by a "
        "model that\nwas not fitted on it. Compare the runs on test images: featurepipe report\n"
    )


def test_runs_of_several_splits_name_their_split_and_fit_the_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    runs = [(f"mobilenet_v2-bagged-sgd-{n}", f"{n:x<40}", 0.9, 100.0) for n in range(2)]
    terminal.write_runs(summary(*runs), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.startswith("mobilenet")]
    assert [row[1] for row in rows] == [split for _, split, *_ in runs]
    assert max(map(len, lines)) <= 100


def test_fitted_runs_as_json_are_complete(capsys):
    table = summary(("xception-knn", "test20-seed0", float("nan"), 0.125))
    terminal.write_runs(table, as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert [row["attribute"] for row in rows] == ["color", "all"]
    assert set(rows[0]) == set(table.columns)
    assert (rows[0]["selection_accuracy"], rows[0]["fit_s"]) == (None, 0.125)


BOARD = pd.DataFrame({"attribute": ["color", "kind", "all"], "accuracy": [0.9, 0.8, 0.7]})


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize(
    ("attribute", "shown"), [(None, ["color", "kind", "all"]), ("kind", ["kind"])]
)
def test_the_board_as_json_has_every_row_or_those_of_one_attribute(capsys, attribute, shown, full):
    terminal.write_board(BOARD, attribute=attribute, full=full, as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert [row["attribute"] for row in rows] == shown


@pytest.mark.parametrize("as_json", [True, False])
def test_an_attribute_that_no_run_has_is_refused(as_json):
    with pytest.raises(UnknownNameError, match="Did you mean 'color'"):
        terminal.write_board(BOARD, attribute="colour", full=False, as_json=as_json)
