"""featurepipe info --plot: what is drawn of a workspace or manifest, and what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import featurepipe
from command_line import fail, succeed
from featurepipe.reports import data_picture
from pictures import draw, draw_data_set
from refusals import assert_refused_first


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A workspace of 80 pictures, which lie beside it."""
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    draw_data_set(Path("../images"))
    featurepipe.extract("../images", attributes=["color", "kind"], backbone="hsv_histogram")
    return tmp_path


@pytest.fixture
def drawn(monkeypatch):
    """The arguments of what was drawn."""
    calls, really = [], data_picture.draw_data

    def draw_data(*arguments):
        calls.append(arguments)
        return really(*arguments)

    monkeypatch.setattr(data_picture, "draw_data", draw_data)
    return calls


def test_labels_combinations_sizes_and_examples_are_drawn(home, drawn, capsys):
    (home / "images/red_plain/03.png").write_bytes(b"broken")
    draw(home / "images/red_plain/04.png", "red", bright_top=False, seed=1, side=30)
    text = succeed(capsys, "info", ".", "--plot", "plot.png")
    assert text.startswith("Workspace")
    assert Image.open("plot.png").size[0] == 1320
    ((title, labels, sizes, said, examples),) = drawn
    assert title == "80 images in images"
    assert [panel.title for panel in labels] == [
        "color: 4 classes", "kind: 2 classes", "8 combinations",
    ]  # fmt: skip
    assert labels[0].counts == {"black": 20, "blue": 20, "red": 20, "white": 20}
    assert labels[1].counts == {"bright": 40, "plain": 40}
    assert labels[2].counts["red_plain"] == 10 and len(labels[2].counts) == 8
    assert sizes.n_unread == 1 and sizes.n_images == 80
    assert sorted(map(tuple, sizes.sizes.tolist())) == [(12, 12)] * 78 + [(30, 30)]
    assert said == "examples of combinations, drawn at random"
    assert sorted(shown.kind for shown in examples) == sorted(labels[2].counts)
    assert [shown.n_images for shown in examples] == [10] * 8
    for shown in examples:
        assert len(shown.pictures) == 4
        means = [np.asarray(picture).mean(axis=(0, 1)) for picture in shown.pictures if picture]
        if shown.kind.startswith("blue"):
            assert all(blue > red for red, _, blue in means)


def test_a_manifest_is_drawn_alike_every_time_and_as_jpeg(home, capsys):
    featurepipe.info("manifest.parquet", plot="one.png")
    featurepipe.info(".", plot="two.png")
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()
    succeed(capsys, "info", "manifest.parquet", "--plot", "three.jpg", "--json", "--quiet")
    assert Image.open("three.jpg").format == "JPEG"


def test_of_many_images_and_kinds_some_are_drawn(home, drawn, monkeypatch):
    monkeypatch.setattr("featurepipe.workflows.data_summary._MAX_SIZES", 30)
    monkeypatch.setattr("featurepipe.workflows.data_summary._MAX_KINDS", 3)
    featurepipe.info(".", plot="plot.png")
    ((_, _, sizes, said, examples),) = drawn
    assert (len(sizes.sizes), sizes.n_images) == (30, 80)
    assert said == "examples of 3 of 8 combinations, drawn at random"
    assert len(examples) == 3


def test_sets_of_labels_and_missing_ones(home, drawn):
    rows = [f"red_plain/{k:02}.png,{'new|wide' if k % 2 else 'new'}" for k in range(9)]
    Path("labels.csv").write_text("\n".join(["path,tags", *rows, "red_plain/09.png,"]))
    featurepipe.extract("../images", labels="labels.csv", backbone="hsv_histogram")
    featurepipe.info(".", plot="plot.png")
    ((_, labels, _, said, examples),) = drawn
    (panel,) = labels
    assert panel.title == "tags: 2 labels, 1 unlabelled"
    assert panel.counts == {"new": 9, "wide": 4}
    assert said == "examples of the classes of tags, drawn at random"
    assert [(shown.kind, shown.n_images) for shown in examples] == [("new", 9), ("wide", 4)]


def test_images_without_labels_are_drawn_too(home, drawn):
    shutil.copytree(home / "images/red_plain", home / "flat")
    featurepipe.extract("../flat", backbone="hsv_histogram", workspace="flat-home")
    featurepipe.info("flat-home", plot="plot.png")
    ((_, labels, _, _, examples),) = drawn
    assert labels == []
    assert [(shown.kind, shown.n_images) for shown in examples] == [("no labels", 10)]


@pytest.mark.parametrize(
    ("path", "plot", "message"),
    [
        (".", "plot.svg", "its suffix is '.svg'. Use .jpg, .jpeg or .png."),
        (".", "none/plot.png", "there is no folder none"),
        (".", "../images/plot.png", "The plot ../images/plot.png would be one of the images"),
        ("absent", "plot.png", "There is no absent"),
        ("features", "plot.png", "--plot draws the images of a workspace or manifest, and"),
        ("store", "plot.png", "--plot draws the images of a workspace or manifest, and"),
    ],
)
def test_what_cannot_be_drawn_is_refused_first(home, path, plot, message):
    (store,) = Path("features").glob("*.h5")
    path = store if path == "store" else path
    assert_refused_first(home, lambda: featurepipe.info(path, plot=plot), message)


def test_images_that_are_gone_cannot_be_drawn(home, capsys):
    for path in (home / "images").glob("*/*.png"):
        path.unlink()
    said = fail(capsys, "info", ".", "--plot", "plot.png")
    assert "None of the images in" in said and said.endswith("Check that they are still there.")
    shutil.rmtree(home / "images")
    assert "where the images were, is gone" in fail(capsys, "info", ".", "--plot", "plot.png")
    assert not Path("plot.png").exists()
