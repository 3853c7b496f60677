import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurepipe import metrics
from featurepipe.reports import resampling
from featurepipe.reports.resampling import Rows


def repeated(weights):
    """Positions of the rows that a resample holds."""
    return np.repeat(np.arange(len(weights)), weights.astype(int))


@st.composite
def resampled_rows(draw):
    n_rows = draw(st.integers(1, 25))
    groups = draw(st.sampled_from([np.arange(n_rows), np.arange(n_rows) // 3]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    # Few decimals, so that some probabilities tie.
    scores = rng.random((n_rows, draw(st.integers(1, 6)))).round(draw(st.integers(1, 3)))
    return rng, scores, Rows(groups, n_resamples=5, seed=draw(st.integers(0, 99)))


@settings(deadline=None)
@given(resampled_rows())
def test_figures_of_classes_are_those_of_the_repeated_rows(answers):
    rng, scores, rows = answers
    classes = np.eye(scores.shape[1], dtype=bool)
    truth, predicted = rng.integers(len(classes), size=len(rows)), scores.argmax(axis=1)
    balanced = resampling.balanced_accuracies(classes[truth], classes[predicted], rows.weights)
    f1 = resampling.macro_f1s(classes[truth], classes[predicted], rows.weights)
    right, confidence = truth == predicted, scores.max(axis=1)
    shares = resampling.means(right, rows.weights)
    gaps = metrics.calibration_gaps(right, confidence)
    eces = resampling.eces(gaps, rows.weights)
    for number, weights in enumerate(rows.weights):
        held = repeated(weights)
        assert shares[number] == pytest.approx(right[held].mean())
        assert balanced[number] == pytest.approx(
            metrics.balanced_accuracy(truth[held], predicted[held])
        )
        assert f1[number] == pytest.approx(metrics.macro_f1(truth[held], predicted[held]))
        assert eces[number] == pytest.approx(metrics.ece(right[held], confidence[held]))


@settings(deadline=None)
@given(resampled_rows())
def test_figures_of_label_sets_are_those_of_the_repeated_rows(answers):
    rng, scores, rows = answers
    truth, predicted = rng.random(scores.shape) < 0.4, scores > 0.5
    macro = resampling.macro_f1s(truth, predicted, rows.weights)
    micro = resampling.micro_f1s(truth, predicted, rows.weights)
    precision = resampling.mean_average_precisions(truth, scores, rows.weights)
    for number, weights in enumerate(rows.weights):
        held = repeated(weights)
        expected = [
            metrics.macro_f1(truth[held], predicted[held]),
            metrics.micro_f1(truth[held], predicted[held]),
            metrics.mean_average_precision(truth[held], scores[held]),
        ]
        found = [macro[number], micro[number], precision[number]]
        assert found == pytest.approx(expected, nan_ok=True)


@settings(deadline=None)
@given(resampled_rows())
def test_areas_under_risk_and_coverage_are_those_of_the_repeated_rows(answers):
    rng, scores, rows = answers
    correct, certainty = rng.random(len(scores)) < 0.7, np.round(scores[:, 0], 1)
    areas = resampling.risk_coverage_areas(correct, certainty, rows.weights)
    expected = [
        metrics.risk_coverage_area(correct[held], certainty[held])
        for held in map(repeated, rows.weights)
    ]
    assert areas == pytest.approx(expected)


def test_rows_of_a_group_are_drawn_together():
    rows = Rows(np.array([7, 3, 7, 9]), n_resamples=50)
    assert (rows.grouped, rows.n_units) == (True, 3)
    np.testing.assert_array_equal(rows.weights[:, 0], rows.weights[:, 2])
    np.testing.assert_array_equal(rows.unit_weights.sum(axis=1), 3)
    assert rows.sums(np.array([1, 2, 3, 4])).tolist() == [2, 4, 4]


def test_each_row_is_drawn_once_on_average():
    rows = Rows(np.arange(20), n_resamples=2000)
    assert not rows.grouped
    np.testing.assert_array_equal(rows.weights.sum(axis=1), 20)
    np.testing.assert_allclose(rows.weights.mean(axis=0), 1, atol=0.1)
    # Binomial of 20 draws with chance 1/20.
    np.testing.assert_allclose(rows.weights.var(axis=0), 0.95, atol=0.15)


def test_the_same_rows_have_the_same_resamples():
    first, second = Rows(np.arange(9)), Rows(np.arange(9))
    np.testing.assert_array_equal(first.weights, second.weights)
    assert (Rows(np.arange(9), seed=1).weights != first.weights).any()
