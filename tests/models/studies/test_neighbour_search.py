"""Exact neighbours: against a full sort in float64, whatever the chunks are."""

import numpy as np
import pytest

from featurepipe.models.answers.row_chunks import ArrayRows, RowChunks
from featurepipe.models.studies import neighbour_search
from featurepipe.models.studies.neighbour_search import median_distance, nearest_rows


def units(n, seed=0, n_features=24):
    X = np.random.default_rng(seed).normal(size=(n, n_features)).astype(np.float32)
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def in_chunks(X, size):
    return (X[start : start + size] for start in range(0, len(X), size))


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
@pytest.mark.parametrize("n", [1, 9, 300])
def test_neighbours_are_those_of_a_full_sort(size, n):
    X, queries = units(300), units(5, seed=1)
    exact = np.linalg.norm(queries.astype(float)[:, None] - X.astype(float), axis=2)
    rows, distances = nearest_rows(queries, in_chunks(X, size), n)
    np.testing.assert_array_equal(rows, np.argsort(exact, axis=1)[:, :n])
    np.testing.assert_allclose(distances, np.sort(exact, axis=1)[:, :n], rtol=1e-6)


def test_blocks_of_queries_change_nothing(monkeypatch):
    X, queries = units(50), units(20, seed=1)
    together = nearest_rows(queries, in_chunks(X, 20), 4)
    # Room for the distances of three queries to a chunk.
    monkeypatch.setattr(neighbour_search, "_BLOCK_BYTES", 3 * 20 * 8)
    apart = nearest_rows(queries, in_chunks(X, 20), 4)
    np.testing.assert_array_equal(apart[0], together[0])
    np.testing.assert_allclose(apart[1], together[1], rtol=1e-12)


@pytest.mark.parametrize("size", [3, 8, 100])
def test_copies_are_at_distance_zero_and_the_first_come_first(size):
    X = np.tile(units(1), (40, 1))
    X[::2] = units(20, seed=3)
    rows, distances = nearest_rows(X[1:2], in_chunks(X, size), 6)
    assert rows.tolist() == [[1, 3, 5, 7, 9, 11]]
    assert distances.tolist() == [[0.0] * 6]


def test_opposite_features_are_two_apart():
    rows, distances = nearest_rows(np.array([[1.0, 0]]), [np.array([[-1.0, 0], [0, 1]])], 5)
    assert rows.tolist() == [[1, 0]]
    np.testing.assert_allclose(distances, [[np.sqrt(2), 2]])


def test_fewer_rows_than_neighbours_and_none_at_all():
    assert nearest_rows(units(2), [units(1, seed=1)], 9)[0].tolist() == [[0], [0]]
    assert nearest_rows(units(2), [], 9)[0].shape == (2, 0)
    assert nearest_rows(units(0), [units(3)], 2)[0].shape[0] == 0


def test_chunks_are_asked_for_one_by_one():
    asked = []

    def chunks():
        for number in range(4):
            asked.append(number)
            yield units(10, seed=number)

    def one_at_a_time():
        for number, chunk in enumerate(chunks()):
            assert asked == list(range(number + 1))
            yield chunk

    nearest_rows(units(1), one_at_a_time(), 3)
    assert asked == [0, 1, 2, 3]


def test_the_median_distance_is_that_of_different_rows():
    # Corners of a simplex: all pairs are equally far.
    np.testing.assert_allclose(median_distance(RowChunks.in_memory(np.eye(5))), np.sqrt(2))
    assert median_distance(RowChunks.in_memory(units(30))) == median_distance(
        RowChunks(ArrayRows(units(30)), 7)
    )
