"""Outliers are the rows whose fifth neighbour is beyond Tukey's fence."""

import numpy as np
from scipy.spatial.distance import cdist

from featurepipe.models.answers.row_chunks import ArrayRows, RowChunks
from featurepipe.models.studies import outliers as module
from featurepipe.models.studies.outliers import outliers


def make_rows(n_rows=150):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_rows, 16))
    X[[7, 70]] += [[20.0], [9.0]]
    return X.astype(np.float32)


def found_in(X, chunk_rows=1000):
    return outliers(RowChunks(ArrayRows(X), chunk_rows))


def test_rows_far_from_all_others_come_first():
    X = make_rows()
    rows, distances = found_in(X)
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
        rows, distances = found_in((scale * X).astype(np.float32))
        np.testing.assert_array_equal(rows, found_in(X)[0])
        np.testing.assert_allclose(distances, found_in(X)[1], rtol=1e-5)


def test_few_rows_have_none():
    for n_rows in (0, 1, 5):
        assert len(found_in(make_rows()[:n_rows])[0]) == 0


def test_chunks_play_no_role():
    X = make_rows()
    np.testing.assert_array_equal(found_in(X, 40)[0], found_in(X)[0])
    np.testing.assert_allclose(found_in(X, 40)[1], found_in(X)[1], rtol=1e-6)


def test_of_many_rows_some_tell_the_quartiles(monkeypatch):
    monkeypatch.setattr(module, "FEW_ROWS", 100)
    monkeypatch.setattr(module, "_N_SAMPLED", 60)
    X = make_rows()
    sampled = np.random.default_rng(0).choice(len(X), 60, replace=False)
    fifth = np.sort(cdist(X, X), axis=1)[:, 5]
    lower, median, upper = np.quantile(fifth[sampled], [0.25, 0.5, 0.75])
    rows, distances = found_in(X, 70)
    assert sorted(rows) == np.flatnonzero(fifth > upper + 1.5 * (upper - lower)).tolist()
    assert rows[:2].tolist() == [7, 70]
    np.testing.assert_allclose(distances, fifth[rows] / median, rtol=1e-5)
