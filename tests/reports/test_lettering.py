import json
from pathlib import Path

import matplotlib
import pytest
from matplotlib import font_manager
from PIL import features

from featurepipe.reports import lettering
from featurepipe.reports.lettering import set_lines, spell

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"


@pytest.fixture
def system_fonts(monkeypatch):
    """Sets the fonts of the system."""

    def use(*paths):
        lettering._font_with.cache_clear()
        monkeypatch.setattr(font_manager, "findSystemFonts", lambda: list(map(str, paths)))

    yield use
    lettering._font_with.cache_clear()


def test_lines_are_broken_at_spaces_but_not_before_the_sign_of_a_share():
    whole = set_lines(["color: red 95 %, blue 80 %"], 20, 1000)
    assert whole.lines == ["color: red 95 %, blue 80 %"]
    narrow = whole.font.getlength("color: red 95")
    broken = set_lines(["color: red 95 %, blue 80 %"], 20, narrow)
    assert list(broken.lines) == ["color: red", "95 %, blue", "80 %"]
    assert broken.height_px == 3 * broken.line_px == 3 * 27


@pytest.mark.parametrize("word", ["x" * 500, "שחור" * 100, "😀" * 80, "i"])
def test_no_line_is_wider_than_asked_and_nothing_is_lost(word):
    set_ = set_lines([f"tags: {word} 95 %"], 16, 150)
    assert max(map(set_.font.getlength, set_.lines)) <= 150
    assert "".join(set_.lines).replace(" ", "") == f"tags:{word}95%"


def test_paths_are_broken_at_folders():
    lettered = set_lines(["some/long/folder/name.jpg"], 16, 150)
    assert list(lettered.lines) == ["some/long/folder/", "name.jpg"]


def test_further_lines_are_left_out():
    assert list(set_lines(["a", "b", "c", "d"], 16, 150, 3).lines) == ["a", "b", "…"]
    assert list(set_lines(["a", "b", "c"], 16, 150, 3).lines) == ["a", "b", "c"]


def test_names_are_shown_whatever_they_hold():
    assert spell("red") == "red"
    assert spell("a" * 100, 11) == "aaaaa…aaaaa"
    assert spell("a\x1b[2J\u202eb") == r"a\u001b[2J\u202eb"
    # Isolated, so that the share stays behind the name.
    assert spell("שחור") == "\u2068שחור\u2069"


@pytest.mark.skipif(not features.check("raqm"), reason="needs a Pillow with Raqm")
def test_a_broken_name_is_isolated_on_each_line():
    lines = set_lines([f"{spell('שחור ' * 10)} 95 %"], 16, 150).lines
    assert len(lines) > 2
    assert all(line.startswith("\u2068") for line in lines)
    assert lines[-1].endswith("\u2069 95 %")


def test_what_no_font_has_is_an_escape_and_an_emoji_its_name(system_fonts):
    system_fonts()
    (line,) = set_lines(["红 👗 😀 é"], 16, 500).lines
    assert line == r"\u7ea2 (dress) 😀 é"
    assert json.loads(rf'"{line}"') == "红 (dress) 😀 é"


def test_a_font_of_the_system_that_has_all_characters_is_used(system_fonts, tmp_path):
    broken = tmp_path / "Broken-Regular.ttf"
    broken.write_bytes(b"no font")
    # DejaVu Sans and Computer Modern lack the character.
    system_fonts(broken, FONTS / "cmr10.ttf", FONTS / "STIXGeneral.ttf")
    lettered = set_lines(["class: \u1d81"], 16, 500)
    assert list(lettered.lines) == ["class: \u1d81"]
    assert Path(lettered.font.path).name == "STIXGeneral.ttf"
    # Without need, it is DejaVu Sans.
    assert Path(set_lines(["class: a"], 16, 500).font.path).name == "DejaVuSans.ttf"
