"""Choose the cached features that each attribute's head reads.

A head on ordinary features learns that black things are jeans if all black things it has seen are
jeans. So each attribute is tried with the features of each store, and of each pair of stores, with
whole combinations of classes held out from the training rows. Each trial is a ridge regression,
whose answers for held-out rows have a closed form.

A combination cannot be held out if one of its classes occurs in no other. What cannot be tested
may go wrong as far as there is another way: by how often the same features recognise the other
attribute, where that can be tested.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits

from featurepipe.errors import UnknownNameError
from featurepipe.manifest import Labels
from featurepipe.models.answers.arrays import Features, Rows
from featurepipe.models.studies.held_out_ridge import (
    HeldOutAnswers,
    HoldOuts,
    Right,
    answer_held_out,
    make_kernel,
)

OBJECTIVES = ("balanced", "unseen", "seen")

# Inverting a matrix takes the third power of its rows: 0.3 s on one core for this many.
ENOUGH_ROWS = 1500


@dataclass(frozen=True)
class Trial:
    """How well some blocks of features recognise an attribute.

    Attributes
    ----------
    attribute : str
    blocks : tuple of str
        One block, or two side by side.
    seen_accuracy : float
        Accuracy for training rows in ordinary folds.
    unseen_accuracy : float
        Accuracy for training rows whose combination of this attribute's class with another's
        was held out. A row whose combination cannot be held out counts by how often the other
        attribute is mistaken when combinations are held out: if it is recognised well, the
        head may have learnt it instead. NaN if no combination can be held out.
    chosen : bool
    """

    attribute: str
    blocks: tuple[str, ...]
    seen_accuracy: float
    unseen_accuracy: float
    chosen: bool


def sample_rows(labels: Mapping[str, Labels], seed: int) -> Rows:
    """Draw at most 1,500 rows, enough to choose features with.

    They are taken in turns from each combination of classes, in random order, so that rare
    combinations are there too.

    Parameters
    ----------
    labels : mapping of str to Labels
        Of training rows.
    seed : int

    Returns
    -------
    ndarray of shape (n_sampled,), intp
        Ascending positions.
    """
    has = np.hstack([truth.indicator for truth in labels.values()])
    order = np.random.default_rng(seed).permutation(len(has))
    combination = np.unique(has[order], axis=0, return_inverse=True)[1].reshape(-1)
    by_combination = np.argsort(combination, kind="stable")
    sorted_combination = combination[by_combination]
    turn = np.arange(len(has)) - np.searchsorted(sorted_combination, sorted_combination)
    in_turns = by_combination[np.argsort(turn, kind="stable")]
    return np.sort(order[in_turns[:ENOUGH_ROWS]])


def choose_features(
    blocks: Mapping[str, Features],
    labels: Mapping[str, Labels],
    groups: Rows,
    *,
    objective: str = "balanced",
    seed: int = 0,
    n_jobs: int = -1,
    progress: Callable[[int, int], object] | None = None,
) -> list[Trial]:
    """Try every block and pair of blocks for every attribute, on training rows.

    Among the trials within one standard error of the best one (that of their paired
    difference), the one with the fewest blocks is chosen; among several, the best.

    Parameters
    ----------
    blocks : mapping of str to ndarray of shape (n_rows, n_features of the block)
        Features of training rows, finite; `sample_rows` draws enough of them. Names play no
        role.
    labels : mapping of str to Labels
    groups : ndarray of shape (n_rows,), intp
        Rows of a group are never on both sides.
    objective : {"balanced", "unseen", "seen"}
        What to maximise: the mean of both accuracies, or one of them. Where no combination
        can be held out, the seen accuracy decides.
    seed : int
        Seed of rows and folds.
    n_jobs : int
        Threads; -1: one a processor core.
    progress : callable, optional
        Called with the number of candidates done and of all candidates.

    Returns
    -------
    list of Trial
        Attribute after attribute, the best first; one trial for each attribute is chosen.

    Raises
    ------
    UnknownNameError
        If there is no such objective.
    """
    if objective not in OBJECTIVES:
        raise UnknownNameError("objective", objective, OBJECTIVES)
    attributes = [HoldOuts.of(name, labels, groups, seed) for name in labels]
    candidates = [*((name,) for name in blocks), *combinations(blocks, 2)]
    tried: list[list[HeldOutAnswers]] = []
    with threadpool_limits(limits=1):
        kernels = {name: make_kernel(X) for name, X in blocks.items()}
        pool = Parallel(n_jobs=n_jobs, backend="threading", return_as="generator")
        calls = (
            delayed(answer_held_out)([kernels[name] for name in names], attributes)
            for names in candidates
        )
        for answers in pool(calls):
            tried.append(answers)
            if progress is not None:
                progress(len(tried), len(candidates))
    trials: list[Trial] = []
    for attribute, answers in zip(attributes, zip(*tried, strict=True), strict=True):
        trials += _ranked(attribute.name, candidates, answers, objective)
    return trials


def indistinguishable_classes(labels: Mapping[str, Labels]) -> list[str]:
    """Classes that occur with a single class of another attribute.

    Parameters
    ----------
    labels : mapping of str to Labels
        Of training rows.

    Returns
    -------
    list of str
        A sentence for each: these images do not show which of the two a head should learn.
    """
    sentences = []
    exclusive = {name: truth for name, truth in labels.items() if truth.exclusive}
    for name, truth in exclusive.items():
        for other_name, other in exclusive.items():
            both = truth.labelled & other.labelled
            counts = truth.indicator[both].T.astype(int) @ other.indicator[both]
            # An attribute with a single class cannot be mistaken for this one.
            if other_name == name or (counts.any(axis=0)).sum() < 2:
                continue
            sentences += [
                f"All {row.sum()} training images of {name} {truth.classes[k]!r} are of "
                f"{other_name} {other.classes[row.argmax()]!r}: nothing in them tells the two "
                "apart."
                for k, row in enumerate(counts)
                if (row > 0).sum() == 1
            ]
    return sentences


def _ranked(
    attribute: str,
    candidates: Sequence[tuple[str, ...]],
    answers: Sequence[HeldOutAnswers],
    objective: str,
) -> list[Trial]:
    right = [_wanted(of_candidate, objective) for of_candidate in answers]
    scores = np.array([_mean(of_candidate) for of_candidate in right])
    best = int(scores.argmax())
    tied = [
        k
        for k in range(len(candidates))
        if scores[best] - scores[k] <= _standard_error(right[best], right[k])
    ]
    chosen = min(tied, key=lambda k: (len(candidates[k]), -scores[k]))
    return [
        Trial(
            attribute,
            candidates[k],
            _mean([answers[k].seen]),
            _mean([answers[k].unseen]),
            chosen=bool(k == chosen),
        )
        for k in np.argsort(-scores, kind="stable")
    ]


def _wanted(answers: HeldOutAnswers, objective: str) -> list[Right]:
    """What an objective averages over its rows."""
    if objective == "seen" or np.isnan(answers.unseen).all():
        return [answers.seen]
    return [answers.unseen] if objective == "unseen" else [answers.seen, answers.unseen]


def _mean(right: Sequence[Right]) -> float:
    shares = [rows[~np.isnan(rows)] for rows in right]
    return float(np.mean([share.mean() if len(share) else np.nan for share in shares]))


def _standard_error(best: Sequence[Right], other: Sequence[Right]) -> float:
    """Standard error of the difference of two means over the same rows."""
    variances = []
    for better, worse in zip(best, other, strict=True):
        differences = (better - worse)[~np.isnan(better)]
        variances.append(differences.var() / len(differences))
    return float(np.sqrt(np.sum(variances))) / len(best)
