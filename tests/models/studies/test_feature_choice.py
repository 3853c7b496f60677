import numpy as np
import pytest
from sklearn.linear_model import Ridge

from featurepipe.errors import UnknownNameError
from featurepipe.manifest import Labels
from featurepipe.models.studies.feature_choice import (
    choose_features,
    indistinguishable_classes,
    ordinary_block,
    sample_rows,
)
from featurepipe.splits import combination_folds, inner_folds

COMBINATIONS = [(0, 0), (0, 1), (1, 1), (1, 2), (2, 0), (2, 2)]


def make_labels(name, codes):
    codes = np.asarray(codes)
    classes = tuple(f"{name}{k}" for k in range(codes.max() + 1))
    indicator = codes[:, None] == np.arange(len(classes))
    return Labels(name, classes, True, indicator & (codes >= 0)[:, None], codes >= 0)


def make_world(first="color", second="category", n_each=30, seed=0, combinations=COMBINATIONS):
    """Two attributes in six combinations; a block that shows either one, and one that mixes them.

    The mixture has a direction for each combination, which is all that it takes to tell the
    classes in ordinary folds, and is of no use for a combination that was not trained on.
    """
    rng = np.random.default_rng(seed)
    codes = np.repeat(combinations, n_each, axis=0)
    n = len(codes)
    own = np.repeat(np.arange(len(combinations)), n_each)
    paint, shape, mixture = rng.normal(0, 0.35, (3, n, 20))
    paint[np.arange(n), codes[:, 0]] += 1
    shape[np.arange(n), codes[:, 1]] += 1
    mixture[np.arange(n), own] += 2
    blocks = {"paint": paint, "shape": shape, "mixture": mixture}
    labels = {
        first: make_labels(first, codes[:, 0]),
        second: make_labels(second, codes[:, 1]),
    }
    return blocks, labels, np.arange(n)


def chosen(trials):
    return {trial.attribute: trial.blocks for trial in trials if trial.chosen}


def test_each_attribute_is_given_what_holds_in_combinations_never_trained():
    blocks, labels, groups = make_world()
    trials = choose_features(blocks, labels, groups, objective="unseen")
    assert chosen(trials) == {"color": ("paint",), "category": ("shape",)}
    of = {(trial.attribute, trial.blocks): trial for trial in trials}
    assert len(of) == len(trials) == 2 * 7
    mixture, paint = of["color", ("mixture",)], of["color", ("paint",)]
    assert mixture.seen_accuracy > 0.99
    assert mixture.unseen_accuracy < 0.4
    assert paint.unseen_accuracy > 0.85
    assert paint.seen_accuracy > 0.85


def test_the_best_single_block_is_not_given_up_for_what_is_worse_in_ordinary_folds():
    blocks, labels, groups = make_world()
    trials = choose_features(blocks, labels, groups)
    assert ordinary_block(trials) == "mixture"
    assert chosen(trials) == {"color": ("paint", "mixture"), "category": ("shape", "mixture")}
    of = {(trial.attribute, trial.blocks): trial for trial in trials}
    both, mixture = of["color", ("paint", "mixture")], of["color", ("mixture",)]
    assert both.seen_accuracy >= mixture.seen_accuracy
    assert both.unseen_accuracy > mixture.unseen_accuracy + 0.2
    # Alone it would have the better mean of both.
    paint = of["color", ("paint",)]
    assert paint.seen_accuracy + paint.unseen_accuracy > both.seen_accuracy + both.unseen_accuracy


def test_the_best_single_block_stays_where_nothing_is_better():
    blocks, labels, groups = make_world()
    noise = np.random.default_rng(1).normal(size=(len(groups), 20))
    trials = choose_features({"paint": blocks["paint"], "noise": noise}, labels, groups)
    assert chosen(trials)["color"] == ("paint",)
    assert ordinary_block(trials) == "paint"


def test_the_objective_decides():
    blocks, labels, groups = make_world()
    seen = chosen(choose_features(blocks, labels, groups, objective="seen"))
    assert all("mixture" in of_attribute for of_attribute in seen.values())
    with pytest.raises(UnknownNameError, match="Unknown objective 'seem'"):
        choose_features(blocks, labels, groups, objective="seem")


@pytest.mark.parametrize(
    ("attributes", "names"),
    [
        (("category", "color"), {"paint": "grey", "shape": "hsv:shuffle", "mixture": "rgb"}),
        (("texture", "form"), {"paint": "rgb", "shape": "mixture", "mixture": "shape"}),
    ],
)
def test_names_of_attributes_and_features_mean_nothing(attributes, names):
    blocks, labels, groups = make_world(*attributes)
    renamed = {names[name]: X for name, X in blocks.items()}
    trials = choose_features(renamed, labels, groups, objective="unseen")
    first, second = attributes
    assert chosen(trials) == {first: (names["paint"],), second: (names["shape"],)}
    plain = choose_features(*make_world(), objective="unseen")
    assert [(t.seen_accuracy, t.unseen_accuracy) for t in trials] == [
        (t.seen_accuracy, t.unseen_accuracy) for t in plain
    ]


def test_the_closed_form_is_ridge_regression_fitted_again_without_the_rows():
    blocks, labels, groups = make_world(n_each=12)
    (trial,) = (
        trial
        for trial in choose_features(blocks, labels, groups)
        if (trial.attribute, trial.blocks) == ("color", ("paint", "shape"))
    )
    color = labels["color"]
    scaled = []
    for name in ("paint", "shape"):
        centred = blocks[name] - blocks[name].mean(axis=0)
        scaled.append(centred / np.sqrt(2 * np.square(centred).sum(axis=1).mean()))
    # A constant of 10 gives the intercept a variance of 100.
    X = np.hstack([*scaled, np.full((len(groups), 1), 10.0)])

    def accuracy(held_out_rows):
        right = []
        for held_out in held_out_rows:
            train = np.setdiff1d(np.arange(len(X)), held_out)
            ridge = Ridge(alpha=0.1, fit_intercept=False).fit(X[train], color.indicator[train])
            right += (ridge.predict(X[held_out]).argmax(axis=1) == color.codes[held_out]).tolist()
        return np.mean(right)

    ordinary = [validation for _, validation in inner_folds(color.codes, groups, 5, 0)]
    held_out = [rows for rows, _ in combination_folds(list(labels.values()), groups, 5, 0)]
    assert trial.seen_accuracy == pytest.approx(accuracy(ordinary), abs=1e-12)
    assert trial.unseen_accuracy == pytest.approx(accuracy(held_out), abs=1e-12)


def test_what_cannot_be_tested_is_not_trusted_to_features_that_show_another_attribute():
    # All that is color0 is category0, and the other way round.
    bound = [(0, 0), (1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]
    blocks, labels, groups = make_world(combinations=bound)
    clearer = blocks["paint"] + 0.3 * np.eye(20)[labels["color"].codes]
    loud = {"paint": blocks["paint"], "both": np.hstack([clearer, blocks["shape"]])}
    trials = choose_features(loud, labels, groups, objective="unseen")
    assert chosen(trials)["color"] == ("paint",)
    of = {trial.blocks: trial for trial in trials if trial.attribute == "color"}
    assert of[("both",)].seen_accuracy > of[("paint",)].seen_accuracy
    assert of[("both",)].unseen_accuracy < of[("paint",)].unseen_accuracy


def test_an_attribute_alone_is_chosen_for_by_ordinary_folds():
    blocks, labels, groups = make_world()
    trials = choose_features(blocks, {"color": labels["color"]}, groups)
    assert "mixture" in chosen(trials)["color"]
    assert all(np.isnan(trial.unseen_accuracy) for trial in trials)


def test_sets_of_labels_are_chosen_for_by_ordinary_folds():
    blocks, labels, groups = make_world()
    color = labels["color"]
    tags = Labels("tags", color.classes, False, color.indicator, color.labelled)
    trials = choose_features(blocks, {"tags": tags, "category": labels["category"]}, groups)
    assert "mixture" in chosen(trials)["tags"]
    assert all(np.isnan(trial.unseen_accuracy) for trial in trials)


def test_rows_without_a_label_are_not_counted():
    blocks, labels, groups = make_world()
    missing = np.zeros(len(groups), bool)
    missing[::6] = True
    codes = np.where(missing, -1, labels["color"].codes)
    colors = make_labels("color", codes)
    some = choose_features(blocks, labels | {"color": colors}, groups, objective="unseen")
    assert chosen(some)["color"] == ("paint",)
    of = {trial.blocks: trial for trial in some if trial.attribute == "color"}
    # Each share is of the 150 rows that have a label.
    assert (of[("paint",)].seen_accuracy * 150) % 1 == pytest.approx(0, abs=1e-9)


def test_equal_features_are_told_once():
    blocks, labels, groups = make_world()
    twice = {"paint": blocks["paint"], "again": blocks["paint"], "shape": blocks["shape"]}
    trials = choose_features(twice, labels, groups)
    assert chosen(trials)["color"] == ("paint",)


def test_classes_that_nothing_tells_apart_are_named():
    _, labels, _ = make_world(n_each=5)
    assert indistinguishable_classes(labels) == []
    black_jeans = labels["color"].codes == 0
    rows = ~(black_jeans & (labels["category"].codes == 1))
    some = {name: each.take(rows) for name, each in labels.items()}
    assert indistinguishable_classes(some) == [
        "All 5 training images of color 'color0' are of category 'category0': nothing in them "
        "tells the two apart.",
        "All 5 training images of category 'category1' are of color 'color1': nothing in them "
        "tells the two apart.",
    ]
    assert indistinguishable_classes({"color": labels["color"]}) == []


def test_rows_are_sampled_in_turns_from_each_combination():
    codes = np.repeat([0, 1, 2], [3000, 900, 7])
    labels = {"color": make_labels("color", codes)}
    rows = sample_rows(labels, seed=0)
    assert sorted(np.bincount(codes[rows])) == [7, 746, 747]
    assert rows.tolist() == sorted(set(rows))
    assert rows.tolist() == sample_rows(labels, seed=0).tolist()
    few = {"color": make_labels("color", codes[:1000])}
    assert sample_rows(few, seed=1).tolist() == list(range(1000))
