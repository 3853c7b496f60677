"""featurepipe audit: what is odd about images and labels, through the command line."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import featurepipe
from featurepipe.cli import run
from featurepipe.errors import FitError, UnknownNameError, WorkspaceError
from featurepipe.splits import Split
from pictures import draw_data_set

COLUMNS = [
    "image", "attribute", "finding", "given_label", "suggested_label", "score", "other_image",
    "reason",
]  # fmt: skip


@pytest.fixture
def wrong(tmp_path, monkeypatch, colour_mean):
    """A fitted workspace with wrong labels: the true colour of each such image."""
    monkeypatch.chdir(tmp_path)
    draw_data_set(tmp_path / "dataset", n_each=20)
    folder = tmp_path / "dataset"
    ids = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    colours = [image_id.split("_")[0] for image_id in ids]
    given = list(colours)
    for row in np.random.default_rng(5).permutation(len(ids))[:12]:
        given[row] = {"red": "blue", "blue": "white", "white": "black", "black": "red"}[given[row]]
    table = pd.DataFrame({"path": ids, "color": given})
    # Of identical bytes, with another label; and a picture unlike all others.
    (tmp_path / "dataset" / "twin.png").write_bytes(
        (tmp_path / "dataset" / "red_plain" / "00.png").read_bytes()
    )
    odd = np.zeros((12, 12, 3), np.uint8)
    odd[:6, :, 1] = 255
    Image.fromarray(odd).save(tmp_path / "dataset" / "odd.png")
    table.loc[len(table)] = ["twin.png", "white"]
    table.loc[len(table)] = ["odd.png", "blue"]
    table.to_csv("labels.csv", index=False)
    featurepipe.extract(
        "dataset", labels="labels.csv", backbone="resnet50", weights="random", size_px=8
    )
    featurepipe.fit(head="logistic")
    return {
        image_id: colour
        for image_id, colour, label in zip(ids, colours, given, strict=True)
        if colour != label
    }


def test_wrong_labels_come_before_sound_ones(wrong):
    table = featurepipe.audit()
    assert table.columns.tolist() == COLUMNS
    split = Split.load("splits/test20-seed0.json")
    trained = {image_id for image_id in wrong if image_id in split.ids[split.rows("train")]}
    assert len(trained) >= 5
    errors = table[table["finding"] == "label error"]
    first = errors[~errors["image"].isin({"twin.png", "red_plain/00.png", "odd.png"})]
    first = first.head(len(trained))
    assert set(first["image"]) == trained
    assert first.set_index("image")["suggested_label"].to_dict() == {
        image_id: wrong[image_id] for image_id in trained
    }
    assert (np.diff(errors["score"]) <= 0).all()
    assert errors["reason"].str.startswith("heads fitted without this image give").all()


def test_contradictions_outliers_and_near_duplicates(wrong):
    table = featurepipe.audit()
    pd.testing.assert_frame_equal(
        pd.read_csv("audit.csv"), table.fillna(np.nan).infer_objects(), atol=1e-4, check_dtype=False
    )
    contradiction = table.iloc[0]
    assert contradiction["finding"] == "contradiction"
    assert {contradiction["image"], contradiction["other_image"]} == {
        "twin.png",
        "red_plain/00.png",
    }
    assert {contradiction["given_label"], contradiction["suggested_label"]} >= {"white"}
    farthest = table[table["finding"] == "outlier"].iloc[0]
    assert farthest["image"] == "odd.png"
    assert 0 < farthest["score"] < 1
    order = ["contradiction", "label error", "outlier", "near-duplicate"]
    positions = table["finding"].map(order.index)
    assert (np.diff(positions) >= 0).all()
    for _, of_kind in table.groupby("finding"):
        assert (np.diff(of_kind["score"]) <= 0).all()
        assert of_kind["score"].between(0, 1).all()


def test_within_memory_the_same_is_found_or_it_is_refused(wrong):
    table = featurepipe.audit(memory="10MB")
    written = Path("audit.csv").read_bytes()
    pd.testing.assert_frame_equal(featurepipe.audit(), table)
    with pytest.raises(FitError, match=r"Comparing \d+ images needs more memory than 0MB. Raise"):
        featurepipe.audit(memory="1KB")
    assert Path("audit.csv").read_bytes() == written


def test_the_command_says_in_short_what_is_odd(wrong, capsys):
    assert run(["audit"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("1 contradiction\n\nimage     attribute  labelled  suggested")
    assert re.search(r"\nodd\.png +its fifth neighbour is", out)
    assert "Auditing with resnet50-logistic." in err
    assert run(["audit", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert list(rows[0]) == COLUMNS


def test_the_run_can_be_named(wrong):
    with pytest.raises(UnknownNameError, match="Unknown run 'nonesuch'"):
        featurepipe.audit(run="nonesuch")


def test_without_a_run_there_is_nothing_to_judge_by(tmp_path):
    with pytest.raises(WorkspaceError, match="has no run yet"):
        featurepipe.audit(workspace=tmp_path)
