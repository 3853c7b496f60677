"""report.html of real workspaces."""

import json
import re
import shutil
from html.parser import HTMLParser

import pandas as pd
import pytest

import featurepipe
from command_line import succeed
from featurepipe.cli import run
from featurepipe.reports.terminal_text import percent
from featurepipe.runs.changes import Present
from featurepipe.runs.choosing import all_runs
from featurepipe.workflows.page_facts import page_data, page_run
from featurepipe.workspace import Workspace
from pictures import draw_data_set


class Text(HTMLParser):
    """What a page says, without its styles and scripts."""

    def __init__(self, html):
        super().__init__()
        self.hidden, self.words = 0, []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.hidden += tag in ("style", "script")

    def handle_endtag(self, tag):
        self.hidden -= tag in ("style", "script")

    def handle_data(self, data):
        if not self.hidden:
            self.words.append(data)

    def __str__(self):
        return re.sub(r"\s+", " ", "".join(self.words))


@pytest.fixture
def folder(tmp_path, monkeypatch, colour_mean):
    monkeypatch.chdir(tmp_path)
    draw_data_set(tmp_path / "dataset", n_each=12)
    (tmp_path / "dataset" / "red_plain" / "broken.png").write_bytes(b"broken")
    featurepipe.extract(
        "dataset", attributes=["color", "kind"], backbone=["resnet50", "mobilenet_v2"],
        weights="random", size_px=8,
    )  # fmt: skip
    featurepipe.fit(head="logistic", hold_out=["red_bright"])
    return tmp_path


def said(folder):
    return str(Text((folder / "report.html").read_text()))


def test_the_page_says_what_the_csv_says(folder, capsys):
    out = succeed(capsys, "report")
    text = said(folder)
    board = pd.read_csv(folder / "leaderboard.csv")
    assert len(board) == 6
    for _, row in board.iterrows():
        accuracy = f"{percent(row['accuracy'])} ({100 * row['accuracy_low']:.1f}–"
        assert accuracy in text
        assert percent(row["unseen_accuracy"]) in text
    taken = re.search(r"Take (\S+):", out)[1]
    assert f"Take {taken}: it has the best selection accuracy" in text
    assert "Which run should recognise color and kind in new images?" in text
    assert "97 in " in text and "broken.png: not an image" in text
    assert "red_bright: training never sees such images" in text
    assert "featurepipe predict IMAGES" in text


def test_no_html_writes_no_page(folder, capsys):
    succeed(capsys, "report", "--no-html")
    assert not (folder / "report.html").exists()
    assert (folder / "leaderboard.csv").exists()


def test_the_same_runs_give_the_same_page(folder):
    featurepipe.report()
    first = (folder / "report.html").read_bytes()
    featurepipe.report()
    assert (folder / "report.html").read_bytes() == first


@pytest.mark.parametrize("gone", ["dataset", "features", "splits", "manifest.parquet"])
def test_a_page_needs_only_the_runs(folder, gone):
    featurepipe.report()
    whole = said(folder)
    path = folder / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    featurepipe.report()
    text = said(folder)
    assert ("cannot be read, so nothing is known" in text) == (gone == "manifest.parquet")
    assert ("unknown for features that are gone" in text) == (gone == "features")
    of_runs = [page[page.index("Accuracy against cost") : page.index("Runs The run to")]
               for page in (whole, text)]  # fmt: skip
    assert of_runs[0] == of_runs[1]


def test_outdated_runs_are_marked_and_not_taken(folder):
    draw_data_set(folder / "dataset", n_each=13)
    (folder / "dataset" / "blue_plain" / "00.png").unlink()
    featurepipe.extract(backbone=["resnet50", "mobilenet_v2"], weights="random", size_px=8)
    featurepipe.report()
    text = said(folder)
    assert "All runs of this split were fitted on other labels or images" in text
    assert "To use it" not in text


def test_what_a_page_knows_of_a_run_and_its_images(folder):
    home = Workspace(folder)
    runs = all_runs(home)
    present = Present.of(home)
    run = page_run(runs[0], ["something"])
    info = json.loads((runs[0].folder / "run.json").read_text())
    assert (run.name, run.split, run.is_network, run.is_current) == (
        runs[0].name, info["split"]["name"], False, False
    )  # fmt: skip
    assert run.calibrated == info["reliability"]["calibrated"]
    assert run.provenance["changed since"] == "something"
    assert run.provenance["machine"] == info["machine"]
    assert run.command.startswith("featurepipe fit --head logistic --features ")
    data = page_data(runs, present)
    assert data.n_images == 97
    assert list(data.refused) == ["red_plain/broken.png"]
    split = data.splits[run.split]
    assert split.held_out == ("red_bright",)
    assert (split.parts == "unseen").sum() == 12
    # `fit` searched, and remembers what it found.
    assert split.leaks is not None
    (home.found_duplicates(home.stores()[0].stem)).unlink(missing_ok=True)
    (home.found_duplicates(home.stores()[1].stem)).unlink(missing_ok=True)
    assert page_data(runs, present).splits[run.split].leaks is None


@pytest.mark.keras
def test_the_curves_of_a_network_are_known(tmp_path):
    draw_data_set(tmp_path / "dataset", n_each=6)
    featurepipe.extract(
        tmp_path / "dataset", attributes=["color", "kind"], backbone="hsv_histogram",
        workspace=tmp_path,
    )  # fmt: skip
    featurepipe.fit(head="logistic", workspace=tmp_path)
    featurepipe.train(
        "smallervggnet", size_px=16, epochs=2, batch_size=16, augment=False, workspace=tmp_path
    )
    featurepipe.report(workspace=tmp_path)
    runs = all_runs(Workspace(tmp_path))
    network = next(page_run(run, []) for run in runs if run.network is not None)
    assert network.is_network and network.reads == {"color": ("pixels",), "kind": ("pixels",)}
    assert network.history["epoch"].tolist() == [1, 2]
    text = said(tmp_path)
    assert "The best network, smallervggnet" in text and "McNemar's test, p " in text


def test_an_attribute_that_no_run_has_is_refused_before_anything_is_written(folder, capsys):
    for name in ("leaderboard.csv", "report.html"):
        (folder / name).unlink(missing_ok=True)
    assert run(["report", "--attribute", "nosuch"]) == 1
    assert "Unknown attribute 'nosuch'" in capsys.readouterr().err
    assert not (folder / "leaderboard.csv").exists()
    assert not (folder / "report.html").exists()
    assert run(["report", "--attribute", "color"]) == 0
    assert (folder / "report.html").exists()
