"""fit --curve: whether more images, or images of more combinations, would help."""

import pandas as pd
import pytest

import featurepipe
from featurepipe.cli import run
from featurepipe.runs.run_folder import load_run
from pictures import draw_data_set

EXTRACT = ["extract", "dataset", "--attributes", "color,kind", "--weights", "random", "--size", "8"]


def test_a_curve_is_kept_and_told_without_touching_test_images(
    tmp_path, monkeypatch, colour_mean, capsys
):
    monkeypatch.chdir(tmp_path)
    draw_data_set(tmp_path / "dataset", n_each=8)
    assert run([*EXTRACT, "--backbone", "resnet50"]) == 0
    fit = ["fit", "--head", "knn", "--calibrate", "none"]
    assert run(fit) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    plain = (folder / "predictions.npz").read_bytes()
    assert not (folder / "curve.csv").exists()
    capsys.readouterr()
    assert run([*fit, "--curve", "images"]) == 0
    said = capsys.readouterr().err
    assert (folder / "predictions.npz").read_bytes() == plain
    info = load_run(folder).info
    table = pd.read_csv(folder / "curve.csv")
    assert table["attribute"].tolist() == 4 * ["color"] + 4 * ["kind"]
    assert table["accuracy"].tolist() == [round(point.accuracy, 6) for point in info.curve]
    # Four fifths of the training images, never all of them.
    assert table["n_train"].max() <= 0.8 * info.n_train["all"] + 1
    assert [doubling.attribute for doubling in info.doublings] == ["color", "kind"]
    for doubling in info.doublings:
        assert f"{doubling.attribute}: {doubling.accuracy:.3f} on" in said
        assert f": {doubling.verdict}." in said
    featurepipe.repeat(folder.name)


def test_a_curve_over_combinations_names_the_hardest(tmp_path, monkeypatch, colour_mean, capsys):
    monkeypatch.chdir(tmp_path)
    draw_data_set(tmp_path / "dataset", n_each=8)
    assert run([*EXTRACT, "--backbone", "resnet50"]) == 0
    capsys.readouterr()
    assert run(["fit", "--head", "knn", "--curve", "combinations"]) == 0
    said = capsys.readouterr().err
    (folder,) = (tmp_path / "runs").iterdir()
    info = load_run(folder).info
    table = pd.read_csv(folder / "combination-curve.csv")
    assert table["attribute"].tolist() == 4 * ["color"] + 4 * ["kind"] + 4 * ["all"]
    accuracies = [point.accuracy for point in info.combination_curve]
    assert table["accuracy"].tolist() == pytest.approx(accuracies, rel=1e-5)
    assert "of images in unseen combinations are right after" in said
    assert "Hardest combinations without images of their own: " in said
    featurepipe.repeat(folder.name)


def test_a_curve_over_combinations_is_refused_before_anything_is_fitted(
    tmp_path, monkeypatch, colour_mean, capsys
):
    monkeypatch.chdir(tmp_path)
    draw_data_set(tmp_path / "dataset", n_each=8)
    one = ["extract", "dataset", "--attributes", "label", "--weights", "random", "--size", "8"]
    assert run([*one, "--backbone", "resnet50"]) == 0
    assert run(["fit", "--curve", "combinations"]) == 1
    assert "--curve combinations needs at least two attributes" in capsys.readouterr().err
    assert run(["fit", "--curve", "combinations", "--task", "joint"]) == 1
    assert "--curve combinations cannot be combined with --task joint" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
