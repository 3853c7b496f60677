import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurepipe import metrics
from featurepipe.reports import resampling
from featurepipe.reports.resampling import Resamples


def repeated(weights):
    """Positions of the rows that a resample holds."""
    return np.repeat(np.arange(len(weights)), weights.astype(int))


def all_weights(resamples):
    """How often each resample holds each row."""
    return resamples.replicates(lambda weights: weights)


def test_resamples_that_are_drawn_in_blocks_are_the_same(monkeypatch):
    def drawn(groups):
        resamples = Resamples(groups, n_resamples=7, seed=3)
        return all_weights(resamples), [len(block) for block in resamples.unit_blocks()]

    for groups, n_units in ((np.arange(101), 101), (np.arange(101) // 2, 51)):
        whole, sizes = drawn(groups)
        assert sizes == [7]
        with monkeypatch.context() as few:
            few.setattr(resampling, "_MOST_KEPT", 0)
            few.setattr(resampling, "_MOST_AT_ONCE", 3 * n_units)
            in_blocks, sizes = drawn(groups)
        assert sizes == [3, 3, 1]
        np.testing.assert_array_equal(in_blocks, whole)


@st.composite
def resampled_rows(draw):
    n_rows = draw(st.integers(1, 25))
    groups = draw(st.sampled_from([np.arange(n_rows), np.arange(n_rows) // 3]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    # Few decimals, so that some probabilities tie.
    scores = rng.random((n_rows, draw(st.integers(1, 6)))).round(draw(st.integers(1, 3)))
    return rng, scores, Resamples(groups, n_resamples=5, seed=draw(st.integers(0, 99)))


@settings(deadline=None)
@given(resampled_rows())
def test_figures_of_classes_are_those_of_the_repeated_rows(answers):
    rng, scores, resamples = answers
    classes = np.eye(scores.shape[1], dtype=bool)
    truth, predicted = rng.integers(len(classes), size=len(scores)), scores.argmax(axis=1)
    pair = classes[truth], classes[predicted]
    balanced = metrics.balanced_accuracy(*pair, weights=all_weights(resamples))
    f1 = metrics.macro_f1(*pair, weights=all_weights(resamples))
    right, confidence = truth == predicted, scores.max(axis=1)
    shares = resamples.means(right)
    eces = metrics.ece(right, confidence, weights=all_weights(resamples))
    for number, weights in enumerate(all_weights(resamples)):
        held = repeated(weights)
        assert shares[number] == pytest.approx(right[held].mean())
        held_pair = pair[0][held], pair[1][held]
        assert balanced[number] == pytest.approx(metrics.balanced_accuracy(*held_pair))
        assert f1[number] == pytest.approx(metrics.macro_f1(*held_pair))
        assert eces[number] == pytest.approx(metrics.ece(right[held], confidence[held]))


@settings(deadline=None)
@given(resampled_rows())
def test_figures_of_label_sets_are_those_of_the_repeated_rows(answers):
    rng, scores, resamples = answers
    truth, predicted = rng.random(scores.shape) < 0.4, scores > 0.5
    macro = metrics.macro_f1(truth, predicted, weights=all_weights(resamples))
    micro = metrics.micro_f1(truth, predicted, weights=all_weights(resamples))
    precision = metrics.mean_average_precision(truth, scores, weights=all_weights(resamples))
    for number, weights in enumerate(all_weights(resamples)):
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
    rng, scores, resamples = answers
    correct, certainty = rng.random(len(scores)) < 0.7, np.round(scores[:, 0], 1)
    areas = metrics.risk_coverage_area(correct, certainty, weights=all_weights(resamples))
    expected = [
        metrics.risk_coverage_area(correct[held], certainty[held])
        for held in map(repeated, all_weights(resamples))
    ]
    assert areas == pytest.approx(expected)


def test_rows_of_a_group_are_drawn_together():
    resamples = Resamples(np.array([7, 3, 7, 9]), n_resamples=50)
    assert (resamples.grouped, resamples.n_units) == (True, 3)
    np.testing.assert_array_equal(all_weights(resamples)[:, 0], all_weights(resamples)[:, 2])
    assert [*map(len, resamples.unit_blocks())] == [50]
    assert (next(resamples.unit_blocks()).sum(axis=1) == 3).all()
    assert resamples.sums(np.array([1, 2, 3, 4])).tolist() == [2, 4, 4]


def test_each_row_is_drawn_once_on_average():
    resamples = Resamples(np.arange(20), n_resamples=2000)
    assert not resamples.grouped
    np.testing.assert_array_equal(all_weights(resamples).sum(axis=1), 20)
    np.testing.assert_allclose(all_weights(resamples).mean(axis=0), 1, atol=0.1)
    # Binomial of 20 draws with chance 1/20.
    np.testing.assert_allclose(all_weights(resamples).var(axis=0), 0.95, atol=0.15)


def test_the_same_rows_have_the_same_resamples():
    first, second = Resamples(np.arange(9)), Resamples(np.arange(9))
    np.testing.assert_array_equal(all_weights(first), all_weights(second))
    assert (all_weights(Resamples(np.arange(9), seed=1)) != all_weights(first)).any()
