from dataclasses import replace

import numpy as np
import pytest

from featurepipe.manifest import Labels
from featurepipe.predictions import Predictions
from featurepipe.reports.figures import FIGURES, accuracies, evaluate, reliability
from featurepipe.shares import exact_interval

MULTI_LABEL_FIGURES = ["subset_accuracy", "label_accuracy", "micro_f1", "map"]


def labels_of(attribute, classes, indicator, *, exclusive=True, labelled=None):
    indicator = np.array(indicator, bool)
    labelled = indicator.any(axis=1) if labelled is None else np.array(labelled)
    return Labels(attribute, tuple(classes), exclusive, indicator, labelled)


def make_predictions(
    task="per-attribute",
    parts=("test", "test", "test", "test", "unseen"),
    groups=(0, 1, 2, 3, 4),
):
    """Colour right on rows 0, 1 and 4 of 5 and unknown on 3; category right on 0, 2 and 3."""
    return Predictions.of(
        ids=np.array([f"{row}.jpg" for row in range(5)]),
        parts=np.array(parts),
        groups=np.array(groups),
        task=task,
        labels={
            "color": labels_of("color", ["blue", "red"], [[1, 0], [0, 1], [0, 1], [0, 0], [1, 0]]),
            "category": labels_of(
                "category",
                ["dress", "jeans", "shirt"],
                [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0, 1]],
            ),
        },
        scores={
            "color": np.array([[0.8, 0.2], [0.4, 0.6], [0.9, 0.1], [0.5, 0.5], [0.7, 0.3]]),
            "category": np.array(
                [[0.5, 0.3, 0.2], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8], [1, 0, 0], [0.9, 0, 0.1]]
            ),
        },
    )


def with_thresholds(predictions, thresholds):
    return replace(predictions, thresholds={**predictions.thresholds, **thresholds})


def figures_of(predictions):
    return {row["attribute"]: row for row in evaluate(predictions)}


def test_every_row_has_every_figure():
    for row in evaluate(make_predictions()):
        assert list(row) == ["attribute", "n_test", "interval", *FIGURES]


def test_attributes_are_followed_by_all():
    assert [row["attribute"] for row in evaluate(make_predictions())] == [
        "color",
        "category",
        "all",
    ]


def test_each_attribute_is_measured_on_its_labelled_test_rows():
    color = figures_of(make_predictions())["color"]
    assert color["n_test"] == 3
    assert color["accuracy"] == pytest.approx(2 / 3)
    assert (color["accuracy_low"], color["accuracy_high"]) == exact_interval(2, 3)
    assert color["balanced_accuracy"] == pytest.approx((1 + 1 / 2) / 2)
    assert color["macro_f1"] == pytest.approx(2 / 3)
    assert color["log_loss"] == pytest.approx(-np.log([0.8, 0.6, 0.1]).mean())
    assert color["brier"] == pytest.approx((0.08 + 0.32 + 1.62) / 3)
    assert color["ece"] == pytest.approx((0.2 + 0.4 + 0.9) / 3)
    assert np.isnan(color["top5_accuracy"])
    assert np.isnan([color[name] for name in MULTI_LABEL_FIGURES]).all()


def test_unseen_combinations_stand_apart():
    color = figures_of(make_predictions())["color"]
    assert (color["n_unseen"], color["unseen_accuracy"]) == (1, 1)
    interval = (color["unseen_accuracy_low"], color["unseen_accuracy_high"])
    assert interval == exact_interval(1, 1)


def test_the_harmonic_mean_is_that_of_seen_and_unseen_accuracy():
    rows = figures_of(make_predictions(parts=["test", "test", "test", "unseen", "unseen"]))
    measured = False
    for row in rows.values():
        for end in ("", "_low", "_high"):
            seen, unseen = row[f"accuracy{end}"], row[f"unseen_accuracy{end}"]
            expected = 2 * seen * unseen / (seen + unseen) if seen and unseen else 0
            assert row[f"unseen_harmonic_mean{end}"] == pytest.approx(expected)
            measured |= 0 < expected < 1
    assert measured


def test_unseen_combinations_have_figures_of_their_own():
    rows = figures_of(make_predictions(parts=["test", "test", "test", "unseen", "unseen"]))
    color, category, together = rows["color"], rows["category"], rows["all"]
    assert color["unseen_log_loss"] == pytest.approx(-np.log(0.7))
    # Blue alone among the labelled ones: no mean over classes.
    assert np.isnan([color["unseen_balanced_accuracy"], color["unseen_macro_f1"]]).all()
    # Dress is found, shirt is taken for dress.
    assert category["unseen_balanced_accuracy"] == pytest.approx(1 / 2)
    assert category["unseen_macro_f1"] == pytest.approx((2 / 3 + 0) / 2)
    assert together["unseen_log_loss"] == pytest.approx(-np.log(0.7 * 0.1))


def many_predictions(groups):
    """200 images, of which about 80 % are answered rightly, 90 % surely."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 6, 200)
    answer = np.where(rng.random(200) < 0.8, truth, rng.integers(0, 6, 200))
    scores = np.full((200, 6), 0.02)
    scores[np.arange(200), answer] = 0.9
    labels = labels_of("kind", "abcdef", np.eye(6)[truth])
    return Predictions.of(
        np.arange(200).astype(str),
        np.full(200, "test"),
        groups,
        "multi-label",
        {"kind": labels},
        {"kind": scores},
    )


@pytest.mark.parametrize("groups", [np.arange(200), np.arange(200) // 2])
def test_every_figure_lies_in_its_interval(groups):
    rows = figures_of(many_predictions(groups))
    figures = {
        "kind": ["accuracy", "balanced_accuracy", "macro_f1", "top5_accuracy", "log_loss", "brier"],
        "all": ["accuracy", "macro_f1", "subset_accuracy", "label_accuracy", "micro_f1", "map"],
    }
    for attribute, names in figures.items():
        for name in [*names, "ece"]:
            row = rows[attribute]
            assert row[f"{name}_low"] < row[name] < row[f"{name}_high"], name
            assert row["interval"] == ("groups" if groups.max() < 199 else "images")


def test_copies_that_belong_together_widen_no_interval():
    single = many_predictions(np.arange(200))
    twice = single.take(np.repeat(np.arange(200), 2))
    for name in ["accuracy", "macro_f1", "log_loss", "map"]:
        once, copied = figures_of(single)["all"], figures_of(twice)["all"]
        assert copied[name] == pytest.approx(once[name])
        for end in ["low", "high"]:
            assert copied[f"{name}_{end}"] == pytest.approx(once[f"{name}_{end}"], abs=6e-3)


def test_without_unseen_combinations_their_accuracy_is_nan():
    for row in evaluate(make_predictions(parts=["test"] * 5)):
        assert row["n_unseen"] == 0
        assert np.isnan([row["unseen_accuracy"], row["unseen_accuracy_low"]]).all()


def test_all_is_right_where_every_attribute_is():
    together = figures_of(make_predictions())["all"]
    assert (together["n_test"], together["accuracy"]) == (3, pytest.approx(1 / 3))
    assert (together["n_unseen"], together["unseen_accuracy"]) == (1, 0)
    joint = np.array([0.8 * 0.5, 0.6 * 0.3, 0.1 * 0.8])
    assert together["log_loss"] == pytest.approx(-np.log(joint).mean())
    # Confidences .8*.5 (right), .6*.6 and .9*.8 (wrong): bins apart.
    assert together["ece"] == pytest.approx((abs(0.4 - 1 + 0.36) + 0.72) / 3)
    blank = ["balanced_accuracy", "macro_f1", "top5_accuracy", "brier", *MULTI_LABEL_FIGURES]
    assert np.isnan([together[name] for name in blank]).all()


def test_all_of_a_single_attribute_is_that_attribute():
    both = make_predictions()
    single = Predictions.of(
        both.ids,
        both.parts,
        both.groups,
        both.task,
        {"color": both.labels["color"]},
        {"color": both.scores["color"]},
    )
    rows = figures_of(single)
    for name in ["n_test", "accuracy", "accuracy_low", "log_loss", "ece", "unseen_accuracy"]:
        assert rows["all"][name] == pytest.approx(rows["color"][name])


def test_all_of_a_multi_label_run_uses_the_thresholds():
    together = figures_of(make_predictions("multi-label"))["all"]
    # Rows 0 to 2, five labels each: the category of row 0 is at 0.5, not above;
    # rows 1 and 2 have one wrong answer that puts two labels wrong each.
    assert together["subset_accuracy"] == 0
    assert together["label_accuracy"] == pytest.approx((15 - 1 - 2 - 2) / 15)
    # Blue 2/3, red 2/3, dress 0, jeans 0, shirt 1.
    assert together["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 0 + 0 + 1) / 5)
    assert together["micro_f1"] == pytest.approx(2 * 3 / (2 * 3 + 2 + 3))
    assert together["map"] == pytest.approx((1 / 2 + (1 + 2 / 3) / 2 + 1 / 2 + 1 / 2 + 1) / 5)
    assert together["accuracy"] == pytest.approx(1 / 3)


def test_multi_label_figures_belong_to_all_and_not_to_exclusive_attributes():
    rows = figures_of(make_predictions("multi-label"))
    assert np.isnan([rows["color"][name] for name in MULTI_LABEL_FIGURES]).all()


def test_sets_of_labels_have_figures_of_their_own():
    tags = labels_of(
        "tags",
        ["new", "old"],
        [[1, 0], [1, 1], [0, 0]],
        exclusive=False,
        labelled=[True, True, True],
    )
    scores = np.array([[0.9, 0.2], [0.7, 0.4], [0.1, 0.3]])
    predictions = Predictions.of(
        np.array(["1", "2", "3"]),
        np.array(["test"] * 3),
        np.arange(3),
        "per-attribute",
        {"tags": tags},
        {"tags": scores},
    )
    row = figures_of(predictions)["tags"]
    assert row["n_test"] == 3
    assert row["accuracy"] == row["subset_accuracy"] == pytest.approx(2 / 3)
    assert row["label_accuracy"] == pytest.approx(5 / 6)
    assert row["micro_f1"] == pytest.approx(4 / 5)
    assert row["macro_f1"] == pytest.approx(1 / 2)
    assert row["map"] == 1
    joint = np.array([0.9 * 0.8, 0.7 * 0.4, 0.9 * 0.7])
    assert row["log_loss"] == pytest.approx(-np.log(joint).mean())
    assert np.isnan([row[name] for name in ["balanced_accuracy", "top5_accuracy", "brier"]]).all()


def test_sets_of_labels_are_given_by_their_thresholds():
    tags = labels_of("tags", ["new", "old"], [[1, 0], [1, 1], [0, 1]], exclusive=False)
    predictions = Predictions.of(
        np.array(["1", "2", "3"]),
        np.array(["test"] * 3),
        np.arange(3),
        "per-attribute",
        {"tags": tags},
        {"tags": np.array([[0.9, 0.2], [0.7, 0.4], [0.6, 0.3]])},
        {"tags": np.array([0.65, 0.25])},
    )
    row = figures_of(predictions)["tags"]
    figures = ["accuracy", "subset_accuracy", "label_accuracy", "micro_f1", "macro_f1"]
    assert [row[name] for name in figures] == [1, 1, 1, 1, 1]
    confidence = np.array([0.9 * 0.8, 0.7 * 0.4, 0.4 * 0.3])
    assert row["ece"] == pytest.approx((1 - confidence).mean())


def test_the_joint_answer_of_a_multi_label_run_uses_thresholds_of_its_own():
    thresholds = {"category": np.array([0.45, 0.5, 0.5])}
    together = figures_of(with_thresholds(make_predictions("multi-label"), thresholds))["all"]
    # The category of row 0 is at 0.5 and given now.
    assert together["subset_accuracy"] == pytest.approx(1 / 3)
    assert together["label_accuracy"] == pytest.approx((15 - 2 - 2) / 15)


def test_no_test_rows_leave_every_figure_empty():
    for row in evaluate(make_predictions(parts=["train"] * 5)):
        assert (row["n_test"], row["n_unseen"]) == (0, 0)
        assert np.isnan([row[name] for name in FIGURES if not name.startswith("n_")]).all()


def test_accuracies_are_over_all_rows_given():
    assert accuracies(make_predictions()) == {
        "color": 3 / 4,
        "category": 3 / 5,
        "all": 1 / 4,
    }


def answered(parts, p_values, right):
    n = len(parts)
    truth = np.zeros((n, 2), bool)
    truth[:, 0] = True
    scores = np.where(np.asarray(right)[:, None], [[0.8, 0.2]], [[0.3, 0.7]])
    return Predictions.of(
        np.arange(n).astype(str),
        np.array(parts),
        np.arange(n),
        "per-attribute",
        {"color": labels_of("color", ["black", "blue"], truth)},
        {"color": scores},
        p_values={"color": np.array(p_values)},
        image_p_values={"color": np.array(p_values)},
    )


def test_images_unlike_those_trained_on_have_no_answer():
    parts = ["test"] * 4 + ["unseen"] * 2
    p_values = [0.9, 0.051, 0.05, 0.2, 0.04, 0.5]
    row = figures_of(answered(parts, p_values, [True, True, False, False, True, True]))["color"]
    assert (row["answered"], row["unseen_answered"]) == (0.75, 0.5)
    assert (row["answered_low"], row["answered_high"]) == exact_interval(3, 4)
    # Most familiar first: right, wrong, right, wrong.
    assert row["risk_coverage_area"] == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)


def test_an_image_is_answered_if_it_is_for_every_attribute():
    parts, right = ["test"] * 4, [True] * 4
    shades = answered(parts, [0.9, 0.2, 0.4, 0.3], right)
    both = replace(
        shades,
        labels={**shades.labels, "shade": shades.labels["color"]},
        scores={**shades.scores, "shade": shades.scores["color"]},
        thresholds={**shades.thresholds, "shade": shades.thresholds["color"]},
        p_values={**shades.p_values, "shade": np.full(4, 0.01)},
        image_p_values={
            "color": np.array([0.9, 0.04, 0.06, 0.8]),
            "shade": np.array([0.8, 0.3, 0.05, 0.7]),
        },
    )
    rows = figures_of(both)
    assert [rows[name]["answered"] for name in ("color", "shade", "all")] == [0.75, 0.75, 0.5]


def test_reliability_compares_confidence_with_accuracy():
    found = reliability(answered(["train"] * 4, [1.0] * 4, [True, True, True, False]))["color"]
    assert found["bins"] == [
        {"n_images": 1, "confidence": 0.7, "accuracy": 0.0},
        {"n_images": 3, "confidence": pytest.approx(0.8), "accuracy": 1.0},
    ]
    assert found["ece"] == pytest.approx((3 * 0.2 + 0.7) / 4)
    assert found["log_loss"] == pytest.approx(-(3 * np.log(0.8) + np.log(0.3)) / 4)
