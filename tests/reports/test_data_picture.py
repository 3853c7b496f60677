"""The picture of a set of images: bars, sizes, examples, and names of any kind."""

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from featurepipe.reports import data_picture
from featurepipe.reports.data_picture import Examples, ImageSizes, LabelCounts, draw_data

BLUE = (0x00, 0x72, 0xB2)
SIZES = ImageSizes(np.array([[60, 80]] * 3 + [[60, 60]]), 0, 4)


@pytest.fixture
def figures(monkeypatch):
    """The figures that were drawn."""
    drawn, save = [], data_picture.saved_figure

    def saved(figure, kind):
        drawn.append(figure)
        return save(figure, kind)

    monkeypatch.setattr(data_picture, "saved_figure", saved)
    return drawn


def draw(labels=(), sizes=SIZES, examples=(), title="a title"):
    return draw_data(title, labels, sizes, "examples", examples)


def texts(figure):
    return [found.get_text() for found in figure.findobj(Text) if found.get_text()]


def bars(figure):
    axes = figure.axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    return names, [bar.get_width() for bar in axes.findobj(Rectangle) if bar in axes.patches]


def test_bars_are_as_long_as_classes_are_frequent():
    pixels = np.asarray(draw([LabelCounts("color: 3 classes", {"a": 10, "b": 40, "c": 20})]))
    assert pixels.shape[1] == 1320
    is_blue = (pixels[:, :440] == BLUE).all(axis=2)
    lengths = is_blue.sum(axis=1)
    seen = [int(n) for n, before in zip(lengths[1:], lengths, strict=False) if n != before]
    longest, middle, shortest = [n for n in seen if n > 20]
    # The line where they start hides a pixel of each.
    assert middle == pytest.approx(longest / 2, abs=2)
    assert shortest == pytest.approx(longest / 4, abs=2)


def test_the_most_frequent_come_first_with_their_numbers(figures):
    draw([LabelCounts("color", {"a": 10, "b": 1400, "c": 20, "d": 20, "e": 0})])
    assert bars(figures[0]) == (["b", "c", "d", "a", "e"], [1400, 20, 20, 10, 0])
    assert {"color", "1,400", "20", "10", "0", "a title"} <= set(texts(figures[0]))


def test_of_many_classes_both_ends_are_drawn(figures):
    draw([LabelCounts("many", {f"c{k:02}": 100 - k for k in range(81)})])
    names, lengths = bars(figures[0])
    assert names == [
        *(f"c{k:02}" for k in range(20)), "… 52 more", *(f"c{k:02}" for k in range(72, 81)),
    ]  # fmt: skip
    assert lengths == [*range(100, 80, -1), 0, *range(28, 19, -1)]


def test_names_are_shown_and_never_interpreted(figures):
    odd = ["$x^2$", "$\\frac{", "a\u202eb", "tab\t", "<b>&", "x" * 500, "W" * 500, "日本" * 99, ""]
    images = [Examples(name, 2, [None]) for name in odd]
    draw([LabelCounts("$\\alpha$" * 50, dict.fromkeys(odd, 3))], examples=images, title="$y$")
    written = texts(figures[0])
    for shown in ("$x^2$", "$\\frac{", "a\\u202eb", "tab\\t", "<b>&", "$y$"):
        assert shown in written
    assert not any(set(text) & set("\t\u202e") for text in written)
    assert max(map(len, written)) < 100
    renderer = figures[0].canvas.get_renderer()
    for label in figures[0].axes[0].get_yticklabels():
        # Names are beside their bars, and start in their own column.
        assert label.get_window_extent(renderer).x0 >= 0


def test_sizes_count_by_their_area(figures):
    draw()
    (points,) = figures[0].findobj(PathCollection)
    assert points.get_offsets().tolist() == [[60, 60], [60, 80]]
    small, large = points.get_sizes() - 9
    assert large == pytest.approx(3 * small)
    said = texts(figures[0])
    assert "sizes of all 4 images" in said and "2 sizes; median 60 × 80 px" in said
    assert figures[0].axes[0].get_xscale() == "linear"


def test_sizes_that_differ_much_are_drawn_logarithmically(figures):
    draw(sizes=ImageSizes(np.array([[10, 20], [4000, 3000]]), 3, 900))
    assert figures[0].axes[0].get_yscale() == figures[0].axes[0].get_xscale() == "log"
    said = texts(figures[0])
    assert "sizes of 5 images, drawn from 900" in said
    assert "2 sizes; median 2,005 × 1,510 px; 3 cannot be read" in said


def test_examples_are_shown_below_their_kind(figures):
    red, wide = Image.new("RGB", (50, 50), "red"), Image.new("RGB", (100, 1), "lime")
    pixels = np.asarray(draw(examples=[Examples("a", 1234, [None, red]), Examples("b", 1, [wide])]))
    is_red = (pixels == (255, 0, 0)).all(axis=2)
    is_green = (pixels == (0, 255, 0)).all(axis=2)
    columns, rows = np.flatnonzero(is_red.any(axis=0)), np.flatnonzero(is_red.any(axis=1))
    side = len(columns)
    assert 90 < side < 102 and abs(len(rows) - side) <= 1 and is_red.sum() == side * len(rows)
    # The second of the first column; the first place is empty.
    assert 100 < columns[0] < 140 and columns[-1] < 440
    assert 440 < np.flatnonzero(is_green.any(axis=0))[0] < 470
    assert {"a", "1,234", "b"} <= set(texts(figures[0]))


def test_without_labels_and_examples_there_are_sizes_alone(figures):
    assert draw().height < 500
    assert len(figures[0].axes) == 1


def test_the_same_gives_the_same_picture():
    labels = [LabelCounts("color", {"a": 10, "b": 40})]
    assert draw(labels).tobytes() == draw(labels).tobytes()
