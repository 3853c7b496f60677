import numpy as np
import pytest
from PIL import Image

from featurepipe.reports.annotation import annotate_image
from featurepipe.reports.lettering import set_lines

LINES = ["color: red 95 %", "category: unknown (dress 40 %)"]


@pytest.mark.parametrize(
    ("size", "shown", "font_px"),
    [
        ((20, 20), (320, 320), 16),
        ((800, 600), (800, 600), 20),
        ((1600, 200), (1600, 200), 40),
        ((200, 1600), (200, 1600), 16),
        ((1, 3), (107, 320), 16),
        ((60_000, 2), (4096, 1), 102),
        ((5000, 4000), (4096, 3277), 102),
    ],
)
def test_the_picture_keeps_its_shape_and_the_words_are_legible_below(
    tmp_path, size, shown, font_px
):
    annotate_image(Image.new("RGB", size, "red"), LINES, tmp_path / "copy.jpg")
    copy = Image.open(tmp_path / "copy.jpg")
    width = max(shown[0], 320)
    words = set_lines(LINES, font_px, width - 12)
    assert copy.size == (width, shown[1] + words.height_px + 12)
    pixels = np.asarray(copy).astype(int)
    red = (pixels[..., 0] > 200) & (pixels[..., 1:] < 60).all(axis=2)
    assert abs(red.sum() - shown[0] * shown[1]) < 0.01 * red.sum() + 16 * max(shown)
    below = pixels[shown[1] + 16 :]
    rows = np.flatnonzero((below < 80).all(axis=2).any(axis=1))
    # Two lines, and a margin around them.
    assert rows[-1] - rows[0] > words.line_px
    ink = np.flatnonzero((below < 80).all(axis=2).any(axis=0))
    assert ink[0] >= 5 and ink[-1] < width - 5


def test_long_names_and_many_labels_stay_on_the_copy(tmp_path):
    lines = [f"tags: {'x' * 500} 95 %", *(f"{number}: {'word ' * 40}" for number in range(900))]
    annotate_image(Image.new("RGB", (30, 4000), "red"), lines, tmp_path / "copy.jpg")
    copy = Image.open(tmp_path / "copy.jpg")
    assert copy.size == (320, 4000 + 200 * 22 + 12)
    below = np.asarray(copy)[4010:].astype(int)
    assert (below[:, 314:] > 200).all() and (below[:, :314] < 80).any()
