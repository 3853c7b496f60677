"""Runs are chosen among those that were fitted on the labels and images as they are now."""

import json
import shutil

import pandas as pd
import pytest

import featurepipe
from featurepipe.cli import run
from featurepipe.errors import ManifestError, WorkspaceError
from featurepipe.runs.changes import Present
from featurepipe.runs.run_folder import load_run
from featurepipe.workspace import Workspace
from pictures import draw, draw_data_set

OLD = "hsv_histogram-knn"
NEW = "hsv_histogram-knn-2"


@pytest.fixture(scope="module")
def fitted_once(tmp_path_factory):
    """A workspace with one run, and its images beside."""
    folder = tmp_path_factory.mktemp("present")
    draw_data_set(folder / "data", n_each=4)
    options = {"attributes": ["color", "kind"], "backbone": "hsv_histogram"}
    featurepipe.extract(folder / "data", **options, workspace=folder / "home")
    featurepipe.fit(head="knn", workspace=folder / "home")
    return folder


@pytest.fixture
def folder(fitted_once, tmp_path, monkeypatch):
    shutil.copytree(fitted_once, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    # The manifest of the copy is that of the copied images.
    assert run(["extract", "data", *EXTRACT, "--attributes", "color,kind"]) == 0
    return tmp_path


EXTRACT = ["--backbone", "hsv_histogram", "--workspace", "home"]


def extract(*arguments):
    assert run(["extract", *EXTRACT, *arguments]) == 0


def predicted(capsys, *arguments):
    """Exit code of `predict`, and what it said."""
    capsys.readouterr()
    code = run(["predict", "data/red_plain", "--workspace", "home", *arguments])
    return code, capsys.readouterr().err


def changes():
    home = Workspace("home")
    return Present.of(home).changes(load_run(home.run(OLD)))


def require_stale(capsys, changed):
    """No command takes the old run by itself; a fit makes one that it takes."""
    assert changes() == changed
    code, said = predicted(capsys)
    assert code == 1
    assert f"was fitted on the present labels and images. Since {OLD} was: {changed[0]}" in said
    assert run(["audit", "--workspace", "home"]) == 1
    code, said = predicted(capsys, "--run", OLD)
    assert code == 0
    assert (
        f"Run {OLD} was fitted on other labels or images than the present ones: "
        f"{'; '.join(changed)}.\n"
    ) in said
    assert run(["report", "--workspace", "home"]) == 0
    assert f"1 of 1 run was fitted on other labels or images than the present ones ({OLD})" in (
        capsys.readouterr().err
    )
    assert run(["fit", "--head", "knn", "--workspace", "home"]) == 0
    code, said = predicted(capsys)
    assert code == 0 and f"Predicting with {NEW}." in said and "other labels" not in said
    assert run(["audit", "--workspace", "home"]) == 0
    assert f"Auditing with {NEW}." in capsys.readouterr().err
    board = pd.read_csv("home/leaderboard.csv")
    assert set(board["current"]) == {False}
    run(["report", "--workspace", "home"])
    board = pd.read_csv("home/leaderboard.csv")
    assert dict(zip(board["run"], board["current"], strict=True)) == {OLD: False, NEW: True}


def test_cleaned_images(folder, capsys):
    (folder / "data" / "red_bright" / "00.png").unlink()
    extract()
    require_stale(capsys, ["1 image, such as 'red_bright/00.png', no longer in the manifest"])


def test_corrected_labels(folder, capsys):
    ids = sorted(str(path.relative_to(folder / "data")) for path in folder.glob("data/*/*"))
    table = pd.DataFrame([[i, *i.split("/")[0].split("_")] for i in ids])
    table.columns = ["path", "color", "kind"]
    table.loc[0, "color"] = "red"
    table.to_csv(folder / "labels.csv", index=False)
    assert run(["fit", "--head", "knn", "--labels", "labels.csv", "--workspace", "home"]) == 0
    assert changes() == [f"labels of 'color' changed: 1 image, such as {ids[0]!r}"]
    assert f"Predicting with {NEW}." in predicted(capsys)[1]


def test_a_folder_renamed(folder, capsys):
    (folder / "data" / "blue_plain").rename(folder / "data" / "navy_plain")
    extract()
    require_stale(
        capsys,
        [
            "4 images, such as 'blue_plain/00.png', no longer in the manifest",
            "the classes of 'color' have changed (new: navy)",
        ],
    )


def test_a_class_added(folder, capsys):
    for number in range(4):
        draw(folder / "data" / "green_plain" / f"{number}.png", "green", False, number)
    extract()
    require_stale(capsys, ["the classes of 'color' have changed (new: green)"])


def test_attributes_renamed(folder, capsys):
    extract("--attributes", "colour,kind")
    require_stale(capsys, ["the attributes are now colour, kind instead of color, kind"])


def test_another_image_of_the_same_name(folder, capsys):
    draw(folder / "data" / "red_plain" / "03.png", "red", bright_top=False, seed=999)
    extract()
    assert changes() == ["features changed: 1 image, such as 'red_plain/03.png'"]
    assert predicted(capsys)[0] == 1
    # The same fit replaces its run.
    assert run(["fit", "--head", "knn", "--workspace", "home"]) == 0
    assert changes() == []
    assert predicted(capsys)[0] == 0


def test_images_added_to_known_classes_make_no_run_old(folder, capsys):
    for number in range(4, 6):
        draw(folder / "data" / "red_plain" / f"0{number}.png", "red", False, 500 + number)
    extract()
    assert changes() == []
    code, said = predicted(capsys)
    assert code == 0
    assert (
        f"Run {OLD} was fitted without 2 images that are labelled and extracted now, such as "
        "'red_plain/04.png'. To use them, fit again: featurepipe fit\n"
    ) in said
    # A later run on all of them is taken, although its split is not the first.
    assert run(["fit", "--head", "knn", "--workspace", "home"]) == 0
    _, said = predicted(capsys)
    assert f"Predicting with {NEW}." in said and "was fitted without" not in said
    assert "was fitted" not in predicted(capsys, "--run", OLD)[1]


def test_a_held_out_combination_is_no_change(folder, capsys):
    home = ["--workspace", "home"]
    assert run(["fit", "--head", "knn", "--hold-out", "red_plain", *home]) == 0
    shutil.rmtree(folder / "home" / "runs" / OLD)
    code, said = predicted(capsys)
    assert code == 0 and said.startswith(f"Predicting with {NEW}.\n")


def test_neither_images_nor_stores_need_to_be_there(folder, capsys):
    shutil.copytree("data/red_plain", "new")
    shutil.rmtree("data")
    shutil.rmtree("home/features")
    assert run(["predict", "new", "--workspace", "home"]) == 0
    assert capsys.readouterr().err.startswith(f"Predicting with {OLD}.\n")


def test_info_says_what_has_changed(folder, capsys):
    assert featurepipe.info(f"home/runs/{OLD}")["changed"] == []
    (folder / "data" / "red_bright" / "00.png").unlink()
    extract()
    changed = ["1 image, such as 'red_bright/00.png', no longer in the manifest"]
    assert featurepipe.info(f"home/runs/{OLD}")["changed"] == changed
    capsys.readouterr()
    assert run(["info", f"home/runs/{OLD}"]) == 0
    assert f"changed      {changed[0]}" in capsys.readouterr().out
    assert run(["info", "home"]) == 0
    assert f"{OLD} (old)" in capsys.readouterr().out
    assert run(["info", "home", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["changed"] == changed


def test_a_manifest_is_needed_to_choose_a_run(folder):
    (folder / "home" / "manifest.parquet").unlink()
    with pytest.raises(ManifestError, match="Cannot read the manifest"):
        featurepipe.predict(["data/red_plain"], workspace="home")
    assert len(featurepipe.predict(["data/red_plain"], workspace="home", run=OLD)) == 8


def test_what_is_old_is_an_error_in_python_too(folder):
    extract("--attributes", "colour,kind")
    with pytest.raises(WorkspaceError, match="Fit or train again, or name an old run: --run"):
        featurepipe.predict(["data/red_plain"], workspace="home")
