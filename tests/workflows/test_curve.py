"""fit --curve: whether more images would help."""

import json

import pandas as pd

from featurepipe.cli import run
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
    assert run([*fit, "--curve"]) == 0
    said = capsys.readouterr().err
    assert (folder / "predictions.npz").read_bytes() == plain
    facts = json.loads((folder / "run.json").read_text())
    table = pd.read_csv(folder / "curve.csv")
    assert table["attribute"].tolist() == 4 * ["color"] + 4 * ["kind"]
    assert table["accuracy"].tolist() == [round(p["accuracy"], 6) for p in facts["curve"]]
    # Four fifths of the training images, never all of them.
    assert table["n_train"].max() <= 0.8 * facts["n_train"]["all"] + 1
    for doubling in facts["doublings"]:
        assert f"{doubling['attribute']}: {doubling['accuracy']:.3f} on" in said
        assert f": {doubling['verdict']}." in said
    assert run(["repeat", folder.name]) == 0
