"""What the truth is, how far off an answer is, and which images judge: without Keras."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from featurepipe.errors import FitError
from featurepipe.manifest.labels import labels_of
from featurepipe.models.networks.losses import (
    cross_entropies,
    image_accuracies,
    total_losses,
)
from featurepipe.models.networks.network_settings import NetworkSettings
from featurepipe.models.networks.outputs import balanced_weights, make_outputs, make_targets
from featurepipe.models.networks.validation_split import draw_validation

PER_ATTRIBUTE = NetworkSettings.of("fashionnet")
MULTI_LABEL = NetworkSettings.of("smallervggnet")

COLOUR = [("red",), ("blue",), ("red",), None, ("green",), ("blue",)]
KIND = [("shoe",), ("shirt",), None, ("shirt",), ("shirt",), ("shirt",)]
TAGS = [("new", "sale"), (), ("sale",), None, ("new",), ()]


def labels(**cells):
    return {name: labels_of(name, each) for name, each in cells.items()}


def exclusive(codes):
    return labels_of("breed", [(f"{code:02}",) for code in codes])


ALL = labels(colour=COLOUR, kind=KIND, tags=TAGS)


def output_of(cells, settings=PER_ATTRIBUTE):
    return make_outputs(labels(it=cells), settings)[0]


def test_scores_lie_side_by_side_and_sets_are_no_softmax():
    outputs = make_outputs(ALL, PER_ATTRIBUTE)
    assert [each.attribute for each in outputs] == ["colour", "kind", "tags"]
    assert [each.columns for each in outputs] == [slice(0, 3), slice(3, 5), slice(5, 7)]
    assert [each.n_classes for each in outputs] == [3, 2, 2]
    assert [each.softmax for each in outputs] == [True, True, False]
    assert [each.exclusive for each in outputs] == [True, True, False]
    assert [each.weight for each in outputs] == [1, 1, 1]


def test_in_the_multi_label_task_an_output_weighs_as_many_labels_as_it_has():
    outputs = make_outputs(ALL, replace(MULTI_LABEL, loss_weights={"tags": 3.0}))
    assert [each.weight for each in outputs] == pytest.approx([3 / 7, 2 / 7, 6 / 7])
    assert not any(each.softmax for each in outputs)
    assert [each.exclusive for each in outputs] == [True, True, False]


@pytest.mark.parametrize(
    ("names", "layers"),
    [
        (["kind", "colour-2"], ["kind", "colour-2"]),
        (["a/b", "a b"], ["a_b", "a_b_2"]),
        (["same", "pixels", "partners"], ["same_1", "pixels_2", "partners_3"]),
        (["", "颜色", "_x"], ["output", "output_2", "x"]),
        (["x_partner", "x"], ["x_partner_1", "x"]),
    ],
)
def test_layers_are_called_as_the_attribute_as_far_as_keras_allows(names, layers):
    outputs = make_outputs({name: labels_of(name, COLOUR) for name in names}, PER_ATTRIBUTE)
    assert [each.attribute for each in outputs] == names
    assert [each.layer for each in outputs] == layers


ODD_NAMES = ["a", "a_", "a/", "a_scores", "a_partner", "a_2", "a__3", "a_scores_2", "_a", "", "/"]
ODD_NAMES += ["output", "same", "same_2", "pixels"]


@pytest.mark.parametrize("first", ODD_NAMES)
def test_no_two_layers_have_one_name(first):
    each = labels_of("it", COLOUR)
    for second, third in permutations([name for name in ODD_NAMES if name != first], 2):
        outputs = make_outputs(dict.fromkeys((first, second, third), each), PER_ATTRIBUTE)
        names = [output.layer for output in outputs]
        names += [f"{output.layer}{end}" for output in outputs for end in ("_scores", "_partner")]
        assert len({*names, "same", "pixels", "partners"}) == 12


def test_truth_is_one_where_an_image_has_a_class_and_missing_labels_weigh_nothing():
    targets = make_targets(ALL, PER_ATTRIBUTE)
    np.testing.assert_array_equal(
        targets.truth["colour"],
        [[0, 0, 1], [1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0], [1, 0, 0]],
    )
    np.testing.assert_array_equal(targets.weights["colour"], [1, 1, 1, 0, 1, 1])
    np.testing.assert_array_equal(targets.weights["kind"], [1, 1, 0, 1, 1, 1])
    np.testing.assert_array_equal(targets.weights["tags"], [1, 1, 1, 0, 1, 1])
    assert targets.truth["tags"].dtype == targets.weights["tags"].dtype == np.float32


def test_in_the_multi_label_task_only_images_with_all_labels_count():
    targets = make_targets(ALL, MULTI_LABEL)
    for name in ALL:
        np.testing.assert_array_equal(targets.weights[name], [1, 1, 0, 0, 1, 1])


def test_images_of_one_kind_have_the_same_labels_of_all_attributes():
    identities = make_targets(ALL, PER_ATTRIBUTE).identities
    np.testing.assert_array_equal(identities < 0, [False, False, True, True, False, False])
    assert identities[1] == identities[5]
    assert len({identities[0], identities[1], identities[4]}) == 3
    taken = make_targets(ALL, PER_ATTRIBUTE).take(np.array([5, 0]))
    np.testing.assert_array_equal(taken.identities, identities[[5, 0]])
    np.testing.assert_array_equal(taken.truth["colour"], [[1, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(taken.weights["kind"], [1, 1])


def test_balanced_weights_are_those_of_scikit_learn():
    codes = np.random.default_rng(0).choice(4, 60, p=[0.1, 0.2, 0.3, 0.4])
    counts = np.arange(60) % 7 > 0
    # One class more than occurs where it counts.
    indicator = codes[:, None] == np.arange(5)
    present = np.unique(codes[counts])
    expected = compute_class_weight("balanced", classes=present, y=codes[counts])
    weights = balanced_weights(indicator, counts)
    np.testing.assert_allclose(weights[counts], expected[codes[counts]], rtol=1e-6)
    assert weights[counts].mean() == pytest.approx(1)


def test_a_set_weighs_as_its_labels_in_the_mean():
    indicator = np.array([[1, 0], [1, 1], [1, 0], [0, 0]], bool)
    # Of 4 images and 2 labels, one is three times there and one once: 2/3 and 2.
    np.testing.assert_allclose(
        balanced_weights(indicator, np.ones(4, bool)), [2 / 3, 4 / 3, 2 / 3, 1], rtol=1e-6
    )


def test_balanced_classes_and_missing_labels_go_together():
    targets = make_targets(ALL, replace(PER_ATTRIBUTE, class_weight="balanced"))
    np.testing.assert_allclose(
        targets.weights["colour"], [5 / 6, 5 / 6, 5 / 6, 0, 5 / 3, 5 / 6], rtol=1e-6
    )


def test_the_loss_of_a_softmax_is_minus_the_log_probability_of_the_class():
    output = output_of(COLOUR)
    scores = np.log(np.array([[0.2, 0.3, 0.5], [0.7, 0.2, 0.1]])).astype(np.float32)
    truth = np.array([[0, 0, 1], [0, 1, 0]], np.float32)
    expected = [-np.log(0.5), -np.log(0.2)]
    np.testing.assert_allclose(cross_entropies(output, scores, truth), expected, rtol=1e-6)
    # Scores may be shifted, and those of several epochs stacked.
    stacked = np.stack([scores, scores + 1000, scores[::-1]])
    losses = cross_entropies(output, stacked, truth)
    assert losses.shape == (3, 2)
    np.testing.assert_allclose(losses[1], expected, atol=1e-3)
    np.testing.assert_allclose(losses[2], [-np.log(0.1), -np.log(0.3)], rtol=1e-6)


def test_the_loss_of_a_set_is_the_mean_over_its_labels():
    output = output_of(TAGS)
    scores = np.array([[0.0, np.log(3)], [np.log(4), -200.0]], np.float32)
    truth = np.array([[1, 0], [1, 1]], np.float32)
    expected = [(np.log(2) + np.log(4)) / 2, (np.log(1.25) + 200) / 2]
    np.testing.assert_allclose(cross_entropies(output, scores, truth), expected, rtol=1e-6)


def test_hits_are_classes_and_shares_of_labels():
    scores = np.array([[0.1, 3.0], [2.0, 1.0], [-1.0, 1.0]], np.float32)
    truth = np.array([[0, 1], [0, 1], [1, 0]], np.float32)
    np.testing.assert_array_equal(image_accuracies(output_of(KIND), scores, truth), [1, 0, 0])
    sets = np.array([[1, 1], [0, 1], [1, 0]], np.float32)
    np.testing.assert_array_equal(image_accuracies(output_of(TAGS), scores, sets), [1, 0.5, 0])
    # The most probable class is the answer also where each label is a sigmoid of its own.
    assert image_accuracies(output_of(KIND, MULTI_LABEL), scores[1:2], sets[:1])[0] == 1


def test_the_whole_loss_is_a_mean_over_the_labels_that_there_are():
    outputs = make_outputs(ALL, replace(PER_ATTRIBUTE, loss_weights={"kind": 3.0, "tags": 0.5}))
    targets = make_targets(ALL, PER_ATTRIBUTE)
    scores = np.random.default_rng(1).normal(size=(2, 6, 7)).astype(np.float32)
    losses = total_losses(outputs, scores, targets)
    for epoch in (0, 1):
        expected = 0.0
        for output in outputs[:2]:
            counted = ALL[output.attribute].labelled
            own = np.exp(scores[epoch][counted][:, output.columns].astype(float))
            codes = ALL[output.attribute].codes[counted]
            expected += output.weight * log_loss(
                codes, own / own.sum(axis=1, keepdims=True), labels=range(output.n_classes)
            )
        known = ALL["tags"].labelled
        expected += 0.5 * np.mean(
            [
                log_loss(ALL["tags"].indicator[known, k], expit(scores[epoch, known, 5 + k]))
                for k in (0, 1)
            ]
        )
        assert losses[epoch] == pytest.approx(expected, rel=1e-5)


def test_class_weights_do_not_judge_and_missing_labels_may_be_anything():
    outputs = make_outputs(ALL, PER_ATTRIBUTE)
    scores = np.random.default_rng(2).normal(size=(6, 7)).astype(np.float32)
    loss = total_losses(outputs, scores, make_targets(ALL, PER_ATTRIBUTE))
    assert loss.shape == ()
    balanced = make_targets(ALL, replace(PER_ATTRIBUTE, class_weight="balanced"))
    assert total_losses(outputs, scores, balanced) == loss
    scores[3, [0, 1, 2, 5, 6]] = np.nan
    assert total_losses(outputs, scores, balanced) == loss
    # Of rows without a single label there is no loss.
    two = total_losses(outputs[:1], scores, balanced, np.array([3]))
    assert two == 0


def test_the_loss_of_some_rows_is_as_if_there_were_no_others():
    outputs, targets = make_outputs(ALL, PER_ATTRIBUTE), make_targets(ALL, PER_ATTRIBUTE)
    scores = np.random.default_rng(3).normal(size=(3, 6, 7)).astype(np.float32)
    rows = np.array([0, 3, 4])
    np.testing.assert_allclose(
        total_losses(outputs, scores, targets, rows),
        total_losses(outputs, scores[:, rows], targets.take(rows)),
    )


def test_multi_label_losses_add_up_to_the_mean_over_all_labels():
    outputs, targets = make_outputs(ALL, MULTI_LABEL), make_targets(ALL, MULTI_LABEL)
    scores = np.random.default_rng(4).normal(size=(6, 7)).astype(np.float32)
    whole = np.array([0, 1, 4, 5])
    truth = np.hstack([each.indicator for each in ALL.values()])[whole]
    expected = log_loss(truth.ravel(), expit(scores[whole].astype(float)).ravel())
    assert total_losses(outputs, scores, targets) == pytest.approx(expected)


def drawn(each, groups, seed=0):
    labels = {each.attribute: each}
    return draw_validation(labels, make_targets(labels, PER_ATTRIBUTE), groups, seed)


@settings(max_examples=25)
@given(st.integers(0, 2**31), st.integers(2, 6), st.integers(1, 3))
def test_the_validation_part_parts_no_group_and_has_every_class(seed, n_classes, group_size):
    rng = np.random.default_rng(seed)
    # At least 10 groups of each class, which are most often of one class.
    of_group = np.concatenate(
        [np.repeat(np.arange(n_classes), 10), rng.integers(n_classes, size=40)]
    )
    codes = np.repeat(of_group, group_size)
    codes[::11] = rng.integers(n_classes, size=len(codes[::11]))
    groups = np.repeat(rng.permutation(len(of_group)), group_size)
    validation = drawn(exclusive(codes), groups, seed)
    np.testing.assert_array_equal(validation, np.unique(validation))
    training = np.setdiff1d(np.arange(len(codes)), validation)
    assert not set(groups[validation]) & set(groups[training])
    assert set(codes[validation]) == set(codes[training]) == set(codes)
    assert len(codes) / 12 < len(validation) < len(codes) / 5


def test_an_eighth_validates_and_the_seed_says_which():
    codes, groups = np.arange(240) % 3, np.arange(240)
    validation = drawn(exclusive(codes), groups)
    assert len(validation) == 30
    np.testing.assert_array_equal(np.bincount(codes[validation]), [10, 10, 10])
    np.testing.assert_array_equal(validation, drawn(exclusive(codes), groups))
    assert set(validation) != set(drawn(exclusive(codes), groups, seed=1))


def test_rare_classes_make_it_larger_and_up_to_one_half():
    codes = np.repeat(np.arange(10), 2)
    validation = drawn(exclusive(codes), np.arange(20))
    assert len(validation) == 10
    np.testing.assert_array_equal(np.bincount(codes[validation]), np.ones(10))


def test_every_class_of_every_attribute_is_in_both_parts():
    rng = np.random.default_rng(0)
    n = 160
    first = [(f"{code}",) for code in rng.integers(5, size=n)]
    second = [
        None if k % 9 == 0 else (f"{code}",) for k, code in enumerate(rng.integers(4, size=n))
    ]
    sets = [tuple(np.flatnonzero(row).astype(str)) for row in rng.random((n, 3)) < 0.2]
    truth = labels(first=first, second=second, sets=sets)
    validation = draw_validation(truth, make_targets(truth, PER_ATTRIBUTE), np.arange(n), 0)
    assert 10 <= len(validation) <= 40
    for each in truth.values():
        here = each.indicator[validation].sum(axis=0)
        assert (here > 0).all()
        assert (here < each.indicator.sum(axis=0)).all()


def test_a_class_that_cannot_be_in_both_parts_is_named():
    codes = np.repeat([0, 1, 2], 12)
    groups = np.where(codes == 2, 99, np.arange(36))
    with pytest.raises(FitError) as caught:
        drawn(exclusive(codes), groups)
    assert str(caught.value) == (
        "The 36 training images cannot be divided for validation with every class on both sides: "
        "breed=02 would be missing on one side. Each class needs images from at least 2 groups. "
        "Add images, or leave these classes out."
    )


def test_classes_that_no_training_image_has_need_not_be_there():
    each = exclusive(np.arange(40) % 4).take(np.arange(40) % 4 < 3)
    assert each.indicator.shape == (30, 4)
    validation = drawn(each, np.arange(30))
    assert set(each.codes[validation]) == {0, 1, 2}


@pytest.mark.parametrize("seed", range(30))
def test_rare_classes_of_two_groups_are_on_both_sides(seed):
    codes = {"first": np.repeat(np.arange(6), [20, 20, 2, 2, 2, 1 + 1]), "second": None}
    rng = np.random.default_rng(seed)
    n = len(codes["first"])
    codes["second"] = rng.permutation(np.repeat(np.arange(4), [n - 7, 3, 2, 2]))
    truth = labels(first=codes_of(codes["first"]), second=codes_of(codes["second"]))
    validation = draw_validation(truth, make_targets(truth, PER_ATTRIBUTE), np.arange(n), seed)
    for each in truth.values():
        here = each.indicator[validation].sum(axis=0)
        assert ((here > 0) & (here < each.indicator.sum(axis=0))).all()


def codes_of(codes):
    return [(f"{code:02}",) for code in codes]
