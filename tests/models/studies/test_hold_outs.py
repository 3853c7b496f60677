from itertools import product

import numpy as np
import pytest

from featurepipe.manifest.labels import labels_of
from featurepipe.models.studies.hold_outs import (
    HoldOuts,
    UnseenFolds,
    is_right,
    lacking_combinations,
    unseen_right,
)


def make_labels(combinations, n_each=4):
    rows = [row for row in combinations for _ in range(n_each)]
    names = "abcdef"[: len(rows[0])]
    return {
        name: labels_of(name, [(f"{name}{code}",) for code in column])
        for name, column in zip(names, zip(*rows, strict=True), strict=True)
    }


def grid(n_attributes, without=lambda combination: False):
    return [each for each in product(range(3), repeat=n_attributes) if not without(each)]


def test_two_attributes_lack_pairs():
    weights = lacking_combinations(make_labels(grid(2, lambda c: c == (0, 0))), seed=0)
    assert weights == {"a": {"b": 1.0}, "b": {"a": 1.0}}


def test_an_attribute_alone_lacks_nothing():
    assert lacking_combinations(make_labels([(0,), (1,)]), seed=0) == {"a": {}}


def test_a_grid_without_some_full_combinations_lacks_those():
    labels = make_labels(grid(4, lambda c: sum(c) % 5 == 0))
    assert lacking_combinations(labels, seed=0) == {name: {None: 1.0} for name in "abcd"}


def test_a_full_grid_is_tried_without_full_combinations():
    assert lacking_combinations(make_labels(grid(3)), 0) == {name: {None: 1.0} for name in "abc"}


def test_a_pair_that_never_occurs_is_what_its_attributes_lack():
    weights = lacking_combinations(make_labels(grid(3, lambda c: c[:2] == (0, 2))), seed=0)
    assert weights == {"a": {"b": 1.0}, "b": {"a": 1.0}, "c": {None: 1.0}}


def test_what_is_lacking_is_weighed_by_how_often_one_would_meet_it():
    # Imagined images are (0, 2, anything) in 6/23 * 6/23, and (1, 1, 1) in 8/23 * 8/23 * 7/23.
    lacking = make_labels(grid(3, lambda c: c[:2] == (0, 2) or c == (1, 1, 1)), n_each=2)
    weights = lacking_combinations(lacking, seed=0)
    assert weights["c"] == {None: 1.0}
    assert weights["a"]["b"] == pytest.approx(0.649, abs=0.03)
    assert sum(weights["a"].values()) == pytest.approx(1)
    assert weights == lacking_combinations(lacking, seed=0)


def test_full_combinations_are_held_out_with_their_groups():
    labels = make_labels(grid(3, lambda c: c == (0, 1, 2)))
    codes = np.column_stack([truth.codes for truth in labels.values()])
    # Each group has two rows of different combinations.
    groups = np.random.default_rng(0).permutation(len(codes)) // 2
    first, *_ = HoldOuts.of(labels, groups, seed=0)
    (unseen,) = first.unseen
    assert (unseen.other, unseen.weight, len(unseen.folds)) == (None, 1.0, 5)
    n_asked = 0
    for asked, away in unseen.folds:
        kept = np.setdiff1d(np.arange(len(codes)), away)
        assert not set(map(tuple, codes[asked])) & set(map(tuple, codes[kept]))
        assert not set(groups[asked]) & set(groups[kept])
        # Pairs of the classes are still there: a ninth of all combinations has each.
        assert len(np.unique(codes[kept][:, :2], axis=0)) == 9
        n_asked += len(asked)
    assert n_asked == len(codes)


def test_unseen_rows_are_averaged_over_what_is_lacking():
    labels = make_labels([(0, 0), (1, 1)], n_each=2)
    folds = [(np.array([0, 1]), np.array([0, 1]))]
    kinds = (UnseenFolds("b", 0.25, folds), UnseenFolds(None, 0.75, folds))
    attribute = HoldOuts("a", labels["a"], folds, kinds)
    tested = {
        ("a", "b"): np.array([1.0, 0.0, np.nan, np.nan]),
        ("b", "a"): np.array([1.0, 0.5, np.nan, np.nan]),
        ("a", None): np.array([0.0, 1.0, 1.0, np.nan]),
    }
    # Where the pair was not asked, the other attribute is mistaken in a quarter of cases.
    expected = [0.25, 0.75, 0.25 * 0.25 + 0.75, 0.25]
    assert unseen_right(attribute, tested).tolist() == expected


def test_sets_of_labels_are_right_if_all_are():
    tags = labels_of("tags", [("x", "y"), ("x",)])
    scores = np.array([[0.9, 0.4], [0.6, 0.2]])
    assert is_right(scores, tags).tolist() == [False, True]
