"""What cannot be fitted is said clearly, through the command line."""

import json

import numpy as np
import pandas as pd
import pytest

from command_line import fail
from featurepipe.cli import run
from pictures import ColourMean, draw, draw_data_set

RANDOM = ["--weights", "random", "--size", "8"]
EXTRACT = ["extract", "dataset", "--attributes", "color,kind", *RANDOM, "--backbone", "resnet50"]
FIT = ["fit", "--head", "logistic"]


@pytest.fixture
def folder(tmp_path, monkeypatch, colour_mean):
    monkeypatch.chdir(tmp_path)
    draw_data_set(tmp_path / "dataset", n_each=6)
    return tmp_path


def succeed(capsys, *arguments):
    capsys.readouterr()
    code = run(list(arguments))
    out, err = capsys.readouterr()
    assert code == 0, err
    return out, err


def write_labels(folder, **columns):
    """A table of labels; a column is a function of an image's id."""
    ids = sorted(str(path.relative_to(folder / "dataset")) for path in folder.glob("dataset/*/*"))
    table = {name: [label(image) for image in ids] for name, label in columns.items()}
    pd.DataFrame({"path": ids, **table}).to_csv(folder / "labels.csv", index=False)


def color_of(image):
    return image.split("_")[0]


def add_images(folder):
    """Two of each combination, for which the next extraction alone has features."""
    for image in folder.glob("dataset/*/0[01].png"):
        color, kind = image.parent.name.split("_")
        draw(image.with_name(f"new{image.name}"), color, kind == "bright", seed=int(image.stem))


def test_one_class_only(folder, capsys):
    succeed(capsys, *EXTRACT)
    write_labels(folder, thing=lambda image: "picture")
    line = fail(capsys, *FIT, "--labels", "labels.csv")
    assert "training images have the same label of attribute 'thing' (picture)" in line
    assert (
        "one class cannot be told from another. Add images of another class, or choose other"
        in line
    )


def test_no_label_of_an_attribute(folder, capsys):
    succeed(capsys, *EXTRACT)
    write_labels(folder, color=color_of, mood=lambda image: None)
    line = fail(capsys, *FIT, "--labels", "labels.csv", "--attributes", "color,mood")
    assert "Attribute 'mood' has no label for any of the 48 images" in line


def test_no_label_of_an_attribute_among_training_images(folder, capsys):
    succeed(capsys, *EXTRACT)
    is_test = {"00.png", "01.png"}
    write_labels(
        folder,
        color=color_of,
        mood=lambda image: image[0] if image[-6:] in is_test else None,
        split=lambda image: "test" if image[-6:] in is_test else "train",
    )
    line = fail(capsys, *FIT, "--labels", "labels.csv")
    assert "without a training image in the predefined split: 'b' of 'mood', 'r' of" in line


def test_a_class_that_is_only_tested(folder, capsys):
    succeed(capsys, *EXTRACT)
    write_labels(folder, color=color_of, split=lambda image: "test" if "red" in image else "train")
    line = fail(capsys, *FIT, "--labels", "labels.csv")
    assert "without a training image in the predefined split: 'red' of 'color'." in line


def test_a_class_that_is_only_trained(folder, capsys):
    succeed(capsys, *EXTRACT)
    write_labels(
        folder,
        color=color_of,
        split=lambda image: "test" if "0.png" in image and "red" not in image else "train",
    )
    _, said = succeed(capsys, *FIT, "--labels", "labels.csv")
    assert "without a test image in the predefined split: 'red' of 'color'" in said
    succeed(capsys, "report")
    board = pd.read_csv(folder / "leaderboard.csv").set_index("attribute")
    assert board.loc["color", "n_test"] == 6
    assert np.isfinite(board.loc["color", ["accuracy", "log_loss"]].astype(float)).all()


def test_features_that_are_not_finite(folder, capsys, monkeypatch):
    compute = ColourMean.compute
    monkeypatch.setattr(ColourMean, "compute", lambda self, images: compute(self, images) * np.nan)
    succeed(capsys, *EXTRACT)
    for arguments in (FIT, [*FIT, "--features", "auto"], ["export", "STORE", "out.csv"]):
        store = str(next(folder.glob("features/*.h5")))
        line = fail(capsys, *[store if name == "STORE" else name for name in arguments])
        assert "have features that are not finite, first 'black_bright/00.png'" in line
        assert "extract again with --precision float32" in line


def test_constant_features(folder, capsys, monkeypatch):
    compute = ColourMean.compute
    monkeypatch.setattr(ColourMean, "compute", lambda self, images: compute(self, images) * 0 + 1)
    succeed(capsys, *EXTRACT)
    line = fail(capsys, *FIT)
    assert "Every feature is constant: all training images have the same features." in line


def test_more_members_than_rows(tmp_path, capsys, monkeypatch, colour_mean):
    monkeypatch.chdir(tmp_path)
    left_out = ("red_plain", "red_bright", "white_plain", "white_bright")
    draw_data_set(tmp_path / "dataset", n_each=3, skip=left_out)
    succeed(capsys, *EXTRACT)
    out, _ = succeed(capsys, "fit", "--head", "bagged-sgd", "--test-size", "0.4", "--json")
    # The recipe has 10 members, each of half as many rows as there are.
    assert {row["n_train"] for row in json.loads(out)} == {7}
    out, _ = succeed(capsys, "predict", "dataset/black_plain", "dataset/blue_plain", "--json")
    for line in out.splitlines():
        for answer in json.loads(line)["attributes"].values():
            assert 0 < answer[0]["probability"] <= 1


def test_pending_rows_are_counted_and_may_be_left_out(folder, capsys):
    succeed(capsys, *EXTRACT[:-1], "resnet50,xception")
    add_images(folder)
    succeed(capsys, *EXTRACT)
    line = fail(capsys, *FIT)
    assert "xception-random0-8-avg-rgb.h5 has no features yet of 16 of 64 images" in line
    assert "Finish it: featurepipe extract; or fit" in line
    assert "--allow-partial" in line
    assert not list(folder.glob("runs/*"))
    out, said = succeed(capsys, *FIT, "--allow-partial", "--json")
    assert "has no features yet of 16 of 64 images. They are left out." in said
    rows = json.loads(out)
    # Both runs divide the images that both stores have.
    assert {row["backbone"] for row in rows} == {"resnet50", "xception"}
    assert {row["n_train"] for row in rows} == {38}
    (path,) = folder.glob("splits/*.json")
    parts = json.loads(path.read_text())["group_of_image"]
    divided = {image for images in parts.values() for image in images}
    assert len(divided) == 48
    assert not any("new" in image for image in divided)


def test_a_finished_store_gets_a_split_of_all_images(folder, capsys):
    succeed(capsys, *EXTRACT[:-1], "resnet50,xception")
    add_images(folder)
    succeed(capsys, *EXTRACT)
    succeed(capsys, *FIT, "--allow-partial")
    succeed(capsys, *EXTRACT[:-1], "xception")
    out, said = succeed(capsys, *FIT, "--allow-partial", "--json")
    assert "left out" not in said
    assert {row["n_train"] for row in json.loads(out)} == {51}
    assert {row["split"] for row in json.loads(out)} == {"test20-seed0-2"}


def test_stores_that_are_not_read_may_be_pending(folder, capsys):
    succeed(capsys, *EXTRACT[:-1], "resnet50,xception")
    add_images(folder)
    succeed(capsys, *EXTRACT)
    out, _ = succeed(capsys, *FIT, "--features", "resnet50", "--json")
    assert json.loads(out)[0]["n_train"] == 51


def test_stores_without_an_image_in_common_cannot_be_fitted(folder, capsys, monkeypatch):
    batches = iter(range(3))
    compute = ColourMean.compute

    def interrupted(self, images):
        if next(batches) == 1:
            raise KeyboardInterrupt
        return compute(self, images)

    succeed(capsys, *EXTRACT)
    monkeypatch.setattr(ColourMean, "compute", interrupted)
    assert run([*EXTRACT[:-1], "xception"]) == 130
    line = fail(capsys, *FIT, "--allow-partial")
    assert "No image has features in all of:" in line
