"""Which differences between runs are real: paired tests on the same images."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from featurepipe.reports.attribute_predictions import AttributePredictions
from featurepipe.reports.resampling import Resamples

LEVEL = 0.05


def tied_in_accuracy(runs: Sequence[AttributePredictions]) -> list[bool]:
    """Which runs are not significantly less accurate than the best one.

    McNemar's test of each pair (`sign_flip_test`), Holm-corrected over all pairs, at 5 %: if
    all runs are equal, any is called different in at most 5 % of cases. The best run is
    chosen with the same data; the correction over all pairs covers that.

    Parameters
    ----------
    runs : sequence of AttributePredictions
        One for each run, for the same images in the same order.

    Returns
    -------
    list of bool
        True for the best run itself.
    """
    resamples = Resamples(runs[0].predictions.groups)
    n_right = np.array([resamples.sums(run.right) for run in runs]).astype(np.intp)
    pairs = list(combinations(range(len(runs)), 2))
    p_values = np.array([sign_flip_test(n_right[a] - n_right[b]) for a, b in pairs])
    return _tied(int(n_right.sum(axis=1).argmax()), pairs, p_values, len(runs))


def tied_in_log_loss(runs: Sequence[AttributePredictions]) -> list[bool]:
    """Which runs do not have a significantly higher log-loss than the best one.

    A paired bootstrap over images, or groups (`paired_bootstrap_test`), Holm-corrected over
    all pairs, at 5 %.

    Parameters
    ----------
    runs : sequence of AttributePredictions
        One for each run, for the same images in the same order.

    Returns
    -------
    list of bool
        True for the best run itself.
    """
    losses = np.array([run.losses for run in runs])
    pairs = list(combinations(range(len(runs)), 2))
    p_values = paired_bootstrap_test(losses, runs[0].predictions.groups)
    return _tied(int(losses.sum(axis=1).argmin()), pairs, p_values, len(runs))


def sign_flip_test(differences: NDArray[np.intp]) -> float:
    """Test whether two runs are right equally often, by groups of images.

    If they are, the sign of each group's difference is arbitrary. The distribution over all
    signs is computed exactly. Where every group is a single image this is McNemar's exact
    test, with the mid-p value (Fagerland, Lydersen & Laake 2013, The McNemar test for binary
    matched-pairs data: mid-p and asymptotic are better than exact conditional).

    Parameters
    ----------
    differences : ndarray of shape (n_groups,), intp
        Right answers of the first run minus those of the second.

    Returns
    -------
    float
        Two-sided mid-p value, in (0, 1].
    """
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    # Probability of each sum that signs can give, from the lowest.
    probability = np.ones(1)
    for size, count in zip(sizes, counts, strict=True):
        of_size = np.zeros(2 * size * count + 1)
        of_size[:: 2 * size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        probability = np.convolve(probability, of_size)
    distance = np.abs(np.arange(len(probability)) - len(probability) // 2)
    seen = abs(differences.sum())
    return float(probability[distance > seen].sum() + probability[distance == seen].sum() / 2)


def paired_bootstrap_test(
    losses: NDArray[np.float64], groups: NDArray[np.integer], *, seed: int = 0
) -> NDArray[np.float64]:
    """Test whether two runs have the same expected loss, for each pair of runs.

    All runs use the same resamples of the images. A p-value is how often the resampled
    difference lies as far from the observed difference as that lies from 0.

    Parameters
    ----------
    losses : ndarray of shape (n_runs, n_images), float64
    groups : ndarray of shape (n_images,), int
        Images with the same number are drawn together.
    seed : int

    Returns
    -------
    ndarray of shape (n_pairs,), float64
        Two-sided, in (0, 1], in the order of `itertools.combinations`.
    """
    first, second = np.triu_indices(len(losses), 1)
    # Enough for the lowest possible p-value to survive the correction.
    n_resamples = max(10_000, 40 * len(first))
    n_further = np.zeros(len(first))
    chunk = 1000
    resamples = Resamples(groups)
    sums, sizes = resamples.sums(losses.T), resamples.sums(np.ones(len(groups)))
    observed = losses.mean(axis=1)
    difference = observed[first] - observed[second]
    for start in range(0, n_resamples, chunk):
        drawn = Resamples(groups, n_resamples=chunk, seed=seed + start)
        for weights in drawn.unit_blocks():
            resampled = (weights @ sums / (weights @ sizes)[:, None]).T
            off = resampled[first] - resampled[second] - difference[:, None]
            n_further += (np.abs(off) >= np.abs(difference)[:, None]).sum(axis=1)
    return (n_further + 1) / (n_resamples + 1)


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """P-values corrected for multiple tests.

    Holm (1979), A simple sequentially rejective multiple test procedure.

    Parameters
    ----------
    p_values : ndarray of shape (n_tests,), float64

    Returns
    -------
    ndarray of shape (n_tests,), float64
        In [0, 1], at least as large as those given.
    """
    order = np.argsort(p_values, kind="stable")
    steps = p_values[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def _tied(
    best: int, pairs: Sequence[tuple[int, int]], p_values: NDArray[np.float64], n_runs: int
) -> list[bool]:
    tied = [True] * n_runs
    for pair, p_value in zip(pairs, holm(p_values), strict=True):
        if best in pair and p_value < LEVEL:
            tied[sum(pair) - best] = False
    return tied
