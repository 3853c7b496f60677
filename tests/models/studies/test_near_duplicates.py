"""Near-duplicates are found whatever the scale of the features, and chance neighbours are not."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

import featurepipe
from featurepipe.features.store import FeatureStore
from featurepipe.models.studies.near_duplicates import (
    NearDuplicates,
    find_near_duplicates,
    near_duplicates,
)
from pictures import draw_data_set


def make_rows(n_rows=200, n_features=64, seed=0):
    """Rows of four classes, float32."""
    rng = np.random.default_rng(seed)
    centres = 2 * rng.standard_normal((4, n_features))
    rows = centres[np.arange(n_rows) % 4] + rng.standard_normal((n_rows, n_features))
    return rows.astype(np.float32)


def with_copies(X, originals, noise, seed=1):
    rng = np.random.default_rng(seed)
    copies = X[originals] + noise * rng.standard_normal((len(originals), X.shape[1]))
    return np.concatenate([X, copies.astype(np.float32)])


def as_set(pairs):
    return set(map(tuple, pairs.tolist()))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_copies_are_found_and_nothing_else(scale):
    X = with_copies(make_rows(), [3, 50, 120], noise=0.3)
    pairs, distances = near_duplicates((scale * X).astype(np.float32))
    assert as_set(pairs) == {(3, 200), (50, 201), (120, 202)}
    assert (np.diff(distances) >= 0).all()
    between = cdist(X, X)
    median = np.median(between[np.triu_indices(len(X), k=1)])
    np.testing.assert_allclose(distances, between[tuple(pairs.T)] / median, rtol=0.05)


def test_rows_without_copies_have_no_pairs():
    pairs, distances = near_duplicates(make_rows())
    assert pairs.shape == (0, 2)
    assert distances.shape == (0,)


def test_the_rule_is_as_stated():
    rng = np.random.default_rng(2)
    X = rng.standard_normal((80, 3)).astype(np.float32)
    between = cdist(X, X)
    median = np.median(between[np.triu_indices(80, k=1)])
    np.fill_diagonal(between, np.inf)
    nearest = np.argsort(between, axis=1)[:, :5]
    fifth = np.sort(between, axis=1)[:, 4]
    # The median is known from a sample of pairs: what lies at its limit may be in or out.
    expected, open_pairs = set(), set()
    for i in range(80):
        for j in nearest[i]:
            pair = (min(i, j), max(i, j))
            if between[i, j] < max(0.65 * min(fifth[i], fifth[j]), 0.09 * median):
                expected.add(pair)
            elif between[i, j] < 0.11 * median:
                open_pairs.add(pair)
    found = as_set(near_duplicates(X)[0])
    assert len(expected) > 10
    assert expected <= found <= expected | open_pairs


def test_more_copies_than_neighbours_are_one_group():
    X = with_copies(make_rows(), [7] * 12, noise=0.02)
    pairs, _ = near_duplicates(X)
    ids = np.array([f"{row:03}" for row in range(len(X))], dtype=object)
    groups = NearDuplicates("s", ids[pairs], np.zeros(len(pairs))).groups()
    assert sorted(groups) == ["007", *(f"{row}" for row in range(200, 212))]
    assert set(groups.values()) == {0}


@pytest.mark.parametrize("n_rows", [0, 1, 2])
def test_too_few_rows_have_no_pairs(n_rows):
    assert near_duplicates(make_rows(n_rows))[0].shape == (0, 2)


def test_equal_rows_have_no_pairs():
    assert near_duplicates(np.ones((20, 4), dtype=np.float32))[0].shape == (0, 2)


def test_only_pairs_that_training_shares_with_others_are_leaks():
    ids = np.array([["a", "b"], ["a", "c"], ["b", "c"], ["c", "d"], ["a", "x"]], dtype=object)
    found = NearDuplicates("s", ids, np.arange(5.0))
    part_of = {"a": "train", "b": "test", "c": "unseen", "d": "train"}
    leaks = found.across(part_of)
    assert leaks.ids.tolist() == [["a", "b"], ["a", "c"], ["c", "d"]]
    assert leaks.distances.tolist() == [0, 1, 3]


class TestWhichStoreTells:
    @pytest.fixture
    def stores(self, tmp_path, colour_mean):
        folder = tmp_path / "dataset"
        draw_data_set(folder, n_each=3)
        twin = folder / "red_plain" / "same-bytes.png"
        twin.write_bytes((folder / "red_plain" / "00.png").read_bytes())
        featurepipe.extract(folder, workspace=tmp_path, backbone="hsv_histogram")
        featurepipe.extract(
            workspace=tmp_path, backbone="resnet50", weights="random", size_px=8,
            view=["grey", "rgb"],
        )  # fmt: skip
        return sorted((tmp_path / "features").glob("*.h5"))

    def ids(self, path):
        with FeatureStore.open(path) as store:
            return store.ids

    def test_a_network_that_is_shown_the_images_as_they_are(self, stores):
        ids = self.ids(stores[0])
        names = [path.stem for path in stores]
        assert names[1:] == ["resnet50-random0-8-avg-grey", "resnet50-random0-8-avg-rgb"]
        assert find_near_duplicates(stores, ids).store == "resnet50-random0-8-avg-rgb"
        assert find_near_duplicates(stores[:2], ids).store == "resnet50-random0-8-avg-grey"

    def test_none_tells_by_colours_alone(self, stores):
        assert find_near_duplicates(stores[:1], self.ids(stores[0])) is None

    def test_images_of_identical_bytes_stand_for_each_other(self, stores):
        found = find_near_duplicates(stores, self.ids(stores[0]))
        assert "red_plain/same-bytes.png" not in found.ids

    def test_only_the_images_that_are_asked_about_are_compared(self, stores):
        few = self.ids(stores[0])[:8]
        found = find_near_duplicates(stores, few)
        assert set(found.ids.ravel()) <= set(few)
