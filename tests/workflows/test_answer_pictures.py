"""Pictures of predictions: what is on them is what is predicted, and nothing is embedded twice."""

import html
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import featurepipe
from command_line import fail, succeed
from featurepipe.cli import run
from featurepipe.errors import UsageError
from featurepipe.output_folders import MARKER
from featurepipe.reports import annotation, contact_sheet
from featurepipe.workflows import answer_pictures
from featurepipe.workflows.predictor import Predictor
from pictures import draw, draw_data_set
from refusals import assert_refused_first

RUN = "hsv_histogram-logistic"


@pytest.fixture(scope="module")
def fitted_once(tmp_path_factory):
    """A workspace beside its images, whose tags are sets of labels, and new images."""
    folder = tmp_path_factory.mktemp("answers")
    draw_data_set(folder / "images", n_each=12)
    rows = []
    for path in sorted((folder / "images").rglob("*.png")):
        color, kind = path.parent.name.split("_")
        tags = f"{kind}|dark" if color == "black" else kind
        rows.append([path.relative_to(folder / "images").as_posix(), color, tags])
    pd.DataFrame(rows, columns=["path", "color", "tags"]).to_csv(folder / "t.csv", index=False)
    home = folder / "home"
    featurepipe.extract(
        folder / "images", labels=folder / "t.csv", backbone="hsv_histogram", workspace=home
    )
    featurepipe.fit(head="logistic", workspace=home)
    for name, seed in (("red", 90), ("black", 91), ("green", 92)):
        draw(folder / "new" / f"{name}.png", name, name == "black", seed, side=40)
    (folder / "new" / "broken.jpg").write_bytes(b"broken")
    return folder


@pytest.fixture(autouse=True)
def folder(fitted_once, monkeypatch):
    monkeypatch.chdir(fitted_once)
    return fitted_once


def answered(tmp_path, **options):
    """What is predicted of the new images, with all pictures in a folder of their own."""
    out = tmp_path / "out"
    files = {"annotate": out, "contact_sheet": out / "sheet.png", "html": out / "page.html"}
    return out, featurepipe.predict(["new"], workspace="home", **files | options)


def lines_of(table, image):
    """The line of each attribute as the table has it."""
    lines = []
    for attribute, rows in table[table["image"] == image].groupby("attribute", sort=False):
        shares = [
            f"{name} {100 * p:.0f} %"
            for name, p in zip(rows["class"], rows["probability"], strict=True)
        ]
        given = [share for share, is_given in zip(shares, rows["given"], strict=True) if is_given]
        if rows["unknown"].iloc[0]:
            lines.append(f"{attribute}: unknown ({shares[0]})")
        else:
            lines.append(f"{attribute}: {', '.join(given) or f'none ({shares[0]})'}")
    return lines


def test_all_pictures_have_a_line_an_attribute_and_nothing_is_embedded_twice(tmp_path, monkeypatch):
    drawn, embedded = {}, []
    for module in (annotation, contact_sheet):

        def record(lines, *others, module=module, real=module.set_lines):
            drawn.setdefault(module, []).append(list(lines))
            return real(lines, *others)

        monkeypatch.setattr(module, "set_lines", record)
    embed = Predictor.embed
    monkeypatch.setattr(
        Predictor,
        "embed",
        lambda self, source, ids: embedded.append(ids) or embed(self, source, ids),
    )
    out, table = answered(tmp_path)
    assert len(embedded) == 1
    alone = featurepipe.predict(["new"], workspace="home")
    pd.testing.assert_frame_equal(table, alone)
    good = ["new/black.png", "new/green.png", "new/red.png"]
    lines = [lines_of(table, image) for image in good]
    assert re.fullmatch(r"color: black \d+ %", lines[0][0])
    assert re.fullmatch(r"tags: (bright|dark) \d+ %, (bright|dark) \d+ %", lines[0][1])
    assert re.fullmatch(r"color: unknown \(\w+ \d+ %\)", lines[1][0])
    assert drawn[annotation] == lines
    refused = table.set_index("image")["refused"]["new/broken.jpg"]
    assert drawn[contact_sheet] == [
        ["new/black.png", *lines[0]],
        ["new/broken.jpg", f"no answer: {refused}"],
        ["new/green.png", *lines[1]],
        ["new/red.png", *lines[2]],
    ]
    assert sorted(path.name for path in out.iterdir()) == [
        MARKER, "0001-black.jpg", "0003-green.jpg", "0004-red.jpg", "page.html", "sheet.png",
    ]  # fmt: skip
    assert Image.open(out / "0004-red.jpg").width == 320
    sheet = np.asarray(Image.open(out / "sheet.png")).astype(int)
    assert sheet.shape[1] == 12 + 4 * 232
    assert (
        np.abs(
            sheet[12 + 200, 12 + 3 * 232 : 12 + 3 * 232 + 220].mean(axis=0) - [200, 30, 30]
        ).max()
        < 15
    )
    assert (sheet[12:232, 244:464] == 255).all()


def test_the_page_has_the_top_five_as_predict_answers_them(tmp_path):
    out, _ = answered(tmp_path)
    five = featurepipe.predict(["new"], workspace="home", top=5)
    page = html.unescape((out / "page.html").read_text(encoding="utf-8"))
    cards = page.split('<li class="card')[1:]
    images = [image for image in five["image"].unique() if image != "new/broken.jpg"]
    assert len(cards) == len(images) == 3
    for card, image in zip(cards, images, strict=True):
        rows = five[five["image"] == image]
        # Four colours and three tags.
        assert len(rows) == 4 + 3
        assert re.findall(r"<bdi>(\w+)</bdi> <b>(.*?) %</b>", card) == [
            (name, f"{100 * p:.1f}")
            for name, p in zip(rows["class"], rows["probability"], strict=True)
        ]
        assert [line.replace("\u00a0", " ") for line in re.findall(r"<h4.*?>(.*)</h4>", card)] == (
            lines_of(five, image)
        )
    assert "new/broken.jpg</bdi>: not an image" in page
    assert f"Run {RUN}." in page and "95 % of familiar images" in page


def test_coverage_and_top_keep_their_meaning(tmp_path):
    out, table = answered(tmp_path, coverage=1.0, coverage_per="attribute", top=2)
    assert not (table["unknown"] == True).any()  # noqa: E712
    page = (out / "page.html").read_text(encoding="utf-8")
    assert "100 % of familiar images get an answer to an attribute" in page
    assert "unknown (" not in page
    assert page.count("<b>") == 3 * (4 + 3)


def test_the_same_images_give_the_same_bytes(tmp_path):
    out, _ = answered(tmp_path)
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    answered(tmp_path)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first


@pytest.mark.skipif(os.name != "posix", reason="other systems refuse such names")
def test_long_and_odd_names_of_files(tmp_path):
    names = ["n" * 251 + ".png", "é" * 120 + ".png", "<script>\x1b[2J\n.png"]
    for seed, name in enumerate(names):
        draw(tmp_path / "odd" / name, "red", False, seed)
    out = tmp_path / "out"
    featurepipe.predict(
        [tmp_path / "odd"], workspace="home", annotate=out, contact_sheet=out / "s.jpg",
        html=out / "p.html",
    )  # fmt: skip
    assert sorted(path.name for path in out.glob("0*")) == [
        "0001-<script>\x1b[2J\n.jpg", f"0002-{'n' * 150}.jpg", f"0003-{'é' * 75}.jpg",
    ]  # fmt: skip
    page = (out / "p.html").read_text(encoding="utf-8")
    assert r"&lt;script&gt;\u001b[2J\n.png" in page and "\x1b" not in page


def test_an_image_that_is_gone_meanwhile_is_named(tmp_path, monkeypatch, caplog):
    draw(tmp_path / "one" / "red.png", "red", False, 7)
    answer = Predictor.answer

    def remove(self, *arguments):
        (tmp_path / "one" / "red.png").unlink(missing_ok=True)
        return answer(self, *arguments)

    monkeypatch.setattr(Predictor, "answer", remove)
    out = tmp_path / "out"
    table = featurepipe.predict(
        [tmp_path / "one"], workspace="home", annotate=out, contact_sheet=out / "s.jpg",
        html=out / "p.html",
    )  # fmt: skip
    assert table["class"][0] == "red"
    assert [path.name for path in out.glob("0*")] == []
    assert any(
        message.startswith("No annotated copy of ")
        and message.endswith("No such file or directory.")
        for message in caplog.messages
    )
    assert "No picture" in (out / "p.html").read_text(encoding="utf-8")


REFUSED = [
    ({"contact_sheet": "sheet.gif"}, "its suffix is '.gif'. Use .jpg, .jpeg or .png."),
    ({"contact_sheet": "none/sheet.jpg"}, "there is no folder none"),
    ({"contact_sheet": "images/sheet.jpg"}, "would be one of the images of "),
    ({"contact_sheet": "new/sheet.jpg"}, "would be one of the images of new"),
    ({"contact_sheet": "new/deeper/sheet.jpg"}, "there is no folder new/deeper"),
    ({"contact_sheet": "home/../given.png"}, "is one of the images to predict"),
    ({"html": "page.pdf"}, "Cannot write a page to page.pdf: its suffix is '.pdf'"),
    ({"html": "none/page.html"}, "there is no folder none"),
    ({"html": "folder.html"}, "it is a folder"),
    ({"annotate": "out", "html": "out/more/page.html"}, "there is no folder out/more"),
    ({"annotate": "out", "contact_sheet": "page.html"}, "its suffix is '.html'"),
    ({"annotate": "images", "html": "page.html"}, "a folder of the source"),
    ({"annotate": "new", "html": "page.html"}, "already holds images"),
    ({"html": "page.html", "run": "nosuch"}, "Unknown run 'nosuch'"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_cannot_be_drawn_is_refused_first(folder, options, message):
    Path("folder.html").mkdir(exist_ok=True)
    draw(Path("given.png"), "red", False, 1)
    options = {"images": ["new", "given.png"], "run": RUN, "workspace": "home"} | options
    assert_refused_first(folder, lambda: featurepipe.predict(**options), message)
    assert not Path("out").exists()


def test_too_many_for_a_sheet_are_refused_before_anything_is_computed(monkeypatch):
    monkeypatch.setattr(contact_sheet, "MAX_PICTURES", 3)
    monkeypatch.setattr(Predictor, "embed", None)
    with pytest.raises(UsageError, match="at most 3 images, not 4"):
        featurepipe.predict(["new"], workspace="home", contact_sheet="sheet.jpg")
    assert not Path("sheet.jpg").exists()


def test_a_full_sheet_fits_a_jpeg(tmp_path, monkeypatch):
    monkeypatch.setattr(answer_pictures, "_open", lambda image: Image.new("RGB", (40, 40)))
    best = {"probability": 0.9, "given": True, "unknown": False}
    answer = [{"attribute": f"a{k}", "class": "many words " * 9, **best} for k in range(40)]
    given = [answer_pictures.GivenImage(f"{k}.jpg", Path(f"{k}.jpg")) for k in range(400)]
    pictures = answer_pictures.AnswerPictures(None, tmp_path / "sheet.jpg", None)
    pictures.write(given, {image.image_id: answer for image in given}, {}, "")
    width, height = Image.open(tmp_path / "sheet.jpg").size
    assert width == 12 + 5 * 232 and 50_000 < height < 65_535


def test_the_command_writes_them_and_prints_the_same(tmp_path, capsys, folder):
    plain = succeed(capsys, "predict", "new/red.png", "--workspace=home", "--json")
    out = tmp_path / "out"
    files = ["--annotate", out, "--contact-sheet", out / "s.JPG", "--html", out / "p.htm"]
    assert succeed(capsys, "predict", "new/red.png", "--workspace=home", "--json", *files) == plain
    assert Image.open(out / "s.JPG").format == "JPEG"
    # Pictures that featurepipe wrote are read by no one.
    assert "featurepipe wrote this folder" in fail(capsys, "predict", out, "--workspace=home")
    assert run(["predict", "new", "--workspace=home", "--contact-sheet", str(out / "t.png")]) == 1
    assert Image.open(out / "t.png").width == 12 + 4 * 232
