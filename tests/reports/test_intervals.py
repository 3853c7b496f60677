import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from featurepipe import metrics
from featurepipe.reports.intervals import (
    accuracy_interval,
    ece_interval,
    loss_interval,
    repeats_interval,
)
from featurepipe.reports.resampling import Resamples
from featurepipe.shares import exact_interval, share_interval


def replicates_of(resamples, figure, *arrays):
    return resamples.replicates(lambda weights: figure(*arrays, weights=weights))


def test_few_groups_widen_an_interval():
    # Student's t of 26 degrees of freedom: 100 effective rows count as 100 (1.960 / 2.056)^2.
    widened = share_interval(0.9, 0.9 * 0.1 / 100, 27, 27)
    assert widened == pytest.approx(exact_interval(0.9 * 90.9, 90.9), abs=1e-3)
    assert share_interval(1.0, 0.0, 27, 27) == pytest.approx((0.860, 1.0), abs=1e-3)


def test_published_example():
    # Newcombe (1998), Two-sided confidence intervals for the single proportion,
    # table I, method 5: 81 of 263, 15 of 148, 0 of 20 and 1 of 29.
    assert exact_interval(81, 263) == pytest.approx((0.2527, 0.3676), abs=5e-5)
    assert exact_interval(15, 148) == pytest.approx((0.0578, 0.1617), abs=5e-5)
    assert exact_interval(0, 20) == pytest.approx((0, 0.1684), abs=5e-5)
    assert exact_interval(1, 29) == pytest.approx((0.0009, 0.1776), abs=5e-5)


def test_all_right_is_not_certainty():
    low, high = exact_interval(20, 20)
    assert high == 1
    assert low == pytest.approx(0.025 ** (1 / 20))


def test_nothing_asked_says_nothing():
    assert np.isnan(exact_interval(0, 0)).all()


@given(st.integers(1, 5000), st.data())
def test_intervals_hold_the_share_and_stay_in_range(n, data):
    n_right = data.draw(st.integers(0, n))
    low, high = exact_interval(n_right, n)
    assert 0 <= low <= n_right / n <= high <= 1


@pytest.mark.parametrize("accuracy", [0.5, 0.97, 0.995, 0.999])
def test_one_error_does_not_exclude_a_very_good_head(accuracy):
    counts = np.random.default_rng(0).binomial(30, accuracy, 2000)
    assert coverage([exact_interval(count, 30) for count in counts], accuracy) >= 0.95


N_SIMULATED = 1000


def coverage(intervals, value):
    intervals = np.array(intervals)
    return np.mean((intervals[:, 0] <= value) & (value <= intervals[:, 1]))


class Head:
    """A head of three classes whose logits are too large by a factor, or not."""

    def __init__(self, sharpness, overconfidence=1.0):
        self.sharpness, self.overconfidence = sharpness, overconfidence
        truth, p = self.answer(np.random.default_rng(0), 1_000_000)
        self.accuracy, self.log_loss, self.brier = (
            (truth == p.argmax(axis=1)).mean(),
            metrics.log_losses(truth, p).mean(),
            metrics.squared_distances(truth, p).mean(),
        )

    def answer(self, rng, n):
        logits = self.sharpness * rng.normal(size=(n, 3))
        truth = (softmax(logits, axis=1).cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
        return truth, softmax(self.overconfidence * logits, axis=1)


HEADS = {
    "weak": (Head(2), 60),
    "good": (Head(10), 100),
    "overconfident": (Head(5, overconfidence=2), 100),
    "97 %": (Head(20), 30),
    "99.5 %": (Head(118), 432),
    "overconfident 99.5 %": (Head(118, overconfidence=3), 432),
}


def loss_intervals(truth, p, resamples):
    """Intervals of log-loss and of Brier's figure."""
    least, right = p.argmin(axis=1), p.argmax(axis=1) == truth
    return [
        loss_interval(loss(truth, p), loss(least, p), right, resamples)
        for loss in (metrics.log_losses, metrics.squared_distances)
    ]


@pytest.mark.parametrize("name", HEADS)
def test_intervals_of_losses_hold_the_true_value_and_are_possible(name):
    head, n = HEADS[name]
    rng, resamples = np.random.default_rng(1), Resamples(np.arange(n))
    found = [loss_intervals(*head.answer(rng, n), resamples) for _ in range(N_SIMULATED)]
    log_losses, briers = np.array(found).transpose(1, 0, 2)
    assert coverage(log_losses, head.log_loss) >= 0.93
    assert coverage(briers, head.brier) >= 0.93
    assert np.min(found) >= 0
    assert log_losses.max() <= 36.05
    assert briers.max() <= 2


def test_the_accuracies_are_those_that_the_names_say():
    assert HEADS["97 %"][0].accuracy == pytest.approx(0.97, abs=0.002)
    assert HEADS["99.5 %"][0].accuracy == pytest.approx(0.995, abs=0.0005)


@pytest.mark.parametrize("share_wrong", [0, 0.1, 0.5, 1])
@given(seed=st.integers(0, 2**32), n=st.integers(2, 40))
def test_intervals_of_losses_hold_the_figure_and_stay_in_range(share_wrong, seed, n):
    rng = np.random.default_rng(seed)
    p = softmax(rng.exponential(100) * rng.normal(size=(n, 4)), axis=1)
    truth = np.where(rng.random(n) < share_wrong, rng.integers(4, size=n), p.argmax(axis=1))
    resamples = Resamples(rng.integers(n, size=n))
    figures = metrics.log_losses(truth, p).mean(), metrics.squared_distances(truth, p).mean()
    for (low, high), figure, most in zip(
        loss_intervals(truth, p, resamples), figures, (36.05, 2 + 1e-12), strict=True
    ):
        assert np.isnan(low) == np.isnan(high) == (resamples.n_units < 2)
        assert resamples.n_units < 2 or 0 <= low <= figure <= high <= most


def test_no_error_seen_is_no_certainty():
    # Half an error that costs 10, among 31; Student's t of 29 degrees of freedom is 2.04523.
    nothing, right = np.zeros(30), np.ones(30, bool)
    low, high = loss_interval(nothing, np.full(30, 10.0), right, Resamples(np.arange(30)))
    assert (low, high) == (0, pytest.approx(10 / 2 / 31 * np.exp(2.04523)))


def test_errors_seen_say_what_errors_cost():
    # 4 errors of 25 that cost 1 each, and the usual one more, which costs 6: half of 2.
    right = np.arange(25) >= 4
    losses = (~right).astype(float)
    low, high = loss_interval(losses, np.full(25, 6.0), right, Resamples(np.arange(25)))
    quantile = 2.063899  # Student's t of 24 degrees of freedom.
    # One of the 4 counts half: a sum of 3.5, of squares 3.25.
    assert low == pytest.approx(0.14 * np.exp(-quantile * _relative_error(3.5, 3.25, 25)))
    assert high == pytest.approx(5 / 26 * np.exp(quantile * _relative_error(5, 5, 26)))


def _relative_error(total, squares, n):
    """Standard error of a mean, divided by it."""
    return np.sqrt((squares - total**2 / n) / (n - 1) / n) / (total / n)


@pytest.mark.parametrize("name", HEADS)
def test_intervals_of_accuracy_hold_the_true_value_in_95_percent(name):
    head, n = HEADS[name]
    rng, resamples = np.random.default_rng(1), Resamples(np.arange(n))
    answers = [head.answer(rng, n) for _ in range(N_SIMULATED)]
    intervals = [accuracy_interval(truth == p.argmax(axis=1), resamples) for truth, p in answers]
    assert coverage(intervals, head.accuracy) >= 0.95


def grouped_answers(rng, n_groups, accuracy, likeness):
    """Right or wrong, in groups of 1 to 4 images whose chances are alike."""
    groups = np.repeat(np.arange(n_groups), rng.integers(1, 5, n_groups))
    spread = (1 - likeness) / likeness
    chance = rng.beta(accuracy * spread, (1 - accuracy) * spread, n_groups)
    return groups, rng.random(len(groups)) < chance[groups]


def test_intervals_of_grouped_images_hold_the_true_value():
    rng = np.random.default_rng(0)
    by_groups, by_images, of_losses = [], [], []
    for _ in range(N_SIMULATED):
        groups, right = grouped_answers(rng, 100, accuracy=0.9, likeness=0.5)
        resamples = Resamples(groups, n_resamples=400)
        by_groups.append(accuracy_interval(right, resamples))
        by_images.append(exact_interval(right.sum(), len(right)))
        losses, highest = np.where(right, 0.1, 2.0), np.full(len(right), 2.0)
        of_losses.append(loss_interval(losses, highest, right, resamples))
    assert 0.94 <= coverage(by_groups, 0.9) <= 0.99
    assert 0.94 <= coverage(of_losses, 0.1 * 0.9 + 2.0 * 0.1) <= 0.99
    # What groups are for: images taken for independent promise too much.
    assert coverage(by_images, 0.9) < 0.9


@pytest.mark.parametrize(("n_classes", "n", "recall"), [(3, 100, 0.97), (12, 200, 0.85)])
def test_intervals_of_figures_of_classes_hold_the_true_value(n_classes, n, recall):
    rng, resamples = np.random.default_rng(0), Resamples(np.arange(n), n_resamples=200)
    shares = np.linspace(1, 3, n_classes) / np.linspace(1, 3, n_classes).sum()
    confusion = np.full((n_classes, n_classes), (1 - recall) / (n_classes - 1))
    np.fill_diagonal(confusion, recall)
    joint = shares[:, None] * confusion
    true_f1 = np.mean(2 * joint.diagonal() / (joint.sum(axis=0) + joint.sum(axis=1)))
    classes = np.eye(n_classes, dtype=bool)
    balanced, macro = [], []
    for _ in range(600):
        truth = rng.choice(n_classes, n, p=shares)
        predicted = (confusion[truth].cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
        pair = classes[truth], classes[predicted]
        n_certain = n_classes**2 / (1 / np.maximum(np.bincount(truth), 1)).sum()
        for figure, intervals in ((metrics.balanced_accuracy, balanced), (metrics.macro_f1, macro)):
            replicates = replicates_of(resamples, figure, *pair)
            intervals.append(share_interval(figure(*pair), np.nanvar(replicates), n, n_certain))
    assert coverage(balanced, recall) >= 0.94
    assert coverage(macro, true_f1) >= 0.94


def test_intervals_of_plain_shares_are_exact_ones():
    rng = np.random.default_rng(0)
    right = rng.random(300) < 0.9
    exact = exact_interval(right.sum(), 300)
    assert accuracy_interval(right, Resamples(np.arange(300))) == exact
    resamples = Resamples(np.arange(300), n_resamples=20_000)
    assert share_interval(right.mean(), resamples.means(right).var(), 300, 300) == pytest.approx(
        exact, abs=2e-3
    )


def test_groups_of_copies_count_once():
    rng = np.random.default_rng(0)
    right = rng.random(200) < 0.9
    copies = Resamples(np.repeat(np.arange(200), 3), n_resamples=20_000)
    assert accuracy_interval(np.repeat(right, 3), copies) == pytest.approx(
        exact_interval(right.sum(), 200), abs=3e-3
    )
    losses = np.where(right, 0.1, rng.exponential(size=200))
    rows = losses, np.full(200, 9.0), right
    assert loss_interval(*(np.repeat(values, 3) for values in rows), copies) == pytest.approx(
        loss_interval(*rows, Resamples(np.arange(200)))
    )


def test_all_right_in_every_group_is_no_certainty():
    resamples = Resamples(np.repeat(np.arange(20), 2))
    low, high = accuracy_interval(np.ones(40, bool), resamples)
    # Student's t of 19 degrees of freedom is 2.093024, the normal quantile 1.959964.
    n = 20 * (1.959964 / 2.093024) ** 2
    assert (low, high) == (pytest.approx(0.025 ** (1 / n)), 1)


def test_a_single_group_has_no_interval():
    rows = np.array([0.3, 0.4]), np.ones(2), np.ones(2, bool)
    assert np.isnan(loss_interval(*rows, Resamples(np.zeros(2, int)))).all()
    assert np.isnan(accuracy_interval(rows[2], Resamples(np.zeros(2, int)))).all()


def test_the_interval_of_ece_takes_its_bias_off():
    head = Head(5, overconfidence=1.3)
    truth, p = head.answer(np.random.default_rng(0), 1_000_000)
    true_ece = metrics.ece(truth == p.argmax(axis=1), p.max(axis=1))
    rng, resamples = np.random.default_rng(1), Resamples(np.arange(400), n_resamples=300)
    figures, intervals = [], []
    for _ in range(300):
        truth, p = head.answer(rng, 400)
        right, confidence = truth == p.argmax(axis=1), p.max(axis=1)
        figures.append(metrics.ece(right, confidence))
        replicates = replicates_of(resamples, metrics.ece, right, confidence)
        intervals.append(ece_interval(figures[-1], replicates))
    assert np.mean(figures) > 1.15 * true_ece
    assert 0.85 <= coverage(intervals, true_ece) <= 0.99


def nearest_mean_accuracy(train_X, train_y, X, y):
    first, second = train_X[train_y == 0].mean(axis=0), train_X[train_y == 1].mean(axis=0)
    direction = second - first
    return ((X @ direction > direction @ (first + second) / 2) == y).mean()


def test_intervals_over_repeats_hold_the_true_value():
    rng = np.random.default_rng(0)

    def images(n):
        y = rng.integers(0, 2, n)
        return rng.normal(size=(n, 10)) + np.where(y, 0.25, -0.25)[:, None], y

    many = images(5000)
    expected = np.mean([nearest_mean_accuracy(*images(160), *many) for _ in range(300)])
    corrected, plain = [], []
    for _ in range(400):
        X, y = images(200)
        orders = [rng.permutation(200) for _ in range(5)]
        figures = np.array(
            [nearest_mean_accuracy(X[o[:160]], y[o[:160]], X[o[160:]], y[o[160:]]) for o in orders]
        )
        corrected.append(repeats_interval(figures, 160, 40))
        plain.append(repeats_interval(figures, 1, 0))
    assert 0.92 <= coverage(corrected, expected) <= 0.98
    # Splits that overlap taken for independent.
    assert coverage(plain, expected) < 0.9


def test_repeats_widen_by_the_overlap_of_their_splits():
    figures = np.array([0.90, 0.92, 0.94, 0.95, 0.89])
    low, high = repeats_interval(figures, n_train=800, n_test=200)
    # t of 4 degrees of freedom at 97.5 %: 2.776445.
    reach = 2.776445 * np.sqrt((1 / 5 + 200 / 800) * figures.var(ddof=1))
    assert (low, high) == pytest.approx((0.92 - reach, 0.92 + reach))
    assert np.isnan(repeats_interval(figures[:1], 800, 200)).all()
