import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import f1_score, precision_score, recall_score

from featurepipe.errors import UsageError
from featurepipe.models.answers.thresholds import Aim, fit_thresholds, parse_aim

F1 = Aim("f1")


def fit_one(probabilities, truth, aim):
    thresholds, reached = fit_thresholds(
        np.array(probabilities, float)[:, None], np.array(truth, bool)[:, None], aim
    )
    return thresholds[0], reached[0]


def calibrated_rows(n=200_000, seed=0):
    """Probabilities that are even over 0 to 1, and as often true as they say."""
    rng = np.random.default_rng(seed)
    probabilities = rng.random(n)
    return probabilities, rng.random(n) < probabilities


@pytest.mark.parametrize(
    ("text", "aim"),
    [
        ("f1", Aim("f1")),
        ("precision=0.9", Aim("precision", 0.9)),
        ("recall=1", Aim("recall", 1.0)),
    ],
)
def test_aims_are_read(text, aim):
    assert parse_aim(text) == aim


@pytest.mark.parametrize(
    "text", ["", "F2", "f1=0.9", "precision", "precision=", "recall=0", "recall=1.1", "recall=nan"]
)
def test_other_aims_are_refused(text):
    with pytest.raises(UsageError, match=r"Expected f1, precision=SHARE or recall=SHARE"):
        parse_aim(text)


@pytest.mark.parametrize(
    ("aim", "expected"),
    [
        # F1 at threshold t is (1 - t^2) / (1.5 - t), greatest at (3 - sqrt(5)) / 2, which is half
        # of that F1: Lipton, Elkan & Narayanaswamy (2014), Optimal thresholding of classifiers.
        (F1, (3 - np.sqrt(5)) / 2),
        # Precision at t is (1 + t) / 2, recall 1 - t^2.
        (Aim("precision", 0.9), 0.8),
        (Aim("recall", 0.8), np.sqrt(0.2)),
    ],
)
def test_thresholds_of_calibrated_rows_are_those_of_theory(aim, expected):
    threshold, reached = fit_one(*calibrated_rows(), aim)
    assert reached
    assert threshold == pytest.approx(expected, abs=0.02)


score_lists = arrays(float, 12, elements=st.sampled_from([0.0, 0.1, 0.3, 0.3000001, 0.7, 1.0]))
truths = arrays(bool, 12, elements=st.booleans())


@settings(max_examples=50)
@given(score_lists, truths)
def test_no_threshold_has_a_better_f1(probabilities, truth):
    threshold, reached = fit_one(probabilities, truth, F1)
    own = f1_score(truth, probabilities > threshold, zero_division=0)
    others = [
        f1_score(truth, probabilities > other, zero_division=0)
        for other in [0.0, *np.unique(probabilities)]
    ]
    assert own == pytest.approx(max(others))
    assert reached == (own > 0)


@settings(max_examples=50)
@given(score_lists, truths, st.sampled_from([0.3, 0.6, 1.0]))
def test_a_wanted_precision_is_reached_with_the_highest_recall(probabilities, truth, wanted):
    threshold, reached = fit_one(probabilities, truth, Aim("precision", wanted))
    candidates = [
        (precision_score(truth, given_), recall_score(truth, given_))
        for other in [0.0, *np.unique(probabilities)]
        if (given_ := probabilities > other).any() and (given_ & truth).any()
    ]
    reaching = [recall for precision, recall in candidates if precision >= wanted]
    assert reached == bool(reaching)
    if not candidates:
        return
    given_ = probabilities > threshold
    if reached:
        assert precision_score(truth, given_) >= wanted
        assert recall_score(truth, given_) == pytest.approx(max(reaching))
    else:
        assert precision_score(truth, given_) == pytest.approx(max(p for p, _ in candidates))


@settings(max_examples=50)
@given(score_lists, truths, st.sampled_from([0.3, 0.6, 1.0]))
def test_a_wanted_recall_is_reached_with_the_highest_precision(probabilities, truth, wanted):
    threshold, reached = fit_one(probabilities, truth, Aim("recall", wanted))
    candidates = [
        (precision_score(truth, probabilities > other), recall_score(truth, probabilities > other))
        for other in [0.0, *np.unique(probabilities)]
        if truth.any() and (probabilities > other).any()
    ]
    reaching = [precision for precision, recall in candidates if recall >= wanted]
    assert reached == bool(reaching)
    if reached:
        given_ = probabilities > threshold
        assert recall_score(truth, given_) >= wanted
        assert precision_score(truth, given_) == pytest.approx(max(reaching))


def test_thresholds_lie_midway_between_neighbours():
    assert fit_one([0.2, 0.4, 0.8, 0.9], [0, 0, 1, 1], F1) == (pytest.approx(0.6), True)


def test_a_label_that_every_row_has_is_always_given():
    assert fit_one([0.4, 0.6, 0.8], [1, 1, 1], F1) == (pytest.approx(0.2), True)


def test_a_label_without_rows_keeps_one_half():
    assert fit_one([0.1, 0.7, 0.9], [0, 0, 0], F1) == (0.5, False)


def test_a_precision_out_of_reach_is_said():
    probabilities, truth = [0.9, 0.8, 0.7, 0.2], [0, 1, 1, 0]
    threshold, reached = fit_one(probabilities, truth, Aim("precision", 0.95))
    assert not reached
    assert threshold == pytest.approx(0.45)


def test_equal_probabilities_are_given_together():
    threshold, _ = fit_one([0.5, 0.5, 0.5, 0.1], [1, 0, 1, 0], Aim("recall", 0.5))
    assert threshold == pytest.approx(0.3)


def test_neighbours_without_a_number_between_are_told_apart():
    upper = np.nextafter(0.3, 1)
    for lower, higher in [(0.3, upper), (upper, np.nextafter(upper, 1))]:
        threshold, _ = fit_one([lower, higher], [0, 1], F1)
        assert lower <= threshold < higher


def test_each_label_has_a_threshold_of_its_own():
    probabilities = np.array([[0.2, 0.9], [0.4, 0.6], [0.6, 0.1]])
    truth = np.array([[0, 1], [1, 0], [1, 0]], bool)
    thresholds, reached = fit_thresholds(probabilities, truth, F1)
    np.testing.assert_allclose(thresholds, [0.3, 0.75])
    assert reached.all()
