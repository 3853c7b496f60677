"""repeat(): a run fitted again to the same numbers."""

import json
import logging
import re
import shutil

import pandas as pd
import pytest

import featurepipe
from featurepipe.cli import run
from featurepipe.errors import RunError, SplitError, UnknownNameError, UsageError, WorkspaceError
from featurepipe.runs.predictions_file import save_predictions
from featurepipe.runs.run_folder import load_run
from featurepipe.splits.split_file import SplitFile
from pictures import draw, draw_data_set
from run_infos import sign

EXTRACT = ["extract", "dataset", "--attributes", "color,kind", "--weights", "random", "--size", "8"]


@pytest.fixture
def folder(tmp_path, monkeypatch, colour_mean):
    monkeypatch.chdir(tmp_path)
    draw_data_set(tmp_path / "dataset", n_each=8)
    assert run([*EXTRACT, "--backbone", "resnet50", "--view", "rgb,grey"]) == 0
    return tmp_path


@pytest.fixture(scope="module")
def fitted_once(tmp_path_factory):
    """A workspace with one run, that is copied before it is damaged."""
    home = tmp_path_factory.mktemp("home")
    draw_data_set(home / "dataset", n_each=4)
    options = {"attributes": ["color", "kind"], "backbone": "hsv_histogram"}
    featurepipe.extract(home / "dataset", **options, workspace=home)
    featurepipe.fit(head="knn", workspace=home)
    return home


def fit(capsys, *arguments):
    capsys.readouterr()
    assert run(["fit", "--json", *arguments]) == 0
    return {row["run"] for row in json.loads(capsys.readouterr().out)}


@pytest.fixture
def repeat(caplog):
    """Repeat a run; the table, and what was said."""
    caplog.set_level(logging.INFO, "featurepipe")

    def repeat(name):
        caplog.clear()
        table = featurepipe.repeat(name)
        return table, caplog.text

    return repeat


def content(folder):
    return {
        path.name: path.read_bytes() for path in (folder / "runs").glob("*/*") if path.is_file()
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ["--head", "bagged-sgd", "--backbone", "resnet50", "--features", "resnet50"],
        ["--head", "logistic", "--features", "auto", "--objective", "unseen", "--seed", "3"],
        ["--head", "knn", "--features", "color=resnet50,kind=resnet50:grey+resnet50"],
        ["--head", "logistic", "--features", "resnet50", "--task", "joint", "--test-size", "0.3"],
        ["--head", "logistic", "--features", "resnet50:grey", "--hold-out", "red_plain"],
    ],
)
def test_the_same_numbers_again(folder, capsys, repeat, arguments):
    (name,) = fit(capsys, *arguments)
    before = content(folder)
    # Splits that are gone and stores that came later play no role.
    for path in (folder / "splits").iterdir():
        path.unlink()
    assert run(["extract", "--backbone", "hsv-histogram"]) == 0
    table, said = repeat(name)
    assert set(table["run"]) == {name}
    assert f"Run {name}: the same numbers again, bit for bit, for 64 images." in said
    assert content(folder) == before


def test_other_numbers_are_said_and_the_run_is_kept(folder, capsys, repeat):
    (name,) = fit(capsys, "--head", "logistic", "--features", "resnet50")
    kept = load_run(folder / "runs" / name)
    scores = kept.predictions.scores["color"]
    scores[0, 0] += 0.125 if scores[0, 0] < 0.5 else -0.125
    save_predictions(folder / "runs" / name / "predictions.npz", kept.predictions)
    with pytest.raises(RunError, match=r"predictions\.npz does not match its SHA-256"):
        repeat(name)
    sign(folder / "runs" / name)
    before = content(folder)
    with pytest.raises(RunError) as caught:
        repeat(name)
    said, image = str(caught.value), str(kept.predictions.ids[0])
    assert f"probabilities of 'color' differ by up to 0.125 ({image!r}, a test image)" in said
    assert "versions, labels and features are the same" in said
    assert content(folder) == before


def test_other_versions_are_named(folder, capsys, repeat):
    (name,) = fit(capsys, "--head", "logistic", "--features", "resnet50")
    path = folder / "runs" / name / "run.json"
    facts = json.loads(path.read_text())
    facts["versions"]["scikit-learn"] = "0.1"
    path.write_text(json.dumps(facts))
    _, said = repeat(name)
    assert "bit for bit" in said
    assert "scikit-learn is '0.1', not" in said


def test_changed_features_are_named(folder, capsys):
    (name,) = fit(capsys, "--head", "logistic", "--features", "resnet50")
    draw(folder / "dataset" / "red_plain" / "03.png", "red", bright_top=False, seed=999)
    assert run([*EXTRACT, "--backbone", "resnet50"]) == 0
    with pytest.raises(RunError, match="cannot be repeated") as caught:
        featurepipe.repeat(name)
    assert "resnet50-random0-8-avg-rgb.h5 changed: 1 image, such as 'red_plain/03.png'" in str(
        caught.value
    )


def test_a_store_that_is_gone_is_named(folder, capsys):
    (name,) = fit(capsys, "--head", "logistic", "--features", "resnet50:grey")
    (folder / "features" / "resnet50-random0-8-avg-grey.h5").unlink()
    with pytest.raises(RunError, match="cannot be repeated") as caught:
        featurepipe.repeat(name)
    assert "there is no store of the features resnet50:grey any more" in str(caught.value)


def test_changed_labels_are_named(folder, capsys):
    (name,) = fit(capsys, "--head", "logistic", "--features", "resnet50")
    ids = sorted(str(path.relative_to(folder / "dataset")) for path in folder.glob("dataset/*/*"))
    table = pd.DataFrame([[i, *i.split("/")[0].split("_")] for i in ids])
    table.columns = ["path", "color", "kind"]
    table.loc[5, "color"] = "red"
    table.to_csv(folder / "labels.csv", index=False)
    fit(capsys, "--labels", "labels.csv", "--head", "logistic", "--features", "resnet50")
    with pytest.raises(RunError, match="cannot be repeated") as caught:
        featurepipe.repeat(name)
    assert f"labels of 'color' changed: 1 image, such as {ids[5]!r}" in str(caught.value)


def test_a_run_keeps_digests_of_its_stores_and_split(folder, capsys):
    names = fit(capsys, "--head", "logistic")
    other = fit(capsys, "--head", "knn")
    facts = [json.loads((folder / "runs" / n / "run.json").read_text()) for n in names | other]
    assert len({each["split"]["sha256"] for each in facts}) == 1
    stores = {(each["stores"][0]["name"], each["stores"][0]["features_sha256"]) for each in facts}
    assert len(stores) == 2
    assert len({digest for _, digest in stores}) == 2


def edit_inputs(folder, edit):
    path = folder / "inputs.csv"
    path.write_text(edit(path.read_text()))
    sign(folder)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda text: "", "inputs.csv cannot be read (No columns to parse from file)"),
        (lambda text: "image\n", "its columns are image"),
        (
            lambda text: text.replace("image,", "picture,"),
            "its columns are picture, hsv_histogram:rgb",
        ),
        (lambda text: text.replace("black", "blank"), "its images are not those of the split"),
        (lambda text: text.rsplit("\n", 2)[0], "its images are not those of the split"),
        (lambda text: text.replace(",", ",x"), "its columns are image, xhsv_histogram:rgb"),
        (lambda text: text.replace("png,", "png,-"), "inputs.csv cannot be read ("),
    ],
)
def test_a_forged_table_of_inputs_is_refused(fitted_once, tmp_path, edit, said):
    home = shutil.copytree(fitted_once, tmp_path / "copy")
    (path,) = home.glob("runs/*")
    edit_inputs(path, edit)
    for check in (
        lambda: featurepipe.repeat(path.name, workspace=home),
        lambda: featurepipe.info(path, verify=True),
    ):
        with pytest.raises(RunError) as caught:
            check()
        assert said in str(caught.value)
        assert str(caught.value).endswith("Fit it again.")


def test_without_the_table_of_inputs_it_says_what_to_do(fitted_once, tmp_path):
    home = shutil.copytree(fitted_once, tmp_path / "copy")
    (path,) = home.glob("runs/*")
    (path / "inputs.csv").unlink()
    with pytest.raises(RunError) as caught:
        featurepipe.repeat(path.name, workspace=home)
    assert str(caught.value) == (
        f"Run {path.name!r} is damaged: {path / 'inputs.csv'} is missing. Restore it from a copy, "
        f"or fit or train the run again: featurepipe info {path} shows the command."
    )


def test_an_edited_or_other_split_is_said(fitted_once, tmp_path, caplog, capsys):
    home = shutil.copytree(fitted_once, tmp_path / "copy")
    (run_path,), (path,) = home.glob("runs/*"), home.glob("splits/*.json")
    about = json.loads(path.read_text())
    images = about["group_of_image"]
    image = next(iter(images["test"]))
    images["train"][image] = images["test"].pop(image)
    path.write_text(json.dumps(about))
    edited = f"The split {path} was edited or damaged"
    with pytest.raises(SplitError, match=re.escape(edited)):
        featurepipe.fit(head="knn", workspace=home)
    # The same by a forger, or made again for other images.
    for is_forged in (False, True):
        if is_forged:
            about["sha256"] = SplitFile.model_validate_json(path.read_text()).digest
            path.write_text(json.dumps(about))
            edited = f"The split {path} has changed since it was used for 1 run ("
        caplog.clear()
        featurepipe.report(workspace=home)
        assert sum(edited in message for message in caplog.messages) == 1
        with pytest.raises(RunError, match=re.escape(f"cannot be repeated. {edited}")):
            featurepipe.repeat(run_path.name, workspace=home)
        with pytest.raises(RunError, match=re.escape(edited)):
            featurepipe.info(run_path, verify=True)
        caplog.clear()
        with pytest.raises(WorkspaceError, match="has 1 problem"):
            featurepipe.info(home, verify=True)
        assert [message.startswith(edited) for message in caplog.messages] == [True]


def test_names_may_hold_line_ends_and_commas(folder, capsys, repeat):
    for number, name in enumerate(["a\rb.png", "c\nd.png", 'e,"f.png']):
        draw(folder / "dataset" / "red_plain" / name, "red", bright_top=False, seed=50 + number)
    assert run([*EXTRACT, "--backbone", "resnet50"]) == 0
    (name,) = fit(capsys, "--head", "knn", "--features", "resnet50")
    assert "the same numbers again, bit for bit, for 67 images" in repeat(name)[1]


def test_an_unknown_run_is_named(folder, capsys):
    (name,) = fit(capsys, "--head", "logistic", "--features", "resnet50")
    with pytest.raises(UnknownNameError, match=f"Did you mean '{name}'"):
        featurepipe.repeat(name[:-1])


def test_no_cores_are_too_few(folder, capsys):
    (name,) = fit(capsys, "--head", "logistic", "--features", "resnet50")
    with pytest.raises(UsageError, match="--jobs is 0"):
        featurepipe.repeat(name, n_jobs=0)
