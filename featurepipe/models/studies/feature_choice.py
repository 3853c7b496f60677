"""Which cached features each attribute's head shall read.

A head on ordinary features learns that what is black is jeans, if all black things it was
shown are. So each attribute is tried on the features of each store, and of each pair, with
whole combinations of classes held out inside the training rows. What is tried is ridge
regression on the classes' indicators: once its matrix is inverted, the answers for any rows
that are held out have a closed form.

A combination cannot be held out if a class occurs in no other. What cannot be tested may go
wrong as far as there is another way: by how often the same features tell the other attribute,
where that can be tested.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy.linalg import lapack, solve
from threadpoolctl import threadpool_limits

from featurepipe.errors import UnknownNameError
from featurepipe.manifest import Labels
from featurepipe.splits import combination_folds, inner_folds

OBJECTIVES = ("balanced", "unseen", "seen")

# Inverting a matrix takes the third power of its rows: 0.3 s on one core for this many.
ENOUGH_ROWS = 1500
_N_FOLDS = 5
# Over the mean squared distance of the features from their mean.
_RIDGE = 0.1
# Variance of the intercept beside 1 of the features: all but free.
_INTERCEPT = 100.0

Features = NDArray[np.floating]
Rows = NDArray[np.intp]
Right = NDArray[np.float64]
Folds = list[tuple[Rows, Rows]]


@dataclass(frozen=True)
class Trial:
    """How well an attribute is told by some blocks of features.

    Attributes
    ----------
    attribute : str
    blocks : tuple of str
        One block, or two side by side.
    seen_accuracy : float
        Of training rows in ordinary folds.
    unseen_accuracy : float
        Of training rows whose combination of this attribute's class with another's was
        held out. A row whose combination cannot be counts by how often the other attribute
        is mistaken when combinations are held out: where it is told well, it is what the
        head may have learnt instead. NaN where no combination can be held out.
    chosen : bool
    """

    attribute: str
    blocks: tuple[str, ...]
    seen_accuracy: float
    unseen_accuracy: float
    chosen: bool


def sample_rows(labels: Mapping[str, Labels], seed: int) -> Rows:
    """Rows that are enough to choose features by: at most 1,500.

    They are taken in turns from each combination of classes, in random order, so that rare
    ones are there too.

    Parameters
    ----------
    labels : mapping of str to Labels
        Of training rows.
    seed : int

    Returns
    -------
    ndarray of shape (n_sampled,), intp
        Sorted positions.
    """
    has = np.hstack([each.indicator for each in labels.values()])
    order = np.random.default_rng(seed).permutation(len(has))
    _, combination = np.unique(has[order], axis=0, return_inverse=True)
    by_combination = np.argsort(combination.reshape(-1), kind="stable")
    of_sorted = combination.reshape(-1)[by_combination]
    turn = np.arange(len(has)) - np.searchsorted(of_sorted, of_sorted)
    in_turns = by_combination[np.argsort(turn, kind="stable")]
    return np.sort(order[in_turns[:ENOUGH_ROWS]])


def choose_features(
    blocks: Mapping[str, Features],
    labels: Mapping[str, Labels],
    groups: NDArray[np.intp],
    *,
    objective: str = "balanced",
    seed: int = 0,
    n_jobs: int = -1,
    progress: Callable[[int, int], object] | None = None,
) -> list[Trial]:
    """Try every block and pair of blocks for every attribute, on training rows alone.

    Among the trials that are within one standard error of the best one (that of their paired
    difference), the one with the fewest blocks is chosen; of several, the best.

    Parameters
    ----------
    blocks : mapping of str to ndarray of shape (n_rows, n_features of the block)
        Features of training rows, finite; `sample_rows` says how many are enough. Nothing
        is made of their names.
    labels : mapping of str to Labels
    groups : ndarray of shape (n_rows,), intp
        Rows of one group are never on both sides.
    objective : {"balanced", "unseen", "seen"}
        What is best: the mean of both accuracies, or one of them. Where no combination can
        be held out, the seen accuracy decides.
    seed : int
        Of rows and folds.
    n_jobs : int
        Threads; -1: one a processor core.
    progress : callable, optional
        Called with the numbers of candidates done and of all.

    Returns
    -------
    list of Trial
        Attribute after attribute, the best first; one of each attribute is chosen.

    Raises
    ------
    UnknownNameError
        If there is no such objective.
    """
    if objective not in OBJECTIVES:
        raise UnknownNameError("objective", objective, OBJECTIVES)
    questions = [_question(name, labels, groups, seed) for name in labels]
    candidates = [*((name,) for name in blocks), *combinations(blocks, 2)]
    tried: list[list[_Answers]] = []
    with threadpool_limits(limits=1):
        kernels = {name: _kernel(X) for name, X in blocks.items()}
        pool = Parallel(n_jobs=n_jobs, backend="threading", return_as="generator")
        calls = (
            delayed(_try_blocks)([kernels[name] for name in names], questions)
            for names in candidates
        )
        for answers in pool(calls):
            tried.append(answers)
            if progress is not None:
                progress(len(tried), len(candidates))
    trials: list[Trial] = []
    for question, answers in zip(questions, zip(*tried, strict=True), strict=True):
        trials += _ranked(question.name, candidates, answers, objective)
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
        A sentence for each: nothing in these images tells the one from the other.
    """
    sentences = []
    exclusive = {name: each for name, each in labels.items() if each.exclusive}
    for name, each in exclusive.items():
        for other_name, other in exclusive.items():
            both = each.labelled & other.labelled
            counts = each.indicator[both].T.astype(int) @ other.indicator[both]
            # An attribute of one class is no other that could be mistaken for this one.
            if other_name == name or (counts.any(axis=0)).sum() < 2:
                continue
            sentences += [
                f"All {row.sum()} training images of {name} {each.classes[k]!r} are of "
                f"{other_name} {other.classes[row.argmax()]!r}: nothing in them tells the one "
                "from the other."
                for k, row in enumerate(counts)
                if (row > 0).sum() == 1
            ]
    return sentences


@dataclass(frozen=True)
class _Question:
    """An attribute of the sampled rows, and what is held out together.

    Each fold is the rows that are answered for, and those that are not trained on with them.
    `unseen` has those of the combinations with each other attribute.
    """

    name: str
    labels: Labels
    seen: Folds
    unseen: dict[str, Folds]

    @cached_property
    def targets(self) -> Right:
        return self.labels.indicator.astype(np.float64)


@dataclass(frozen=True)
class _Answers:
    """How often each row's class was found, in [0, 1]; NaN where it was not asked."""

    seen: Right
    unseen: Right


def _question(
    name: str, labels: Mapping[str, Labels], groups: NDArray[np.intp], seed: int
) -> _Question:
    own = labels[name]
    labelled = np.flatnonzero(own.labelled)
    missing = np.flatnonzero(~own.labelled)
    strata = own.codes[labelled]
    if not own.exclusive:
        strata = np.unique(own.indicator[labelled], axis=0, return_inverse=True)[1].reshape(-1)
    folds = inner_folds(strata, groups[labelled], _N_FOLDS, seed)
    seen = [labelled[validation] for _, validation in folds]
    unseen: dict[str, Folds] = {}
    for other, others in labels.items():
        if own.exclusive and others.exclusive and other != name:
            held_out = combination_folds([own, others], groups, _N_FOLDS, seed)
            unseen[other] = [(asked, np.union1d(away, missing)) for asked, away in held_out]
    return _Question(name, own, [(asked, np.union1d(asked, missing)) for asked in seen], unseen)


def _kernel(X: Features) -> NDArray[np.float64]:
    """Products of centred features, of mean 1 on the diagonal."""
    centred = X.astype(np.float64) - X.mean(axis=0, dtype=np.float64)
    products = centred @ centred.T
    return products / (np.trace(products) / len(X) or 1.0)


def _try_blocks(
    kernels: Sequence[NDArray[np.float64]], questions: Sequence[_Question]
) -> list[_Answers]:
    mixed = np.mean(kernels, axis=0) + _INTERCEPT
    mixed[np.diag_indices_from(mixed)] += _RIDGE
    inverse = _inverted(mixed)
    tested = {
        (question.name, other): _right(inverse, question, folds)
        for question in questions
        for other, folds in question.unseen.items()
        if folds
    }
    return [
        _Answers(_right(inverse, question, question.seen), _unseen(question, tested))
        for question in questions
    ]


def _unseen(question: _Question, tested: Mapping[tuple[str, str], Right]) -> Right:
    """Mean over the other attributes of how often each row is right without its combination."""
    of_others = [np.full(len(question.labels), np.nan)]
    for other in question.unseen:
        if (question.name, other) in tested:
            mistaken = 1 - np.nanmean(tested[other, question.name])
            right = tested[question.name, other]
            of_others.append(np.where(np.isnan(right), mistaken, right))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        unseen = np.nanmean(of_others, axis=0)
    return np.where(question.labels.labelled, unseen, np.nan)


def _inverted(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    factor, _ = lapack.dpotrf(matrix, lower=True)
    inverse, _ = lapack.dpotri(factor, lower=True)
    lower = np.tril(inverse)
    return lower + np.tril(inverse, -1).T


def _right(inverse: NDArray[np.float64], question: _Question, folds: Folds) -> Right:
    """How often each row's answer is right when its fold is held out.

    With A the inverse of kernel and ridge together, the answers for rows F by what is
    trained on all others are ``Y_F - inv(A_FF) (A Y)_F``.
    """
    targets = question.targets
    weighted = inverse @ targets
    n_right, n_asked = np.zeros((2, len(targets)))
    for asked, away in folds:
        answers = targets[away] - solve(inverse[np.ix_(away, away)], weighted[away], assume_a="pos")
        answers = answers[np.searchsorted(away, asked)]
        n_right[asked] += _is_right(answers, question.labels.take(asked))
        n_asked[asked] += 1
    return np.divide(n_right, n_asked, out=np.full(len(targets), np.nan), where=n_asked > 0)


def _is_right(answers: NDArray[np.float64], labels: Labels) -> NDArray[np.bool_]:
    if labels.exclusive:
        return answers.argmax(axis=1) == labels.codes
    return ((answers > 0.5) == labels.indicator).all(axis=1)


def _ranked(
    attribute: str,
    candidates: Sequence[tuple[str, ...]],
    answers: Sequence[_Answers],
    objective: str,
) -> list[Trial]:
    of_rows = [_wanted(each, objective) for each in answers]
    scores = np.array([_mean(each) for each in of_rows])
    best = int(scores.argmax())
    tied = [
        k
        for k in range(len(candidates))
        if scores[best] - scores[k] <= _standard_error(of_rows[best], of_rows[k])
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


def _wanted(answers: _Answers, objective: str) -> list[Right]:
    """What an objective averages over its rows."""
    if objective == "seen" or np.isnan(answers.unseen).all():
        return [answers.seen]
    return [answers.unseen] if objective == "unseen" else [answers.seen, answers.unseen]


def _mean(of_rows: Sequence[Right]) -> float:
    shares = [each[~np.isnan(each)] for each in of_rows]
    return float(np.mean([share.mean() if len(share) else np.nan for share in shares]))


def _standard_error(best: Sequence[Right], other: Sequence[Right]) -> float:
    """Of the difference of two means over the same rows."""
    variances = []
    for better, worse in zip(best, other, strict=True):
        differences = (better - worse)[~np.isnan(better)]
        variances.append(differences.var() / len(differences))
    return float(np.sqrt(np.sum(variances))) / len(best)
