"""Outliers are the rows whose fifth neighbour is beyond Tukey's fence."""

import numpy as np
from scipy.spatial.distance import cdist

from featurepipe.models.studies.outliers import outliers


def make_rows(n_rows=150):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_rows, 16))
    X[[7, 70]] += [[20.0], [9.0]]
    return X.astype(np.float32)


def test_rows_far_from_all_others_come_first():
    X = make_rows()
    rows, distances = outliers(X)
    assert rows[:2].tolist() == [7, 70]
    between = cdist(X, X)
    fifth = np.sort(between, axis=1)[:, 5]
    lower, median, upper = np.quantile(fifth, [0.25, 0.5, 0.75])
    expected = np.flatnonzero(fifth > upper + 1.5 * (upper - lower))
    assert sorted(rows) == expected.tolist()
    np.testing.assert_allclose(distances, fifth[rows] / median, rtol=1e-5)
    assert (np.diff(distances) <= 0).all()


def test_the_scale_of_the_features_plays_no_role():
    X = make_rows()
    for scale in (1e-3, 1e4):
        rows, distances = outliers((scale * X).astype(np.float32))
        np.testing.assert_array_equal(rows, outliers(X)[0])
        np.testing.assert_allclose(distances, outliers(X)[1], rtol=1e-5)


def test_few_rows_have_none():
    for n_rows in (0, 1, 5):
        assert len(outliers(make_rows()[:n_rows])[0]) == 0
