"""Choose the cached features that each attribute's head reads.

A head on ordinary features learns that black things are jeans if all black things it has seen are
jeans. So each attribute is tried with the features of each store, of each pair of stores, and of
the best pair with each third, with combinations of classes held out from the training rows. Each
trial is a ridge regression, whose answers for held-out rows have a closed form.

A combination cannot be held out if one of its classes occurs in no other. What cannot be tested
may go wrong as far as there is another way: by how often the same features recognise the other
attribute, where that can be tested.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from featurepipe.cluster.spreading import call_each
from featurepipe.errors import UnknownNameError
from featurepipe.manifest import Labels
from featurepipe.models.answers.arrays import Features, Rows
from featurepipe.models.studies.held_out_ridge import answer_held_out, make_kernel
from featurepipe.models.studies.hold_outs import (
    OBJECTIVES,
    HeldOutAnswers,
    HoldOuts,
    is_worse,
    is_worse_on_either,
    mean_right,
)

# Inverting a matrix takes the third power of its rows: 0.3 s on one core for this many.
ENOUGH_ROWS = 1500
# Square matrices of a trial in memory at a time; measured.
_SQUARES_OF_A_TRIAL = 8

Blocks = tuple[str, ...]
"""Names of the blocks of features that lie side by side."""


@dataclass(frozen=True)
class Trial:
    """How well some blocks of features recognise an attribute.

    Attributes
    ----------
    attribute : str
    blocks : tuple of str
        One block, or up to three side by side.
    seen_accuracy : float
        Accuracy for training rows in ordinary folds.
    unseen_accuracy : float
        Accuracy for training rows whose combination of classes was held out, as the rows lack
        combinations; see `featurepipe.models.studies.hold_outs.lacking_combinations`. A row
        whose combination with another attribute cannot be held out counts by how often that
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
    """Try blocks, pairs of blocks, and triples for every attribute, on training rows.

    Among the trials within one standard error of the best one (that of their paired
    difference), the one with the fewest blocks is chosen; among several, the best. With the
    objective ``balanced``, features that are worse than the `ordinary_block` on either measure, by
    more than two standard errors, are never chosen.

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
    hold_outs = HoldOuts.of(labels, groups, seed)
    tried: dict[Blocks, list[HeldOutAnswers]] = {}
    with threadpool_limits(limits=1):
        kernels = {name: make_kernel(X) for name, X in blocks.items()}

        def run(candidates: Sequence[Blocks]) -> None:
            n_all = len(tried) + len(candidates)
            results = call_each(_try, (kernels, hold_outs), candidates, n_jobs=n_jobs)
            for names, answers in zip(candidates, results, strict=True):
                tried[names] = answers
                if progress is not None:
                    progress(len(tried), n_all)

        run([*((name,) for name in blocks), *combinations(blocks, 2)])
        run(_triples(tried, list(blocks), objective))
    ordinary = _best_in_ordinary_folds(tried)
    trials: list[Trial] = []
    for number, attribute in enumerate(hold_outs):
        answers = {names: of_all[number] for names, of_all in tried.items()}
        trials += _ranked(attribute.name, answers, objective, ordinary, groups)
    return trials


def _try(
    shared: tuple[Mapping[str, NDArray[np.float64]], Sequence[HoldOuts]], blocks: Blocks
) -> list[HeldOutAnswers]:
    kernels, hold_outs = shared
    return answer_held_out([kernels[name] for name in blocks], hold_outs)


def memory_of_choice(n_rows: int, n_features: Sequence[int], n_jobs: int) -> int:
    """Bytes that `choose_features` takes.

    Parameters
    ----------
    n_rows : int
    n_features : sequence of int
        Of each block.
    n_jobs : int
        Trials side by side.
    """
    square = 8 * n_rows**2
    # The features of a block in float64 and centred, their products and the kernel; later, for
    # each trial, its kernels, their mean, and what inverting it takes.
    making = 16 * n_rows * max(n_features) + 2 * square
    trying = _SQUARES_OF_A_TRIAL * square * n_jobs
    return 4 * n_rows * sum(n_features) + square * len(n_features) + max(making, trying)


def ordinary_block(trials: Sequence[Trial]) -> str:
    """The block that is best for all attributes in ordinary folds.

    Parameters
    ----------
    trials : sequence of Trial
        What `choose_features` returned.
    """
    seen: dict[str, list[float]] = {}
    for trial in trials:
        if len(trial.blocks) == 1:
            seen.setdefault(trial.blocks[0], []).append(trial.seen_accuracy)
    return max(seen, key=lambda name: np.mean(seen[name]))


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


def _triples(
    tried: Mapping[Blocks, Sequence[HeldOutAnswers]], names: Sequence[str], objective: str
) -> list[Blocks]:
    """The best pair of each attribute, with each other block."""
    pairs = [blocks for blocks in tried if len(blocks) == 2]
    triples: dict[Blocks, None] = {}
    for number in range(len(next(iter(tried.values())))) if pairs else ():
        best = max(pairs, key=lambda pair: mean_right(tried[pair][number].wanted(objective)))
        for name in names:
            if name not in best:
                triples[tuple(sorted((*best, name), key=names.index))] = None
    return list(triples)


def _best_in_ordinary_folds(tried: Mapping[Blocks, Sequence[HeldOutAnswers]]) -> Blocks:
    seen = {
        names: np.mean([mean_right([of_one.seen]) for of_one in answers])
        for names, answers in tried.items()
        if len(names) == 1
    }
    return max(seen, key=lambda names: seen[names])


def _ranked(
    attribute: str,
    answers: Mapping[Blocks, HeldOutAnswers],
    objective: str,
    ordinary: Blocks,
    groups: Rows,
) -> list[Trial]:
    """The trials of an attribute, the best first."""
    right = {names: of_names.wanted(objective) for names, of_names in answers.items()}
    scores = {names: mean_right(of_names) for names, of_names in right.items()}
    ranked = sorted(answers, key=lambda names: -scores[names])
    sound = ranked
    if objective == "balanced":
        sound = [
            names
            for names in ranked
            if not is_worse_on_either(answers[ordinary], answers[names], groups)
        ]
    tied = [names for names in sound if not is_worse(right[sound[0]], right[names], groups)]
    chosen = min(tied, key=lambda names: (len(names), -scores[names]))
    return [
        Trial(
            attribute,
            names,
            mean_right([answers[names].seen]),
            mean_right([answers[names].unseen]),
            chosen=names == chosen,
        )
        for names in ranked
    ]
