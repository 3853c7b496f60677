from itertools import combinations, product

import numpy as np
import pytest
from scipy.stats import binom, binomtest, ttest_rel

from featurepipe.manifest import Labels
from featurepipe.predictions import Predictions
from featurepipe.reports.attribute_predictions import AttributePredictions
from featurepipe.reports.paired_tests import (
    holm,
    paired_bootstrap_test,
    sign_flip_test,
    tied_in_accuracy,
    tied_in_log_loss,
)

N_RUNS = 10


def judged(right, losses, groups=None):
    n = len(right)
    labels = Labels("color", ("blue", "red"), True, np.eye(2, dtype=bool)[np.zeros(n, int)], right)
    predictions = Predictions.of(
        np.arange(n).astype(str),
        np.full(n, "test"),
        np.arange(n) if groups is None else groups,
        "per-attribute",
        {"color": labels},
        {"color": np.full((n, 2), 0.5)},
    )
    half = np.full(n, 0.5)
    right, losses = np.asarray(right, bool), np.asarray(losses)
    return AttributePredictions(predictions, right, losses, losses, half, half, half)


def equal_runs(rng, n, easiness):
    """Scores of equally good runs that find the same images hard."""
    hardness = rng.normal(size=n)
    scores = easiness - np.sqrt(0.6) * hardness - np.sqrt(0.4) * rng.normal(size=(N_RUNS, n))
    return scores > 0, np.log1p(np.exp(-3 * scores))


def discordant(n_first, n_second):
    return np.repeat([1, -1, 0], [n_first, n_second, 20])


def test_published_example_of_the_mid_p_value():
    # Fagerland, Lydersen & Laake (2013), airway hyper-responsiveness before and after
    # stem cell transplantation: 1 and 7 discordant pairs, exact 0.0703, mid-p 0.0391.
    assert sign_flip_test(discordant(1, 7)) == pytest.approx(0.0391, abs=5e-5)


@pytest.mark.parametrize(("b", "c"), [(0, 1), (4, 11), (0, 9), (300, 240)])
def test_single_images_have_mcnemars_mid_p_value(b, c):
    expected = binomtest(b, b + c).pvalue - binom.pmf(b, b + c, 0.5)
    assert sign_flip_test(discordant(b, c)) == pytest.approx(expected)


def test_as_many_either_way_show_no_difference():
    assert sign_flip_test(discordant(3, 3)) == pytest.approx(1 - binom.pmf(3, 6, 0.5) / 2)


def test_groups_flip_their_signs_together():
    differences = np.array([3, -1, 2, 0, 1, -2, 3])
    sums = [np.dot(signs, differences) for signs in product([1, -1], repeat=7)]
    distances = np.abs(sums)
    expected = np.mean(distances > 6) + np.mean(distances == 6) / 2
    assert sign_flip_test(differences) == pytest.approx(expected)


def test_holm_by_hand():
    adjusted = holm(np.array([0.01, 0.04, 0.03, 0.005]))
    assert adjusted.tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.9, 0.8])).tolist() == [1, 1]


def test_paired_bootstrap_of_ordinary_losses_is_near_the_paired_t_test():
    rng = np.random.default_rng(0)
    common = rng.exponential(size=500)
    losses = common + rng.normal([[0.0], [0.015], [0.03]], 0.2, size=(3, 500))
    expected = [ttest_rel(losses[a], losses[b]).pvalue for a, b in combinations(range(3), 2)]
    np.testing.assert_allclose(paired_bootstrap_test(losses, np.arange(500)), expected, atol=0.015)


def test_paired_bootstrap_counts_copies_once():
    rng = np.random.default_rng(0)
    losses = rng.exponential([[1.0], [1.2]], size=(2, 100))
    once = paired_bootstrap_test(losses, np.arange(100))
    thrice = paired_bootstrap_test(np.repeat(losses, 3, axis=1), np.repeat(np.arange(100), 3))
    np.testing.assert_allclose(once, thrice)


def test_equal_losses_do_not_differ():
    losses = np.tile(np.random.default_rng(0).exponential(size=30), (2, 1))
    assert paired_bootstrap_test(losses, np.arange(30)).tolist() == [1]


@pytest.mark.parametrize(("n", "easiness"), [(100, 1.0), (400, 1.7)])
def test_among_equal_runs_hardly_any_differs_in_accuracy(n, easiness):
    rng = np.random.default_rng(0)
    n_simulated, n_wrong = 300, 0
    for _ in range(n_simulated):
        right, _ = equal_runs(rng, n, easiness)
        counts = right.astype(int)
        p_values = [
            sign_flip_test(counts[a] - counts[b]) for a, b in combinations(range(N_RUNS), 2)
        ]
        n_wrong += holm(np.array(p_values)).min() < 0.05
    assert n_wrong / n_simulated <= 0.05


@pytest.mark.parametrize(("n", "easiness"), [(100, 1.0), (150, 1.7)])
def test_among_equal_runs_hardly_any_differs_in_log_loss(n, easiness):
    rng = np.random.default_rng(0)
    n_simulated, n_wrong = 60, 0
    for _ in range(n_simulated):
        _, losses = equal_runs(rng, n, easiness)
        n_wrong += holm(paired_bootstrap_test(losses, np.arange(n))).min() < 0.05
    assert n_wrong / n_simulated <= 0.05


def test_better_and_worse_runs_are_told_apart():
    rng = np.random.default_rng(0)
    right, losses = equal_runs(rng, 400, 1.5)
    right[3:6] &= rng.random((3, 400)) < 0.8
    losses[7] *= 2.5
    runs = [judged(*run) for run in zip(right, losses, strict=True)]
    assert tied_in_accuracy(runs) == [True] * 3 + [False] * 3 + [True] * 4
    assert tied_in_log_loss(runs) == [True] * 7 + [False] + [True] * 2


def test_groups_weigh_as_single_images():
    rng = np.random.default_rng(0)
    right = np.array([np.ones(12, bool), rng.random(12) < 0.4])
    losses = np.where(right, 0.1, 2.0) + rng.uniform(0, 0.1, size=right.shape)
    single = [judged(*run) for run in zip(right, losses, strict=True)]
    assert tied_in_accuracy(single) == [True, False]
    groups = np.arange(12) // 4
    together = [judged(*run, groups) for run in zip(right, losses, strict=True)]
    assert tied_in_accuracy(together) == [True, True]


def test_a_single_run_is_the_best():
    assert tied_in_accuracy([judged([True], [0.1])]) == [True]
