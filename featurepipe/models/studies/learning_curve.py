"""Would more images help: heads fitted on growing parts of the training rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from featurepipe import metrics
from featurepipe.manifest import Labels
from featurepipe.models.answers.head_model import Columns
from featurepipe.models.heads.fitting import fit_heads
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.predictions import Predictions
from featurepipe.splits import inner_folds

SHARES = (0.125, 0.25, 0.5, 1.0)
N_DRAWS = 3
WORTHWHILE_GAIN = 0.01
"""Gain in accuracy by twice as many images that is worth the work."""

Rows = NDArray[np.intp]

_CALIBRATION_FOLDS = 3
_GROUPS_A_STRATUM = 2
_NORMAL_95 = 1.96


@dataclass(frozen=True)
class CurvePoint:
    """What heads fitted on a share of the rows say of rows that they were not fitted on.

    Attributes
    ----------
    attribute : str
    share : float
        Of the rows of each fold's training part, in (0, 1].
    n_train : int
        Mean number of images labelled for the attribute that a head was fitted on.
    accuracy, log_loss : float
        Mean over the draws.
    accuracy_spread, log_loss_spread : float
        Standard deviation over the draws.
    """

    attribute: str
    share: float
    n_train: int
    accuracy: float
    accuracy_spread: float
    log_loss: float
    log_loss_spread: float


@dataclass(frozen=True)
class Doubling:
    """What the last doubling of the training images gained.

    Attributes
    ----------
    attribute : str
    n_half, n_train : int
        Images that heads were fitted on.
    accuracy : float
        Of heads fitted on `n_train` images.
    gain : float
        Accuracy gained from `n_half` to `n_train` images, over the same images.
    margin : float
        Half the width of the gain's 95 % interval, over images (or groups) and draws.
    """

    attribute: str
    n_half: int
    n_train: int
    accuracy: float
    gain: float
    margin: float

    @property
    def verdict(self) -> str:
        """Whether more images would help.

        They would if the gain is at least `WORTHWHILE_GAIN` and its interval lies above 0;
        little if the interval lies below `WORTHWHILE_GAIN`. The next doubling seldom gains
        more than the last: errors fall about as a power of the number of images.
        """
        if self.gain >= WORTHWHILE_GAIN and self.gain > self.margin:
            return "more images would help"
        if self.gain + self.margin < WORTHWHILE_GAIN:
            return "more images would help little"
        return "that does not tell whether more images would help"

    def in_words(self) -> str:
        """One sentence for a person."""
        return (
            f"{self.attribute}: {self.accuracy:.3f} on {self.n_train:,} images; doubling from "
            f"{self.n_half:,} gained {self.gain:.3f} ± {self.margin:.3f}: {self.verdict}."
        )


@dataclass(frozen=True)
class _Answers:
    """How good each row's answers were: of shape (n_draws, n_labelled)."""

    groups: Rows
    n_train: list[float]
    right: NDArray[np.float64]
    losses: NDArray[np.float64]


def learning_curve(
    X: NDArray[np.floating],
    labels: dict[str, Labels],
    groups: Rows,
    settings: HeadSettings,
    *,
    columns: Mapping[str, Columns] | None = None,
    n_jobs: int = -1,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[list[CurvePoint], list[Doubling]]:
    """Fit heads on `SHARES` of the training rows, and measure them out of fold.

    `N_DRAWS` times the rows are divided into inner folds. Of the rows that a fold trains
    on, whole groups are drawn, in proportion for each set of classes and each share within
    the next larger one, but at least two groups of each set; the rows that it holds out
    stay. A class with a single image at some share is not learnt there. Heads are
    calibrated by at most 3 folds of what they are fitted on, which saves two fifths of
    the time.

    Parameters
    ----------
    X, labels, groups, settings, columns, n_jobs
        As in `featurepipe.models.heads.fitting.fit_heads`.
    progress : callable, optional
        Called with the numbers of heads fitted so far and in all.

    Returns
    -------
    points : list of CurvePoint
        By attribute, then by share.
    doublings : list of Doubling
        One for each attribute.

    Raises
    ------
    FitError
        If the smallest share is too small to be fitted.
    """
    strata = _strata(labels, settings.n_folds)
    scores: dict[tuple[float, int], dict[str, NDArray[np.float64]]] = {}
    n_train: dict[tuple[float, int], list[dict[str, int]]] = {}
    inner = replace(settings, n_folds=min(settings.n_folds, _CALIBRATION_FOLDS))
    jobs = [
        (draw, share, *fold)
        for draw in range(N_DRAWS)
        for fold in inner_folds(strata, groups, settings.n_folds, settings.seed + draw)
        for share in SHARES
    ]
    for n_done, (draw, share, training, validation) in enumerate(jobs, start=1):
        rows = training[draw_share(strata[training], groups[training], share, settings.seed + draw)]
        known = learnable({name: each.take(rows) for name, each in labels.items()}, settings.task)
        model = fit_heads(X[rows], known, groups[rows], inner, columns=columns, n_jobs=n_jobs).model
        of_draw = scores.setdefault((share, draw), _no_scores(labels))
        for name, probabilities in model.predict(X[validation]).items():
            of_draw[name][validation] = probabilities
        n_train.setdefault((share, draw), []).append(
            {name: int(each.labelled.sum()) for name, each in known.items()}
        )
        if progress is not None:
            progress(n_done, len(jobs))
    answers = {
        (name, share): _answers(name, share, labels, groups, settings.task, scores, n_train)
        for name in labels
        for share in SHARES
    }
    points = [_point(name, share, each) for (name, share), each in answers.items()]
    doublings = [_doubling(name, answers[name, 0.5], answers[name, 1.0]) for name in labels]
    return points, doublings


def draw_share(strata: Rows, groups: Rows, share: float, seed: int) -> Rows:
    """Rows of whole groups, in proportion for each stratum.

    Parameters
    ----------
    strata, groups : ndarray of shape (n_rows,), intp
        A group is of the stratum of its first row.
    share : float
        Of each stratum's groups, in (0, 1]; but at least two of them.
    seed : int
        The same seed gives rows of which a smaller share's are a part.

    Returns
    -------
    ndarray of intp, ascending
    """
    names, firsts = np.unique(groups, return_index=True)
    of_group = strata[firsts]
    order = np.random.default_rng(seed).permutation(len(names))
    drawn: list[Rows] = []
    for stratum in np.unique(of_group):
        own = order[of_group[order] == stratum]
        drawn.append(names[own[: max(_GROUPS_A_STRATUM, round(share * len(own)))]])
    return np.flatnonzero(np.isin(groups, np.concatenate(drawn)))


def learnable(labels: Mapping[str, Labels], task: str) -> dict[str, Labels]:
    """The same labels without images whose class has no other image.

    Parameters
    ----------
    labels : mapping of str to Labels
    task : {"per-attribute", "multi-label", "joint"}
        In the joint task a combination of classes counts as a class.
    """
    if task == "per-attribute":
        return {name: _unlabelled(each, _kept(each.indicator)) for name, each in labels.items()}
    classes = np.hstack([each.indicator for each in labels.values()])
    if task == "joint":
        _, of_row = np.unique(classes, axis=0, return_inverse=True)
        combinations = of_row.reshape(-1, 1) == np.arange(of_row.max(initial=0) + 1)
        classes = np.hstack([classes, combinations])
    kept = _kept(classes)
    return {name: _unlabelled(each, kept) for name, each in labels.items()}


def _kept(classes: NDArray[np.bool_]) -> NDArray[np.bool_]:
    kept = np.ones(len(classes), dtype=bool)
    while (lone := classes[kept].sum(axis=0) == 1).any():
        kept &= ~classes[:, lone].any(axis=1)
    return kept


def _unlabelled(labels: Labels, kept: NDArray[np.bool_]) -> Labels:
    return replace(
        labels, indicator=labels.indicator & kept[:, None], labelled=labels.labelled & kept
    )


def _strata(labels: Mapping[str, Labels], n_folds: int) -> Rows:
    classes = np.hstack([np.column_stack([e.indicator, e.labelled]) for e in labels.values()])
    _, sets, counts = np.unique(classes, axis=0, return_inverse=True, return_counts=True)
    sets = sets.reshape(-1)
    # Sets too rare to be in every fold are spread as one.
    return np.where(counts[sets] < n_folds, len(counts), sets)


def _no_scores(labels: Mapping[str, Labels]) -> dict[str, NDArray[np.float64]]:
    return {name: np.zeros(each.indicator.shape) for name, each in labels.items()}


def _answers(
    name: str,
    share: float,
    labels: Mapping[str, Labels],
    groups: Rows,
    task: str,
    scores: Mapping[tuple[float, int], dict[str, NDArray[np.float64]]],
    n_train: Mapping[tuple[float, int], Sequence[Mapping[str, int]]],
) -> _Answers:
    rows = np.flatnonzero(labels[name].labelled)
    truth = labels[name].take(rows)
    right, losses = [], []
    for draw in range(N_DRAWS):
        said = Predictions(
            ids=rows.astype(np.str_),
            parts=np.full(len(rows), "train"),
            groups=groups[rows],
            task=task,
            labels={name: truth},
            scores={name: scores[share, draw][name][rows]},
        )
        right.append(said.correct(name))
        losses.append(_losses(truth, said.probabilities(name)))
    fitted_on = [of_fold[name] for draw in range(N_DRAWS) for of_fold in n_train[share, draw]]
    return _Answers(
        groups[rows], [float(n) for n in fitted_on], np.array(right, float), np.array(losses)
    )


def _losses(truth: Labels, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    if truth.exclusive:
        return metrics.log_losses(truth.codes, probabilities)
    return metrics.label_set_log_losses(truth.indicator, probabilities)


def _point(name: str, share: float, answers: _Answers) -> CurvePoint:
    accuracies, losses = answers.right.mean(axis=1), answers.losses.mean(axis=1)
    return CurvePoint(
        attribute=name,
        share=share,
        n_train=round(np.mean(answers.n_train)),
        accuracy=float(accuracies.mean()),
        accuracy_spread=float(accuracies.std(ddof=1)),
        log_loss=float(losses.mean()),
        log_loss_spread=float(losses.std(ddof=1)),
    )


def _doubling(name: str, half: _Answers, whole: _Answers) -> Doubling:
    gains = whole.right - half.right
    variance = _variance_of_mean(gains.mean(axis=0), half.groups)
    variance += gains.mean(axis=1).var(ddof=1) / len(gains)
    return Doubling(
        attribute=name,
        n_half=round(np.mean(half.n_train)),
        n_train=round(np.mean(whole.n_train)),
        accuracy=float(whole.right.mean()),
        gain=float(gains.mean()),
        margin=float(_NORMAL_95 * np.sqrt(variance)),
    )


def _variance_of_mean(values: NDArray[np.float64], groups: Rows) -> float:
    """Of independent groups: the sum of their squared sums of residuals over n squared."""
    _, of_row = np.unique(groups, return_inverse=True)
    sums = np.bincount(of_row.reshape(-1), weights=values - values.mean())
    return float((sums**2).sum() / len(values) ** 2)
