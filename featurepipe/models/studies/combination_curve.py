"""How accuracy on unseen combinations of classes grows with the number of combinations seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from featurepipe.errors import FitError
from featurepipe.manifest import Labels
from featurepipe.models.answers.arrays import Columns, Features, Rows
from featurepipe.models.answers.questions import Question, make_questions
from featurepipe.models.heads.fitting import Advance, fit_one_head, run_jobs
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.studies.grouped_variance import variance_of_mean
from featurepipe.models.studies.learning_curve import SHARES, WORTHWHILE_GAIN
from featurepipe.predictions import ALL, Task
from featurepipe.shares import ENDS, share_interval
from featurepipe.splits import combination_folds

_N_FOLDS = 5


@dataclass(frozen=True)
class CombinationPoint:
    """How good heads are in unseen combinations if they have seen so many others.

    Attributes
    ----------
    attribute : str
        ``"all"``: all attributes of an image are right.
    share : float
        Share of the combinations that a fold does not hold out, in (0, 1].
    n_combinations, n_train : int
        Mean numbers of combinations and images that a head was fitted on.
    accuracy, low, high : float
        Accuracy on images of the combinations that were held out, and its 95 % interval over
        combinations.
    gain, margin : float
        Accuracy gained since the last share, and half the width of its 95 % interval; NaN at
        the first.
    """

    attribute: str
    share: float
    n_combinations: int
    n_train: int
    accuracy: float
    low: float
    high: float
    gain: float
    margin: float

    @property
    def verdict(self) -> str:
        """Whether images of more combinations would help."""
        if self.gain >= WORTHWHILE_GAIN and self.gain > self.margin:
            return "images of more combinations would help"
        if self.gain + self.margin < WORTHWHILE_GAIN:
            return "images of more combinations would help little"
        return "too uncertain to say whether images of more combinations would help"

    def in_words(self) -> str:
        """Describe it in a sentence."""
        return (
            f"{self.attribute}: {100 * self.accuracy:.1f} % (95 % CI {100 * self.low:.1f} to "
            f"{100 * self.high:.1f} %) of images in unseen combinations are right after "
            f"{self.n_combinations} combinations; the second half of these gained "
            f"{100 * self.gain:.1f} ± {100 * self.margin:.1f} points: {self.verdict}."
        )


@dataclass(frozen=True)
class CombinationCurve:
    """The curve, and how each combination fares without images of its own.

    Attributes
    ----------
    points : list of CombinationPoint
        By attribute, then by share.
    accuracies : dict of str to float
        For each combination that could be held out, the share of its images with all
        attributes right, by heads that were fitted on all others of its fold; the worst first.
    """

    points: list[CombinationPoint]
    accuracies: dict[str, float]


@dataclass(frozen=True)
class _Fold:
    """Rows that are asked, and the rows to train on at each share."""

    asked: Rows
    trained: list[Rows]
    n_combinations: list[int]


def combination_curve(
    X: Features,
    labels: Mapping[str, Labels],
    groups: Rows,
    settings: HeadSettings,
    *,
    columns: Mapping[str, Columns],
    n_jobs: int = -1,
    progress: Advance | None = None,
) -> CombinationCurve:
    """Fit heads on growing numbers of combinations, and measure them on others.

    The combinations are divided into 5 folds. Of the combinations outside of a fold, random ones
    are trained on, `SHARES` of them, at least as many as have every class; smaller shares are
    parts of larger ones. The more combinations, the more images, as if they had been
    collected.

    Parameters
    ----------
    X : ndarray of shape (n_train, n_features)
        Features of the training rows.
    labels : mapping of str to Labels
        Attributes with sets of labels are left out.
    groups : ndarray of shape (n_train,), intp
        Rows of a group are never on both sides.
    settings : HeadSettings
        Of the per-attribute task.
    columns : mapping of str to tuple of (int, int)
        The blocks of features that each attribute's head reads.
    n_jobs : int
        Threads; -1: one a processor core.
    progress : callable, optional
        Called with the number of heads fitted and of all heads.

    Raises
    ------
    FitError
        See `require_combinations`.
    """
    exclusive = {name: truth for name, truth in labels.items() if truth.exclusive}
    combination = _combinations(exclusive)
    folds = [
        _fold(exclusive, combination, groups, held_out, settings.seed)
        for held_out in require_combinations(labels, groups, settings.seed)
    ]
    questions = make_questions(exclusive, Task.PER_ATTRIBUTE, columns, groups).questions
    jobs = [
        (question, fold.trained[step], fold.asked, settings)
        for question in questions
        for step in range(len(SHARES))
        for fold in folds
    ]
    asked = np.concatenate([fold.asked for fold in folds])
    in_order = iter(run_jobs(_right, X, jobs, n_jobs, progress))
    right = {
        name: np.array(
            [np.concatenate([next(in_order) for _ in folds]) for _ in SHARES], dtype=np.float64
        )
        for name in exclusive
    }
    right[ALL] = np.min(list(right.values()), axis=0)
    points = [
        _point(name, step, of_name, combination[asked], folds)
        for name, of_name in right.items()
        for step in range(len(SHARES))
    ]
    return CombinationCurve(points, _accuracies(exclusive, combination, asked, right[ALL][-1]))


def require_combinations(
    labels: Mapping[str, Labels], groups: Rows, seed: int
) -> list[tuple[Rows, Rows]]:
    """Folds that hold out combinations of all exclusive attributes.

    Parameters
    ----------
    labels : mapping of str to Labels
        Of the training rows.
    groups : ndarray of shape (n_train,), intp
    seed : int

    Returns
    -------
    list of (ndarray of intp, ndarray of intp)
        See `featurepipe.splits.combination_folds`.

    Raises
    ------
    FitError
        If there are fewer than two exclusive attributes, or no combination can be held out.
    """
    exclusive = [truth for truth in labels.values() if truth.exclusive]
    folds = combination_folds(exclusive, groups, _N_FOLDS, seed) if len(exclusive) > 1 else []
    if not folds:
        raise FitError(
            "--curve combinations needs at least two attributes, and classes that occur in several "
            "combinations. None of the combinations of the training images can be held out. Use "
            "--curve images."
        )
    return folds


def _combinations(exclusive: Mapping[str, Labels]) -> Rows:
    """Number of each row's combination; -1 where a label is missing."""
    codes = np.column_stack([truth.codes for truth in exclusive.values()])
    numbers = np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)
    return np.where((codes >= 0).all(axis=1), numbers, -1)


def _fold(
    exclusive: Mapping[str, Labels],
    combination: Rows,
    groups: Rows,
    held_out: tuple[Rows, Rows],
    seed: int,
) -> _Fold:
    asked, away = held_out
    kept = np.setdiff1d(np.flatnonzero(combination >= 0), away)
    has = np.hstack([truth.indicator for truth in exclusive.values()])
    order, n_least = _order(combination[kept], has[kept], seed)
    sizes = [max(n_least, round(share * len(order))) for share in SHARES]
    trained = [kept[np.isin(combination[kept], order[:size])] for size in sizes]
    return _Fold(asked, trained, sizes)


def _order(combination: Rows, has: NDArray[np.bool_], seed: int) -> tuple[list[int], int]:
    """Random order of combinations, and how many of the first ones have every class."""
    names, firsts = np.unique(combination, return_index=True)
    covered = np.zeros(has.shape[1], dtype=bool)
    first: list[int] = []
    later: list[int] = []
    for k in np.random.default_rng(seed).permutation(len(names)):
        is_new = has[firsts[k]] & ~covered
        (first if is_new.any() else later).append(int(names[k]))
        covered |= is_new
    return first + later, len(first)


def _right(X: Features, job: tuple[Question, Rows, Rows, HeadSettings]) -> NDArray[np.bool_]:
    """Which rows a head answers correctly that is fitted on others."""
    question, trained, asked, settings = job
    kept = np.flatnonzero(np.isin(question.rows, trained))
    head = fit_one_head(X, question, kept, settings)
    truth = question.truth[np.searchsorted(question.rows, asked)]
    return np.asarray(head.predict_proba(X[asked]).argmax(axis=1) == truth.argmax(axis=1))


def _point(
    name: str,
    step: int,
    right: NDArray[np.float64],
    combination: Rows,
    folds: Sequence[_Fold],
) -> CombinationPoint:
    """A point of the curve; `right` has the shape (n_shares, n_asked)."""
    n_units = len(np.unique(combination))
    accuracy, error = _mean_and_error(right[step], combination)
    low, high = share_interval(accuracy, error**2, n_units, n_units)
    gain, margin = np.nan, np.nan
    if step:
        gain, error = _mean_and_error(right[step] - right[step - 1], combination)
        margin = error * _quantile(n_units)
    return CombinationPoint(
        attribute=name,
        share=SHARES[step],
        n_combinations=round(np.mean([fold.n_combinations[step] for fold in folds])),
        n_train=round(np.mean([len(fold.trained[step]) for fold in folds])),
        accuracy=accuracy,
        low=low,
        high=high,
        gain=gain,
        margin=margin,
    )


def _mean_and_error(values: NDArray[np.float64], combination: Rows) -> tuple[float, float]:
    """Mean over rows, and its standard error over combinations."""
    n = len(np.unique(combination))
    variance = variance_of_mean(values, combination) * n / max(n - 1, 1)
    return float(values.mean()), float(np.sqrt(variance))


def _quantile(n_units: int) -> float:
    return float(stats.t.ppf(ENDS[1], max(n_units - 1, 1)))


def _accuracies(
    exclusive: Mapping[str, Labels], combination: Rows, asked: Rows, right: NDArray[np.float64]
) -> dict[str, float]:
    """Share of right rows of each combination, by its name."""
    shares: dict[str, float] = {}
    for number in np.unique(combination[asked]):
        rows = combination[asked] == number
        example = asked[rows][0]
        classes = [truth.classes[truth.codes[example]] for truth in exclusive.values()]
        shares["_".join(classes)] = float(right[rows].mean())
    return dict(sorted(shares.items(), key=lambda pair: pair[1]))
