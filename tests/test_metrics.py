import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from featurepipe import metrics

TRUTH = np.array([0, 0, 1, 2])
PROBABILITIES = np.array(
    [
        [0.7, 0.2, 0.1],
        [0.1, 0.6, 0.3],
        [0.2, 0.5, 0.3],
        [0.1, 0.1, 0.8],
    ]
)
PREDICTED = PROBABILITIES.argmax(axis=1)

SETS = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 0]], bool)
PREDICTED_SETS = np.array([[1, 0, 1], [0, 1, 1], [1, 0, 0], [0, 0, 0]], bool)


@st.composite
def exclusive_answers(draw):
    n_classes = draw(st.integers(2, 8))
    n_rows = draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    concentration = draw(st.sampled_from([0.05, 1.0, 20.0]))
    probabilities = rng.dirichlet(np.full(n_classes, concentration), size=n_rows)
    return rng.integers(n_classes, size=n_rows), probabilities, rng.permutation(n_rows)


@st.composite
def label_set_answers(draw):
    shape = draw(st.tuples(st.integers(1, 20), st.integers(1, 6)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return rng.random(shape) < rng.random(shape[1]), rng.random(shape), rng.permutation(shape[0])


def as_indicators(truth, predicted):
    """Truth and prediction of exclusive classes, a column for each class."""
    classes = np.eye(max(truth.max(initial=0), predicted.max(initial=0)) + 1, dtype=bool)
    return classes[truth], classes[predicted]


def exclusive_figures(truth, probabilities):
    predicted, n_classes = probabilities.argmax(axis=1), probabilities.shape[1]
    pair = as_indicators(truth, predicted)
    figures = {
        "balanced_accuracy": metrics.balanced_accuracy(*pair),
        "macro_f1": metrics.macro_f1(*pair),
        "ece": metrics.ece(predicted == truth, probabilities.max(axis=1)),
        "risk_coverage_area": metrics.risk_coverage_area(
            predicted == truth, probabilities.max(axis=1)
        ),
    }
    if len(truth):
        figures["log_loss"] = metrics.log_losses(truth, probabilities).mean()
        figures["brier"] = metrics.squared_distances(truth, probabilities).mean()
        if n_classes > 5:
            figures["top5_accuracy"] = metrics.top_k_hits(truth, probabilities).mean()
    return figures


def label_set_figures(truth, probabilities):
    predicted = probabilities > 0.5
    return {
        "micro_f1": metrics.micro_f1(truth, predicted),
        "macro_f1": metrics.macro_f1(truth, predicted),
        "map": metrics.mean_average_precision(truth, probabilities),
    }


def test_exclusive_figures_by_hand():
    pair = as_indicators(TRUTH, PREDICTED)
    assert metrics.balanced_accuracy(*pair) == pytest.approx((1 / 2 + 1 + 1) / 3)
    assert metrics.macro_f1(*pair) == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    np.testing.assert_allclose(
        metrics.log_losses(TRUTH, PROBABILITIES), -np.log([0.7, 0.1, 0.5, 0.8])
    )
    # Row by row: .09+.04+.01, .81+.36+.09, .04+.25+.09, .01+.01+.04.
    np.testing.assert_allclose(
        metrics.squared_distances(TRUTH, PROBABILITIES), [0.14, 1.26, 0.38, 0.06]
    )


def test_brier_of_two_classes_is_not_halved():
    assert metrics.squared_distances(np.array([0]), np.array([[0.0, 1.0]])).tolist() == [2]


def test_impossible_truth_costs_the_clip():
    impossible = metrics.log_losses(np.array([0]), np.array([[0.0, 1.0]]))
    assert impossible == pytest.approx([-np.log(np.finfo(float).eps)])


@pytest.mark.filterwarnings("error")
def test_rows_rounded_to_float32_are_no_mistake():
    rounded = np.array([[0.1, 0.9], [0.3, 0.7]], np.float32).astype(np.float64) * (1 + 1e-7)
    truth = np.array([1, 0])
    assert metrics.log_losses(truth, rounded) == pytest.approx(-np.log([0.9, 0.3]))
    assert metrics.squared_distances(truth, rounded) == pytest.approx([0.02, 0.98])


def test_balanced_accuracy_leaves_out_classes_without_rows():
    truth, predicted = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1])
    assert metrics.balanced_accuracy(*as_indicators(truth, predicted)) == 0.75


def test_top_k_hits_are_rows_whose_class_is_among_the_k_most_probable():
    probabilities = np.tile([0.3, 0.25, 0.2, 0.1, 0.1, 0.05], (3, 1))
    assert metrics.top_k_hits(np.array([0, 2, 5]), probabilities).tolist() == [1, 1, 0]
    assert metrics.top_k_hits(np.array([0, 2, 5]), probabilities, k=1).tolist() == [1, 0, 0]


def test_top_5_of_five_classes_says_nothing():
    assert np.isnan(metrics.top_k_hits(np.array([4]), np.full((1, 5), 0.2))).all()


def test_ece_by_hand():
    # Two rows in the bin (0.6, 0.667], one right: |0.65 - 0.5| of 2 of 3 rows;
    # one row at 1.0, right.
    correct, confidence = np.array([True, False, True]), np.array([0.64, 0.66, 1.0])
    assert metrics.ece(correct, confidence) == pytest.approx(0.15 * 2 / 3)


def test_ece_bins_are_closed_above():
    # The bin (0.6, 0.667] does not hold 0.6 = 9 / 15, which the bin below holds.
    correct, confidence = np.array([True, False]), np.array([0.6, 0.61])
    assert metrics.ece(correct, confidence) == pytest.approx((0.4 + 0.61) / 2)


def test_perfectly_calibrated_answers_have_hardly_any_ece():
    rng = np.random.default_rng(0)
    confidence = rng.random(100_000)
    assert metrics.ece(rng.random(100_000) < confidence, confidence) < 0.01


def test_label_set_figures_by_hand():
    assert metrics.micro_f1(SETS, PREDICTED_SETS) == pytest.approx(8 / (8 + 1 + 1))
    assert metrics.macro_f1(SETS, PREDICTED_SETS) == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)


def test_label_set_log_loss_sums_over_labels():
    losses = metrics.label_set_log_losses(np.array([[True, False]]), np.array([[0.8, 0.4]]))
    assert losses == pytest.approx([-np.log(0.8) - np.log(0.6)])


def test_macro_f1_leaves_out_labels_that_never_occur():
    truth, predicted = np.array([[1, 0], [1, 0]], bool), np.array([[1, 0], [0, 0]], bool)
    assert metrics.macro_f1(truth, predicted) == pytest.approx(2 / 3)


def test_f1_of_a_single_label_is_that_labels():
    truth, predicted = np.array([[1], [1], [0], [0]], bool), np.array([[1], [0], [0], [0]], bool)
    assert metrics.micro_f1(truth, predicted) == pytest.approx(2 / 3)
    assert metrics.macro_f1(truth, predicted) == pytest.approx(2 / 3)


def test_mean_average_precision_leaves_out_labels_without_rows():
    truth = np.array([[1, 0], [0, 0], [1, 0]], bool)
    probabilities = np.array([[0.9, 0.3], [0.8, 0.9], [0.1, 0.2]])
    assert metrics.mean_average_precision(truth, probabilities) == pytest.approx((1 + 2 / 3) / 2)


def test_figures_of_no_rows_are_nan():
    exclusive = exclusive_figures(np.empty(0, np.intp), np.empty((0, 7)))
    label_sets = label_set_figures(np.empty((0, 3), bool), np.empty((0, 3)))
    assert np.isnan([*exclusive.values(), *label_sets.values()]).all()


def test_labels_that_no_row_has_leave_nothing_to_score():
    nothing = np.zeros((4, 2), bool)
    assert np.isnan(metrics.mean_average_precision(nothing, np.zeros((4, 2))))
    assert np.isnan(metrics.micro_f1(nothing, nothing))
    assert np.isnan(metrics.macro_f1(nothing, nothing))


@given(exclusive_answers())
def test_exclusive_figures_agree_with_scikit_learn(answers):
    truth, probabilities, _ = answers
    predicted, labels = probabilities.argmax(axis=1), np.arange(probabilities.shape[1])
    figures = exclusive_figures(truth, probabilities)
    present = np.unique(truth)
    assert figures["balanced_accuracy"] == pytest.approx(
        reference.recall_score(truth, predicted, labels=present, average="macro")
    )
    assert figures["log_loss"] == pytest.approx(
        reference.log_loss(truth, probabilities, labels=labels)
    )
    assert figures["macro_f1"] == pytest.approx(
        reference.f1_score(truth, predicted, average="macro", zero_division=0)
    )
    assert figures["brier"] == pytest.approx(
        reference.brier_score_loss(truth, probabilities, labels=labels, scale_by_half=False)
    )
    if len(labels) > 5:
        assert figures["top5_accuracy"] == pytest.approx(
            reference.top_k_accuracy_score(truth, probabilities, k=5, labels=labels)
        )


@given(exclusive_answers())
def test_exclusive_figures_lie_in_their_ranges_whatever_the_order(answers):
    truth, probabilities, order = answers
    figures = exclusive_figures(truth, probabilities)
    shuffled = exclusive_figures(truth[order], probabilities[order])
    assert shuffled == pytest.approx(figures)
    greatest = {"log_loss": 36.05, "brier": 2}
    for name, figure in figures.items():
        assert 0 <= figure <= greatest.get(name, 1) + 1e-12, name


@given(label_set_answers())
def test_label_set_figures_lie_in_their_ranges_whatever_the_order(answers):
    truth, probabilities, order = answers
    figures = label_set_figures(truth, probabilities)
    shuffled = label_set_figures(truth[order], probabilities[order])
    assert shuffled == pytest.approx(figures, nan_ok=True)
    assert all(np.isnan(figure) or 0 <= figure <= 1 for figure in figures.values())


@given(label_set_answers())
def test_label_set_figures_agree_with_scikit_learn(answers):
    truth, probabilities, _ = answers
    # Ties between probabilities count together.
    probabilities = probabilities.round(1)
    predicted = probabilities > 0.5
    figures = label_set_figures(truth, probabilities)
    options = {"zero_division": np.nan}
    assert figures["micro_f1"] == pytest.approx(
        reference.f1_score(truth.ravel(), predicted.ravel(), **options), nan_ok=True
    )
    of_labels = [
        reference.f1_score(*pair, **options) for pair in zip(truth.T, predicted.T, strict=True)
    ]
    kept = [figure for figure in of_labels if not np.isnan(figure)]
    expected = np.mean(kept) if kept else np.nan
    assert figures["macro_f1"] == pytest.approx(expected, nan_ok=True)
    precisions = [
        reference.average_precision_score(*pair)
        for pair in zip(truth.T, probabilities.T, strict=True)
        if pair[0].any()
    ]
    expected = np.mean(precisions) if precisions else np.nan
    assert figures["map"] == pytest.approx(expected, nan_ok=True)


def test_risk_coverage_area_of_known_answers():
    correct = np.array([True, False, True, False])
    certainty = np.array([0.9, 0.8, 0.7, 0.6])
    # The most certain one alone, the two most certain ones, and so on.
    assert metrics.risk_coverage_area(correct, certainty) == pytest.approx(
        (0 + 1 / 2 + 1 / 3 + 1 / 2) / 4
    )


def test_risk_coverage_area_of_the_best_order_is_the_published_one():
    # Geifman, Uziel & El-Yaniv (2019), Bias-reduced uncertainty estimation, eq. 4.
    correct = np.arange(10_000) >= 700
    best = 0.07 + 0.93 * np.log(0.93)
    assert metrics.risk_coverage_area(correct, correct.astype(float)) == pytest.approx(
        best, abs=1e-4
    )


def test_risk_of_equal_certainty_is_the_error_rate_at_every_coverage():
    correct = np.arange(20) % 4 > 0
    assert metrics.risk_coverage_area(correct, np.ones(20)) == pytest.approx(0.25)


def test_risk_of_ties_is_the_mean_of_their_orders():
    rng = np.random.default_rng(0)
    correct, certainty = rng.random(12) < 0.6, rng.integers(0, 3, 12).astype(float)
    # Noise too small to change anything but the order within ties.
    areas = [
        metrics.risk_coverage_area(correct, certainty + 1e-3 * rng.random(12)) for _ in range(4000)
    ]
    assert metrics.risk_coverage_area(correct, certainty) == pytest.approx(
        np.mean(areas), abs=4 * np.std(areas) / np.sqrt(4000)
    )


def test_auroc_counts_pairs():
    is_unrelated = np.array([False, False, True, True])
    assert metrics.auroc(is_unrelated, np.array([1.0, 2.0, 2.0, 3.0])) == pytest.approx(3.5 / 4)


@pytest.mark.parametrize("sides", [[True, True], [False, False], []])
def test_auroc_needs_familiar_and_unrelated_images(sides):
    assert np.isnan(metrics.auroc(np.array(sides, bool), np.arange(len(sides), dtype=float)))


def test_no_answers_have_no_risk():
    assert np.isnan(metrics.risk_coverage_area(np.zeros(0, bool), np.zeros(0)))
