import re

import numpy as np
import pytest
from sklearn.decomposition import PCA

from featurepipe.reports.page.feature_map import MAX_POINTS, MAX_ROWS, feature_map, sampled
from featurepipe.reports.page.map_chart import map_chart
from featurepipe.reports.page.rendering import _environment


def features(n=400, k=3, d=20):
    rng = np.random.default_rng(0)
    codes = rng.integers(k, size=n)
    scales = np.linspace(3, 0.5, d)
    X = (rng.normal(size=(n, d)) + 4 * rng.normal(size=(k, d))[codes]) * scales
    return X.astype(np.float32), codes


def mapped(X, codes, names=None):
    names = names or [f"class {k}" for k in range(codes.max() + 1)]
    chosen = sampled(len(codes), MAX_ROWS)
    return feature_map("net:rgb", X[chosen], "kind", codes[chosen], names, len(codes))


def test_positions_are_the_principal_components_of_scikit_learn():
    X, codes = features()
    found = mapped(X, codes)
    full = PCA(2, svd_solver="full").fit(X)
    assert found.positions == pytest.approx(full.transform(X), rel=1e-3, abs=1e-3)
    assert found.explained == pytest.approx(full.explained_variance_ratio_, rel=1e-4)
    assert found.codes.tolist() == codes.tolist()


def test_the_same_features_give_the_same_map():
    X, codes = features(MAX_ROWS + 500)
    found, again = mapped(X, codes), mapped(X, codes)
    assert np.array_equal(found.positions, again.positions)
    assert str(map_chart(found).drawing) == str(map_chart(again).drawing)


def test_of_many_images_a_sample_is_shown():
    X, codes = features(MAX_ROWS + 500, d=5)
    found = mapped(X, codes)
    assert (len(found.positions), found.n_images) == (MAX_ROWS, MAX_ROWS + 500)
    assert len(found.shown()) == MAX_POINTS
    drawn = str(map_chart(found).drawing)
    points = sum(
        path.count("M") for path in re.findall(r'd="([^"]*)" style="fill:var\(--series', drawn)
    )
    # One more for each class in the legend.
    assert points == MAX_POINTS + 3


def test_sampled_rows_keep_their_class():
    codes = np.arange(MAX_ROWS + 2000) % 3
    X = np.eye(3, dtype=np.float32)[codes] * 5
    found = mapped(X, codes)
    centroids = found.centroids()
    for code, at in centroids.items():
        assert found.positions[found.codes == code] == pytest.approx(
            np.tile(at, ((found.codes == code).sum(), 1)), abs=1e-3
        )


def test_centres_are_the_means_of_the_classes():
    X, codes = features()
    found = mapped(X, codes)
    rows = map_chart(found).values.rows
    assert [row[1].value for row in rows] == np.bincount(codes).tolist()
    for code, row in enumerate(rows):
        mean = found.positions[codes == code].mean(axis=0)
        assert [cell.value for cell in row[2:]] == pytest.approx(mean.tolist())


@pytest.mark.parametrize(
    "X", [np.zeros((0, 4)), np.ones((2, 4)), np.ones((9, 4)), np.arange(9.0)[:, None]]
)
def test_without_two_dimensions_there_is_no_map(X):
    assert mapped(X, np.zeros(len(X), int), ["a"]) is None


def test_images_without_a_label_are_shown_as_such():
    X, codes = features()
    codes[:50] = -1
    chart = map_chart(mapped(X, codes))
    assert "no label" in str(chart.drawing)
    assert sum(row[1].value for row in chart.values.rows) == 350


def test_names_of_many_classes_do_not_overlap():
    X, codes = features(5000, 120)
    drawn = str(map_chart(mapped(X, codes)).drawing)
    places = [
        (float(x), float(y), 1.0 * len(name) * 0.58 * 11)
        for x, y, name in re.findall(
            r'<text x="([\d.]+)" y="([\d.]+)"[^>]*>(class \d+)</text>', drawn
        )
    ]
    assert len(places) > 20
    for at, (x, y, wide) in enumerate(places):
        for other_x, other_y, other_wide in places[:at]:
            apart = x >= other_x + other_wide or other_x >= x + wide or abs(y - other_y) >= 11
            assert apart
    assert len(drawn) < 150_000


def test_hostile_names_are_text():
    X, codes = features()
    chart = map_chart(mapped(X, codes, ["<script>", "🦊" * 300, '"']))
    template = '{% from "map.html.j2" import feature_map %}{{ feature_map(chart) }}'
    html = _environment().from_string(template).render(chart=chart)
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
