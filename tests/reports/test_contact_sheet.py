"""The contact sheet: where pictures and words are, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from featurepipe.errors import UsageError
from featurepipe.reports.contact_sheet import require_possible_sheet, write_contact_sheet


def picture(colour, size=(40, 20)):
    return Image.new("RGB", size, colour)


def test_pictures_stand_in_rows_with_words_below(tmp_path):
    pictures = [(picture("red"), ["1  a.jpg", "red"]) for _ in range(5)]
    pictures.append((picture("blue", (20, 40)), ["6  b.jpg", "blue", "a reason " * 20]))
    write_contact_sheet(pictures, tmp_path / "sheet.png")
    pixels = np.asarray(Image.open(tmp_path / "sheet.png")).astype(int)
    red = (pixels == [255, 0, 0]).all(axis=2)
    blue = (pixels == [0, 0, 255]).all(axis=2)
    # Enlarged to 220 px, with a gap of 12 px beside.
    assert red.sum() == 5 * 220 * 110
    assert blue.sum() == 220 * 110
    assert np.flatnonzero(red.any(axis=0))[[0, -1]].tolist() == [12, 12 + 4 * 232 + 219]
    assert np.flatnonzero(blue.any(axis=1))[0] > np.flatnonzero(red.any(axis=1))[-1]
    below = pixels[np.flatnonzero(blue.any(axis=1))[-1] + 1 :]
    assert (below[:, :240] < 100).any()
    # Words are broken where the picture ends.
    assert (below[:, 240:] == 255).all()


def test_a_picture_that_cannot_be_shown_leaves_its_words(tmp_path):
    write_contact_sheet([(None, ["1  a.jpg", "cannot be shown"])], tmp_path / "sheet.jpg")
    sheet = Image.open(tmp_path / "sheet.jpg")
    assert sheet.format == "JPEG" and sheet.width == 244
    pixels = np.asarray(sheet)
    assert (pixels[:230] > 250).all() and (pixels[232:] < 100).any()


def test_names_show_no_control_characters_and_long_words_are_cut(tmp_path):
    lines = ["1  a\x1b[2J.jpg", "folder/" * 30 + "name.jpg"]
    write_contact_sheet([(picture("red"), lines)], tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").width == 244


@pytest.mark.parametrize(
    ("name", "n", "message"),
    [
        ("sheet.gif", 5, "its suffix is '.gif'. Use .jpg, .jpeg or .png."),
        ("folder.png", 5, "it is a folder. Name a file."),
        ("none/sheet.png", 5, "there is no folder .*none. Create it."),
        ("sheet.png", 401, "at most 400 images, not 401"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, name, n, message):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UsageError, match=message):
        require_possible_sheet(tmp_path / name, n)
    require_possible_sheet(tmp_path / "sheet.JPG", 400)
