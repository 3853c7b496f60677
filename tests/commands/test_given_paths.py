"""Paths that are given: those that lead to nothing, and folders that may not be written to."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import fail, succeed
from featurepipe.cli import run
from featurepipe.output_folders import MARKER
from pictures import draw_data_set


@pytest.fixture(scope="module")
def fitted_once(tmp_path_factory):
    """A folder of class folders that is also the workspace."""
    folder = tmp_path_factory.mktemp("given")
    draw_data_set(folder, n_each=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(["extract", ".", "--backbone=hsv-histogram"]) == 0
        assert run(["fit", "--head=knn"]) == 0
    return folder


@pytest.fixture(autouse=True)
def folder(fitted_once, monkeypatch):
    monkeypatch.chdir(fitted_once)
    return fitted_once


def predicted(capsys, *arguments):
    """Exit code, the reason of each image (empty for an answer), and what was said."""
    capsys.readouterr()
    code = run(["predict", *arguments])
    out, err = capsys.readouterr()
    return code, {row["image"]: row["refused"] for row in csv.DictReader(io.StringIO(out))}, err


def test_the_others_are_predicted_when_paths_lead_to_nothing(folder, capsys, tmp_path):
    (tmp_path / "photo.heif").write_bytes(b"\0\0\0\x18ftypqt  " + bytes(40))
    good, odd = "red_plain/00.png", f"{tmp_path}/photo.heif"
    code, reasons, said = predicted(capsys, "absent.jpg", good, "red_*/*.gif", str(tmp_path))
    assert code == 1
    unread = "not an image (no JPEG, PNG, WebP, BMP, GIF, TIFF, PPM, AVIF or HEIC)"
    assert reasons == {
        "absent.jpg": "no such file", good: "", "red_*/*.gif": "no image matches", odd: unread,
    }  # fmt: skip
    assert said.splitlines()[-4:] == [
        "  absent.jpg: no such file",
        "  red_*/*.gif: no image matches",
        f"  {odd}: {unread}",
        "featurepipe: No answer for 3 of 4 images (see above). The others are predicted.",
    ]
    assert run(["predict", "absent.jpg", good, "--json"]) == 1
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {"image": "absent.jpg", "refused": "no such file"}
    assert set(second["attributes"]) == {"label"}


def test_nothing_but_missing_paths_is_one_clear_line(capsys):
    assert fail(capsys, "predict", "absent.jpg", "gone.jpg").startswith(
        "featurepipe: No image found at 'absent.jpg' and 1 other path (no such file). Expected a "
    )


def predict_from(text):
    """Exit code, the images and what was said; in a process, since pytest's logs hold text only."""
    command = [sys.executable, "-m", "featurepipe", "predict", "white_plain/00.png", "-"]
    done = subprocess.run(command, input=text, capture_output=True)
    images = [line.split(b",")[0] for line in done.stdout.splitlines()[1:]]
    return done.returncode, images, done.stderr


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_paths_from_standard_input():
    paths = [b"red_plain/00.png", b"no \xff\x1b2J.png", b"blue_plain/01.png"]
    code, images, said = predict_from(b"\n\n".join(paths))
    assert (code, images) == (1, [b"white_plain/00.png", *paths])
    assert b"\n  no \\udcff\\u001b2J.png: no such file\n" in said
    code, images, said = predict_from(b"\n")
    assert (code, images) == (1, [])
    assert said == b"featurepipe: Standard input has no path. Write one a line, or omit -.\n"


def test_annotated_copies_become_no_class(folder, capsys):
    before = json.loads(succeed(capsys, "info", ".", "--json"))["attributes"]
    for place in ("ann", "red_plain/ann"):
        succeed(capsys, "predict", "red_plain/00.png", "--annotate", place)
        succeed(capsys, "predict", "red_plain/01.png", "--annotate", place)
        assert sorted(path.name for path in Path(place).iterdir()) == [
            MARKER,
            "0001-00.jpg",
            "0001-01.jpg",
        ]
    succeed(capsys, "predict", "red_plain/01.png", "--annotate", "ann/more")
    succeed(capsys, "extract", ".", "--backbone=hsv-histogram")
    assert json.loads(succeed(capsys, "info", ".", "--json"))["attributes"] == before
    code, reasons, _ = predicted(capsys, "red_plain")
    assert code == 0 and len(reasons) == 4
    line = fail(capsys, "extract", "ann", "--workspace=other")
    assert f"featurepipe wrote the folder {folder}/ann, so its pictures are no source" in line


@pytest.mark.parametrize("place", [".", "red_plain", "blue_bright/../red_plain/"])
def test_pictures_are_not_written_to_folders_of_the_source(folder, capsys, place):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    line = fail(capsys, "predict", "red_plain/00.png", "--annotate", place)
    assert "Pictures would be written to " in line and "a folder of the source" in line
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_pictures_are_not_written_among_other_images(folder, capsys, tmp_path):
    image = tmp_path / "holiday" / "beach.jpg"
    image.parent.mkdir()
    image.touch()
    for place in (image.parent, tmp_path):
        line = fail(capsys, "predict", "red_plain/00.png", "--annotate", place)
        assert f"--annotate {place} already holds images" in line
        assert not (place / MARKER).exists()


def test_exports_are_not_written_to_folders_of_the_source(folder, capsys, tmp_path):
    store = "hsv_histogram-none-128-avg-rgb"
    line = fail(capsys, "export", store, "red_plain/features.csv")
    assert "The export would be written to red_plain, a folder of the source" in line
    # The workspace holds the product's own tables.
    succeed(capsys, "export", store, "features.csv")
    succeed(capsys, "export", store, tmp_path / "features.csv")
    (folder / "features.csv").unlink()
    elsewhere = ["--workspace", tmp_path / "home"]
    succeed(capsys, "extract", ".", "--backbone=hsv-histogram", *elsewhere)
    assert "a folder of the source" in fail(capsys, "export", store, "features.csv", *elsewhere)


def test_a_class_whose_images_are_all_refused_is_an_error(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw_data_set(tmp_path / "data", n_each=2, skip=("red_plain", "blue_plain"))
    for name in ("00.png", "01.png"):
        (tmp_path / "data" / "red_bright" / name).write_bytes(b"broken")
    assert fail(capsys, "extract", "data", "--backbone=hsv-histogram") == (
        "featurepipe: No image of 1 label of 'label' can be read: 'red_bright' (2 images, such as "
        "red_bright/00.png: not an image (no JPEG, PNG, WebP, BMP, GIF, TIFF, PPM, AVIF or HEIC)). "
        "Replace or remove them, and run the same command again."
    )
    (store,) = json.loads(succeed(capsys, "info", ".", "--json"))["stores"]
    assert (store["done"], store["refused"], store["pending"]) == (10, 2, 0)
