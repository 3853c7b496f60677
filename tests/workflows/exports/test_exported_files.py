"""What lies beside an exported model: its card, and a program that runs it."""

import os
import subprocess
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

import featurepipe
from featurepipe.errors import NotWritableError, UsageError
from histogram_runs import RUN, given_pictures, make_workspace

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("place")
    make_workspace(root)
    return root


@pytest.fixture(scope="module")
def exported(place, tmp_path_factory):
    target = tmp_path_factory.mktemp("out") / "it's.onnx"
    return featurepipe.export(RUN, target, workspace=place)


@pytest.fixture(scope="module")
def held_out(place, tmp_path_factory):
    """The card of a run that never saw red and bright together."""
    run = featurepipe.fit(head="knn", hold_out=["red_bright"], workspace=place)["run"].iloc[0]
    target = tmp_path_factory.mktemp("held") / "model.onnx"
    return featurepipe.export(run, target, workspace=place)


def run_program(path, *arguments):
    # Without this package: what a person has who was given the folder.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, path, *arguments], capture_output=True, text=True, env=environment,
        check=True, cwd=path.parent,
    )  # fmt: skip
    assert done.stderr == ""
    return [line.split("\t") for line in done.stdout.splitlines()]


def test_the_program_says_what_predict_says(place, exported, tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for path, picture in zip(paths, given_pictures(), strict=False):
        Image.fromarray(picture).save(path)
    # Red that is half transparent, over white.
    half = np.full((20, 20, 4), (200, 30, 30, 90), np.uint8)
    Image.fromarray(half, "RGBA").save(paths[4])
    noise = np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(paths[5])

    lines = run_program(exported.program, *paths)

    predictor = featurepipe.Predictor(RUN, workspace=place)
    expected = []
    for path in paths:
        (answer,) = predictor.predict([path], top=1)
        for name, (best,) in answer["attributes"].items():
            said = f"{best['class']} {best['probability']:.3f}"
            expected.append([str(path), name, "unknown" if best["unknown"] else said])
    assert [line[:2] for line in lines] == [line[:2] for line in expected]
    for (*_, got), (*_, wanted) in zip(lines, expected, strict=True):
        assert got.split()[0] == wanted.split()[0]
        if wanted != "unknown":
            assert float(got.split()[1]) == pytest.approx(float(wanted.split()[1]), abs=2e-3)
    assert "unknown" in {line[2] for line in lines}


def test_the_program_turns_pictures_upright(exported, tmp_path):
    # Bright above: in the file it lies on its side.
    pixels = np.full((40, 40, 3), (30, 60, 200), np.uint8)
    pixels[:, :20] += 55
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(np.rot90(pixels, -1).copy()).save(tmp_path / "upright.png")

    turned, upright = (
        run_program(exported.program, tmp_path / f"{name}.png") for name in ("turned", "upright")
    )

    assert [line[1:] for line in turned] == [line[1:] for line in upright]


def test_the_program_is_short(exported):
    lines = [line for line in exported.program.read_text().splitlines() if line.strip()]

    assert lines[0].startswith('"""')
    assert len([line for line in lines[1:] if not line.startswith("#")]) == 15


def test_the_card_has_the_figures_of_the_board(place, held_out):
    text = held_out.card.read_text(encoding="utf-8")
    header = yaml.safe_load(text.split("---\n")[1])
    board = featurepipe.report(workspace=place, html=False).query("run == @held_out.run")
    board = board.set_index("attribute")

    (model,) = header["model-index"]
    assert model["name"] == held_out.run
    results = {one["task"]["name"]: one for one in model["results"]}
    assert list(results) == ["Answer to color", "Answer to kind", "Answer to all"]
    for name in ("color", "kind", "all"):
        metrics = {one["type"]: one for one in results[f"Answer to {name}"]["metrics"]}
        for kind in ("accuracy", "unseen_accuracy", "log_loss", "ece", "answered"):
            assert metrics[kind]["value"] == pytest.approx(board[kind][name])
            low, high = metrics[kind]["args"]["confidence_interval_95"]
            assert low == pytest.approx(board[f"{kind}_low"][name])
            assert high == pytest.approx(board[f"{kind}_high"][name])
        right = f"{100 * board['accuracy'][name]:.1f} %"
        assert f"| {name} | {board['n_test'][name]} | {right} (" in text
    assert "Training saw no image of red\\_bright. On these 10 images:" in text
    assert header["library_name"] == "onnx"


def test_the_card_says_what_it_was_trained_on_and_how_to_run_it(place, held_out):
    text = held_out.card.read_text(encoding="utf-8")

    # 70 images of 7 combinations, a fifth of which are for the test.
    assert "Images of *dataset*: 56 for training, 14 for the test, 10 of held-out comb" in text
    assert str(place) not in text
    assert f"```python\n{held_out.program.read_text()}```" in text
    assert "| hsv\\_histogram | rgb |" in text


def test_the_card_says_what_was_not_measured(exported):
    text = exported.card.read_text(encoding="utf-8")

    assert "No combination of classes was held out." in text
    assert "near-duplicates may be on both sides of the split" in text


def test_files_of_others_are_not_replaced(place, tmp_path):
    (tmp_path / "model.md").write_text("my notes")

    with pytest.raises(UsageError, match=r"model\.md would be replaced"):
        featurepipe.export(RUN, tmp_path / "model.onnx", workspace=place)
    assert [path.name for path in tmp_path.iterdir()] == ["model.md"]


def test_places_that_cannot_be_written_to_are_refused_first(place, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("a file")
    monkeypatch.setattr("featurepipe.workflows.exports.export_run.build_run_graph", pytest.fail)
    for target in (tmp_path / "file" / "model.onnx", tmp_path / "file" / "new" / "model.onnx"):
        with pytest.raises(NotWritableError, match="The model cannot be written to"):
            featurepipe.export(RUN, target, workspace=place)
    with pytest.raises(NotWritableError, match="The page cannot be written to"):
        page = tmp_path / "file" / "page"
        featurepipe.export(RUN, tmp_path / "model.onnx", page=page, workspace=place)


def test_an_export_replaces_an_earlier_one(place, exported):
    again = featurepipe.export(RUN, exported.target, workspace=place)

    assert again.card.read_text() == exported.card.read_text()
