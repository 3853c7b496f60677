"""Which differences between runs are real: paired tests on the same images."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from featurepipe.reports.figures import Answers
from featurepipe.reports.resampling import Rows

LEVEL = 0.05


def tied_in_accuracy(answers: Sequence[Answers]) -> list[bool]:
    """Which runs the data cannot tell from the most accurate one.

    McNemar's test of each pair (`sign_flip_test`), Holm-corrected over all pairs,
    at 5 %: among equal runs any is called different in at most 5 % of cases. The
    best one is chosen by the same data; the correction over all pairs covers that.

    Parameters
    ----------
    answers : sequence of Answers
        One a run, to the same images in the same order.

    Returns
    -------
    list of bool
        The best one's own is True.
    """
    rows = Rows(answers[0].predictions.groups)
    n_right = np.array([rows.sums(each.right) for each in answers]).astype(np.intp)
    pairs = list(combinations(range(len(answers)), 2))
    p_values = np.array([sign_flip_test(n_right[a] - n_right[b]) for a, b in pairs])
    return _tied(int(n_right.sum(axis=1).argmax()), pairs, p_values, len(answers))


def tied_in_log_loss(answers: Sequence[Answers]) -> list[bool]:
    """Which runs the data cannot tell from the one of the lowest log-loss.

    A paired bootstrap over images, or groups (`paired_bootstrap_test`),
    Holm-corrected over all pairs, at 5 %.

    Parameters
    ----------
    answers : sequence of Answers
        One a run, to the same images in the same order.

    Returns
    -------
    list of bool
        The best one's own is True.
    """
    losses = np.array([each.losses for each in answers])
    pairs = list(combinations(range(len(answers)), 2))
    p_values = paired_bootstrap_test(losses, answers[0].predictions.groups)
    return _tied(int(losses.sum(axis=1).argmin()), pairs, p_values, len(answers))


def sign_flip_test(differences: NDArray[np.intp]) -> float:
    """Whether two runs are right equally often, by groups of images.

    If they are, each group's difference might as well have the other sign. The
    distribution over all signs is computed exactly. Where every group is a single
    image this is McNemar's exact test, with the mid-p value (Fagerland, Lydersen &
    Laake 2013, The McNemar test for binary matched-pairs data: mid-p and asymptotic
    are better than exact conditional).

    Parameters
    ----------
    differences : ndarray of shape (n_groups,), intp
        Right answers of the one less those of the other.

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
    """Whether two runs have the same expected loss, for each pair of runs.

    The same resamples of the images serve all runs. A p-value is how often the
    resampled difference lies as far from the difference as that lies from 0.

    Parameters
    ----------
    losses : ndarray of shape (n_runs, n_images), float64
    groups : ndarray of shape (n_images,), int
        Images of one number are drawn together.
    seed : int

    Returns
    -------
    ndarray of shape (n_pairs,), float64
        Two-sided, in (0, 1], in the order of `itertools.combinations`.
    """
    first, second = np.triu_indices(len(losses), 1)
    # So many that the lowest p-value there can be survives the correction.
    n_resamples = max(10_000, 40 * len(first))
    n_further = np.zeros(len(first))
    chunk = 1000
    rows = Rows(groups)
    sums, sizes = rows.sums(losses.T), rows.sums(np.ones(len(groups)))
    observed = losses.mean(axis=1)
    difference = observed[first] - observed[second]
    for start in range(0, n_resamples, chunk):
        weights = Rows(groups, n_resamples=chunk, seed=seed + start).unit_weights
        resampled = (weights @ sums / (weights @ sizes)[:, None]).T
        off = resampled[first] - resampled[second] - difference[:, None]
        n_further += (np.abs(off) >= np.abs(difference)[:, None]).sum(axis=1)
    return (n_further + 1) / (n_resamples + 1)


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """P-values that hold for all tests together.

    Holm (1979), A simple sequentially rejective multiple test procedure.

    Parameters
    ----------
    p_values : ndarray of shape (n_tests,), float64

    Returns
    -------
    ndarray of shape (n_tests,), float64
        In [0, 1], not below those given.
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
