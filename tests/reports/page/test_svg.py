import pytest

from featurepipe.reports.page.svg import Scale, drawing, text


def test_a_scale_maps_its_ends_and_its_middle():
    assert [Scale(2, 4, 10, 110)(value) for value in (2, 3, 4)] == [10, 60, 110]
    assert [Scale(1, 100, 200, 0, is_log=True)(value) for value in (1, 10, 100)] == [200, 100, 0]


@pytest.mark.parametrize(
    ("scale", "ticks"),
    [
        (Scale(0, 1, 0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (Scale(0.91, 0.99, 0, 1), [0.92, 0.94, 0.96, 0.98]),
        (Scale(3, 40, 0, 1, is_log=True), [5, 10, 20]),
    ],
)
def test_ticks_are_round_values_within_the_ends(scale, ticks):
    assert scale.ticks() == pytest.approx(ticks)


def test_names_are_escaped():
    drawn = str(drawing(10, 20, 'a "quoted" <b>', [text(1, 2, "<script>")]))
    assert "<script>" not in drawn
    assert "&lt;script&gt;" in drawn
    assert 'aria-label="a &#34;quoted&#34; &lt;b&gt;"' in drawn
