import io

import pandas as pd
import pytest

from featurepipe.reports.csv_text import csv_text, write_csv

NAMES = ["plain", "a,b", 'say "x"', "two\nlines", "cr\rcr", "cr\r\nlf\r\n", "a\x1b[2J", "größer"]
FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"]


@pytest.mark.parametrize("name", [*NAMES, *FORMULAS])
def test_names_come_back_as_they_are(name):
    table = pd.DataFrame({"image": [name, "next"], "score": [-0.125, 2 / 3]})
    text = csv_text(table, "%.3g")
    assert text.endswith("\nnext,0.667\n")
    again = pd.read_csv(io.StringIO(text, newline=""))
    assert again["image"].tolist() == [name, "next"]
    assert again["score"].tolist() == [-0.125, 0.667]


def test_for_a_spreadsheet_an_apostrophe_precedes_text_that_looks_like_a_formula():
    table = pd.DataFrame({"image": [*FORMULAS, "a=1", "'quoted", None], "score": -1.5})
    text = csv_text(table, "%.3g", spreadsheet_safe=True)
    again = pd.read_csv(io.StringIO(text, newline=""), keep_default_na=False)
    shown = [f"'{formula}" for formula in FORMULAS]
    assert again["image"].tolist() == [*shown, "a=1", "'quoted", ""]
    assert again["score"].tolist() == [-1.5] * len(table)
    assert table["image"][0] == "=1+1"


def test_a_file_keeps_bytes_that_are_not_utf8(tmp_path):
    table = pd.DataFrame({"run": ["caf\udce9", "cr\r"]}, dtype=object)
    write_csv(table, tmp_path / "board.csv", "%.3g")
    assert (tmp_path / "board.csv").read_bytes() == b'run\ncaf\xe9\n"cr\r"\n'
