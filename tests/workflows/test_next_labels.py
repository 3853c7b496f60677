"""featurepipe next: which images it chooses, and that its table comes back as labels."""

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import featurepipe
from command_line import fail, refuse, succeed
from featurepipe.errors import RunError, UsageError, WorkspaceError
from featurepipe.manifest import Manifest
from pictures import draw, draw_data_set

EXTRACT = {"backbone": "resnet50", "weights": "random", "size_px": 8}


@pytest.fixture
def drawn(tmp_path, monkeypatch, colour_mean):
    """80 pictures in one folder, and the truth about them."""
    monkeypatch.chdir(tmp_path)
    draw_data_set(tmp_path / "drawn", n_each=10)
    truth = []
    (tmp_path / "images").mkdir()
    for path in sorted((tmp_path / "drawn").rglob("*.png")):
        color, kind = path.parent.name.split("_")
        name = f"{color[:3]}{kind[0]}{path.name}"
        path.rename(tmp_path / "images" / name)
        truth.append([name, color, kind])
    return pd.DataFrame(truth, columns=["path", "color", "kind"])


@pytest.fixture
def labelled(drawn):
    """Half of the pictures have labels, but no bright red one has; a run is fitted."""
    is_known = drawn["path"].str[-5].astype(int) < 5
    is_known &= (drawn["color"] != "red") | (drawn["kind"] != "bright")
    drawn[is_known].to_csv("labels.csv", index=False)
    featurepipe.extract("images", labels="labels.csv", all_images=True, **EXTRACT)
    featurepipe.fit(head="logistic")
    return drawn


def corrected(truth, name="next.csv"):
    """Correct the suggestions, as a person does; returns the table."""
    table = pd.read_csv(name, dtype=str, keep_default_na=False)
    right = truth.set_index("path").loc[table["path"].str.rpartition("/")[2]]
    for attribute in ("color", "kind"):
        table[attribute] = right[attribute].to_numpy()
    table.to_csv(name, index=False)
    return table


def test_the_table_begins_with_unlabelled_images_and_says_why(labelled):
    chosen = featurepipe.next_labels(n=6)
    assert chosen.columns.tolist() == ["path", "why", "color", "kind", "split"]
    known = pd.read_csv("labels.csv")
    assert len(chosen) == 6 and not set(chosen["path"]) & set(known["path"])
    assert chosen["why"].str.match(r"least sure of (color|kind) \(\w+ \d+ %, \w+ \d+ %\)").all()
    truth = labelled.set_index("path").loc[chosen["path"]]
    is_new = (truth["color"] == "red") & (truth["kind"] == "bright")
    suggested = chosen["color"] + "_" + chosen["kind"]
    says_new = chosen["why"].str.contains("no image of red_bright has a label")
    assert (says_new.to_numpy() == (suggested == "red_bright").to_numpy()).all()
    assert is_new.any() and (chosen["split"] == "train").all()
    table = pd.read_csv("next.csv", dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(table.head(6), chosen)
    below = table.iloc[6:].set_index("path")
    assert set(below["why"]) == {""}
    pd.testing.assert_frame_equal(
        below[["color", "kind"]].sort_index(), known.set_index("path").sort_index()
    )


def test_the_corrected_table_comes_back_and_test_images_stay_test_images(labelled, caplog):
    caplog.set_level(logging.INFO, "featurepipe")
    first = featurepipe.report()
    featurepipe.next_labels(n=10)
    assert "Wrote next.csv: 10 images to label, then 35 that have labels." in caplog.text
    assert caplog.messages[-1].endswith("then: featurepipe fit --labels next.csv")
    table = corrected(labelled)
    featurepipe.fit(head="logistic", labels="next.csv")
    manifest = Manifest.load("manifest.parquet")
    assert manifest.attribute_names == ("color", "kind")
    assert manifest.labels()["color"].labelled.sum() == 45
    tested = featurepipe.report()
    assert set(tested["n_test"]) == set(first["n_test"]) == {7}
    assert set(tested["n_train"]) == {28, 38}
    assert (table["split"] == "test").sum() == 7
    again = featurepipe.next_labels(n=100, run="resnet50-logistic-2")
    assert len(again) == 35
    assert pd.read_csv("next-2.csv").shape[0] == 80
    # A table that a person may have corrected is never replaced.
    assert pd.read_csv("next.csv", dtype=str).equals(table.replace("", None))


def test_an_emptied_suggestion_stays_unlabelled(labelled):
    chosen = featurepipe.next_labels(n=4)
    table = pd.read_csv("next.csv", dtype=str, keep_default_na=False)
    table.loc[0, ["color", "kind"]] = ""
    table.to_csv("next.csv", index=False)
    featurepipe.fit(head="logistic", labels="next.csv")
    labels = Manifest.load("manifest.parquet").labels(chosen["path"])
    assert labels["color"].labelled.tolist() == [False, True, True, True]


def test_an_image_that_lacks_one_label_keeps_the_other(labelled):
    table = pd.read_csv("labels.csv")
    table.loc[0, "kind"] = None
    table.to_csv("labels.csv", index=False)
    featurepipe.fit(head="logistic", labels="labels.csv")
    chosen = featurepipe.next_labels(n=80, run="resnet50-logistic-2").set_index("path")
    assert chosen.loc[table["path"][0], "color"] == table["color"][0]
    assert chosen.loc[table["path"][0], "why"].startswith("least sure of kind")


def test_new_images_are_named_as_they_are_given(labelled, caplog):
    caplog.set_level(logging.INFO, "featurepipe")
    for seed in range(3):
        draw(Path("new") / f"{seed}.png", "red", bright_top=True, seed=70 + seed)
    (Path("new") / "broken.jpg").write_bytes(b"broken")
    chosen = featurepipe.next_labels(["new"], n=2)
    assert set(chosen["path"]) < {"new/0.png", "new/1.png", "new/2.png"}
    assert "Leaving out new/broken.jpg: not an image" in caplog.text
    assert "move the images into" in caplog.messages[-1]
    Path("new").rename("images/new")
    table = corrected_new(chosen)
    featurepipe.extract(labels="next.csv", **EXTRACT)
    labels = Manifest.load("manifest.parquet").labels(table["path"])
    assert labels["color"].labelled.all()
    assert featurepipe.fit(head="logistic")["n_train"].iloc[0] == 30


def corrected_new(chosen):
    table = pd.read_csv("next.csv", dtype=str, keep_default_na=False)
    table.loc[: len(chosen) - 1, ["color", "kind"]] = ["red", "bright"]
    table.to_csv("next.csv", index=False)
    return table.head(len(chosen))


def test_new_images_below_the_source_are_named_relative_to_it(labelled):
    draw(Path("images/more") / "a.png", "blue", bright_top=True, seed=70)
    chosen = featurepipe.next_labels(["images/more"], n=5)
    assert chosen["path"].tolist() == ["more/a.png"]


def test_sets_of_labels_get_a_column_for_each_label(drawn):
    tags = drawn["color"].where(drawn["kind"] == "plain", drawn["color"] + "|bright")
    table = pd.DataFrame({"path": drawn["path"], "tag": tags})
    table[table["path"].str[-5].astype(int) < 6].to_csv("labels.csv", index=False)
    featurepipe.extract("images", labels="labels.csv", all_images=True, **EXTRACT)
    featurepipe.fit(head="logistic")
    chosen = featurepipe.next_labels(n=3)
    flags = ["tag=black", "tag=blue", "tag=bright", "tag=red", "tag=white"]
    assert chosen.columns.tolist() == ["path", "why", *flags, "split"]
    assert set(np.unique(chosen[flags])) <= {"0", "1"}
    assert chosen["why"].str.match(r"least sure of tag \(\w+ \d+ %\)").all()
    before = Manifest.load("manifest.parquet")
    featurepipe.fit(head="logistic", labels="next.csv")
    after = Manifest.load("manifest.parquet")
    assert after.attribute_names == ("tag",)
    known = ~np.isin(after.ids, chosen["path"])
    for row in np.flatnonzero(known):
        assert after.cells["tag"][row] == before.cells["tag"][row]
    assert after.labels()["tag"].labelled.sum() == 48 + 3


def test_groups_come_back_with_the_table(drawn, caplog):
    caplog.set_level(logging.INFO, "featurepipe")
    drawn["photo"] = "photo" + drawn["path"].str[-5]
    unknown = drawn["path"].str[-5].astype(int) >= 6
    drawn.loc[unknown, ["color", "kind"]] = None
    drawn.to_csv("labels.csv", index=False)
    featurepipe.extract("images", labels="labels.csv", group="photo", **EXTRACT)
    featurepipe.fit(head="logistic")
    chosen = featurepipe.next_labels(n=3)
    assert chosen.columns.tolist() == ["path", "why", "color", "kind", "photo"]
    assert (chosen["photo"] == "photo" + chosen["path"].str[-5]).all()
    assert caplog.messages[-1].endswith("featurepipe fit --labels next.csv --group photo")
    featurepipe.fit(head="logistic", labels="next.csv", group="photo")
    assert Manifest.load("manifest.parquet").attribute_names == ("color", "kind")


def test_the_contact_sheet_shows_what_is_chosen(labelled, capsys):
    out = succeed(capsys, "next", "--n", "7", "--contact-sheet", "sheet.png")
    assert out.splitlines()[0].split() == ["image", "why"]
    assert len(out.splitlines()) == 6
    # Two rows of five.
    assert Image.open("sheet.png").width == 12 + 5 * 232
    assert Image.open("sheet.png").height > 2 * 232
    rows = json.loads(succeed(capsys, "next", "--n", "2", "--json"))
    assert [list(row) for row in rows] == [["path", "why", "color", "kind", "split"]] * 2


def test_what_cannot_be_done_is_refused_before_anything_is_written(labelled, capsys):
    assert "would be one of the images of" in fail(
        capsys, "next", "--contact-sheet", "images/sheet.png"
    )
    assert "its suffix is '.pdf'" in fail(capsys, "next", "--contact-sheet", "sheet.pdf")
    assert "'--n': 0 is not in the range" in refuse(capsys, "next", "--n", "0")
    with pytest.raises(UsageError, match="--n is 0"):
        featurepipe.next_labels(n=0)
    featurepipe.fit(head="logistic", attributes=["kind"])
    with pytest.raises(RunError, match="now labelled for kind"):
        featurepipe.next_labels(run="resnet50-logistic")
    assert not Path("next.csv").exists()
    assert not Path("sheet.pdf").exists()


def test_without_unlabelled_images_there_is_nothing_to_choose(drawn):
    drawn.to_csv("labels.csv", index=False)
    featurepipe.extract("images", labels="labels.csv", **EXTRACT)
    featurepipe.fit(head="logistic")
    with pytest.raises(WorkspaceError, match=r"All 80 images of .*images have labels"):
        featurepipe.next_labels()
    with pytest.raises(WorkspaceError, match="has no run yet"):
        featurepipe.next_labels(workspace="elsewhere")
