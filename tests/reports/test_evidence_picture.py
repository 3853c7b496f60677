import numpy as np
import pytest
from PIL import Image

from featurepipe.reports.evidence_picture import EvidencePanel, draw_evidence, shown

WIDTH, GAP, TITLE_PX = 360, 16, 17


@pytest.fixture
def picture():
    return shown(Image.new("RGB", (100, 50), (200, 200, 200)))


def evidence_of(picture):
    """For in the left half, against in the right, nothing in the lowest quarter."""
    evidence = np.full((picture.height, picture.width), 0.002)
    evidence[:, picture.width // 2 :] = -0.001
    evidence[3 * picture.height // 4 :] = 0
    return evidence


def draw(picture, panels, path, name="photo.jpg"):
    draw_evidence(picture, name, panels, path)
    return np.asarray(Image.open(path)).astype(int)


def test_pictures_are_shown_at_a_legible_size():
    assert shown(Image.new("RGB", (60, 80))).size == (270, 360)
    assert shown(Image.new("RGB", (4000, 3000))).size == (360, 270)
    assert shown(Image.new("RGB", (3000, 2))).size == (360, 1)


def test_evidence_for_is_orange_and_against_is_purple(picture, tmp_path):
    panel = EvidencePanel("color: red 95 %", evidence_of(picture))
    page = draw(picture, [panel], tmp_path / "a.jpg")
    assert page.shape[1] == GAP + 2 * (WIDTH + GAP)
    left, top = 2 * GAP + WIDTH, GAP + TITLE_PX
    strong = page[top + 60, left + 60]
    weak = page[top + 60, left + 300]
    nothing = page[top + 170, left + 60]
    assert strong[0] > strong[1] + 80 > strong[2] + 100
    assert weak[2] > weak[1] + 15 and weak[0] > weak[1]
    # Half as strong, and so half as opaque.
    assert np.abs(weak - nothing).sum() < np.abs(strong - nothing).sum()
    assert np.ptp(nothing) <= 4
    # The first panel is the picture itself.
    np.testing.assert_allclose(page[top + 60, GAP + 60], 200, atol=3)
    # The bar goes from purple by grey to orange.
    bar = page[top + 180 + 10, left : left + WIDTH]
    assert bar[3, 2] > bar[3, 1] + 60 and bar[-4, 0] > bar[-4, 2] + 100
    assert np.ptp(bar[WIDTH // 2]) <= 6


def words_of(monkeypatch):
    """What is written on the picture."""
    from PIL import ImageDraw

    words, write = [], ImageDraw.ImageDraw.text

    def text(self, xy, text, *args, **kwargs):
        words.append(text)
        return write(self, xy, text, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return words


def test_the_bar_has_numbers_for_each_percent_of_the_area(picture, tmp_path, monkeypatch):
    words = words_of(monkeypatch)
    evidence = evidence_of(picture)
    # 0.002 a pixel of 360 x 180.
    draw(picture, [EvidencePanel("color: red 95 %", evidence)], tmp_path / "a.jpg")
    assert words[-4:] == ["-1.3 against", "0", "for +1.3", "score per 1 % of the area"]
    assert "color: red 95 %" in words and "photo.jpg" in words
    # A few pixels beyond the scale do not make all others pale.
    evidence[:2, :20] = -5
    draw(picture, [EvidencePanel("x", evidence)], tmp_path / "a.jpg")
    assert words[-4:-1] == ["< -1.3 against", "0", "for +1.3"]


def test_nothing_at_all_has_no_colour(picture, tmp_path):
    panel = EvidencePanel("x", np.zeros((picture.height, picture.width)))
    page = draw(picture, [panel], tmp_path / "a.jpg")
    of_picture = page[GAP + TITLE_PX + 5 : GAP + TITLE_PX + 170, 2 * GAP + WIDTH + 5 : -GAP - 5]
    assert np.ptp(of_picture, axis=-1).max() <= 4


def test_panels_without_a_map_say_why_and_long_names_are_broken(picture, tmp_path, monkeypatch):
    words = words_of(monkeypatch)
    long = "x" * 200
    panels = [EvidencePanel("kind: shirt 80 %", None, ("No map of knn: no.", long))] * 5
    page = draw(picture, panels, tmp_path / "a.jpg", name="шляпа.jpg")
    assert "шляпа.jpg" in words and "No map of knn: no." in words
    assert "".join(word for word in words if set(word) == {"x"}) == 5 * long
    assert max(len(word) for word in words) < 100
    # Four panels a row.
    assert page.shape[1] == GAP + 4 * (WIDTH + GAP)
    assert not any("against" in word for word in words)
