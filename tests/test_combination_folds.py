import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from featurepipe.manifest import Labels
from featurepipe.splits import combination_folds


def make_labels(name, codes):
    classes = tuple(f"{name}{k}" for k in range(codes.max() + 1))
    indicator = codes[:, None] == np.arange(len(classes))
    return Labels(name, classes, True, indicator, np.ones(len(codes), bool))


def label_combinations(n_each):
    codes = np.repeat([(0, 0), (0, 1), (1, 1), (1, 2), (2, 0), (2, 2)], n_each, axis=0)
    labels = [make_labels("a", codes[:, 0]), make_labels("b", codes[:, 1])]
    return labels, np.arange(len(codes))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=60),
    st.integers(0, 3),
)
def test_folds_of_combinations_keep_every_class(pairs, seed):
    codes = np.array(
        [np.unique(column, return_inverse=True)[1] for column in zip(*pairs, strict=True)]
    ).T
    labels = [make_labels("a", codes[:, 0]), make_labels("b", codes[:, 1])]
    groups = np.arange(len(codes))
    folds = combination_folds(labels, groups, 5, seed)
    assert len(folds) <= 5
    held_out = [row for rows, _ in folds for row in rows]
    assert len(held_out) == len(set(held_out))
    for rows, away in folds:
        assert rows.tolist() == away.tolist()
        left = np.setdiff1d(groups, rows)
        for column in codes.T:
            assert set(column[left]) == set(column)
        of_rows = {tuple(code) for code in codes[rows]}
        assert not of_rows & {tuple(code) for code in codes[left]}


def test_every_combination_that_can_be_is_held_out_once():
    labels, groups = label_combinations(n_each=4)
    folds = combination_folds(labels, groups, 5, 0)
    assert len(folds) == 5
    assert sorted(np.concatenate([rows for rows, _ in folds])) == list(range(24))


def test_groups_stay_together_when_combinations_are_held_out():
    labels, groups = label_combinations(n_each=4)
    groups[5] = groups[0]
    for rows, away in combination_folds(labels, groups, 5, 0):
        assert set(rows) <= set(away)
        assert (0 in away) == (5 in away)
