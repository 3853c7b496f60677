"""Learning curve: heads fitted on growing shares of the training rows."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from featurepipe.cluster.spreading import call_each
from featurepipe.manifest import Labels
from featurepipe.models.answers.arrays import Columns, Features, Rows
from featurepipe.models.heads.fitting import Advance, fit_heads
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.studies.grouped_variance import variance_of_mean
from featurepipe.models.studies.thinning import draw_share, label_strata, learnable
from featurepipe.predictions import Predictions, Task
from featurepipe.splits import inner_folds

SHARES = (0.125, 0.25, 0.5, 1.0)
N_DRAWS = 3
WORTHWHILE_GAIN = 0.01
"""Gain in accuracy from twice as many images that is worth the work."""

_CALIBRATION_FOLDS = 3
_NORMAL_95 = 1.96


@dataclass(frozen=True)
class CurvePoint:
    """How good heads fitted on a share of the rows are on rows that they were not fitted on.

    Attributes
    ----------
    attribute : str
    share : float
        Share of the rows of each fold's training part, in (0, 1].
    n_train : int
        Mean number of images labelled for the attribute that a head was fitted on.
    accuracy, log_loss : float
        Means over the draws.
    accuracy_spread, log_loss_spread : float
        Standard deviations over the draws.
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
        Number of images that heads were fitted on.
    accuracy : float
        Accuracy with `n_train` images.
    gain : float
        Accuracy gained from `n_half` to `n_train` images, measured on the same images.
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

        They would if the gain is at least `WORTHWHILE_GAIN` and its interval lies above 0.
        They would help little if the interval lies below `WORTHWHILE_GAIN`. The next doubling
        rarely gains more than the last: errors fall about as a power of the number of images.
        """
        if self.gain >= WORTHWHILE_GAIN and self.gain > self.margin:
            return "more images would help"
        if self.gain + self.margin < WORTHWHILE_GAIN:
            return "more images would help little"
        return "too uncertain to say whether more images would help"

    def in_words(self) -> str:
        """Describe it in a sentence."""
        return (
            f"{self.attribute}: {self.accuracy:.3f} on {self.n_train:,} images; doubling from "
            f"{self.n_half:,} gained {self.gain:.3f} ± {self.margin:.3f}: {self.verdict}."
        )


@dataclass(frozen=True)
class _ShareFits:
    """What heads fitted on one share predict.

    `scores` has arrays of shape (n_draws, n_rows, n_classes); `n_train` has the number of images
    that each head was fitted on.
    """

    scores: dict[str, NDArray[np.float64]]
    n_train: dict[str, list[int]]

    @classmethod
    def of_nothing(cls, labels: Mapping[str, Labels]) -> Self:
        shapes = {name: (N_DRAWS, *truth.indicator.shape) for name, truth in labels.items()}
        return cls(
            {name: np.zeros(shape) for name, shape in shapes.items()}, {name: [] for name in shapes}
        )


@dataclass(frozen=True)
class _FitsOfShares:
    """What the fits on all shares have in common."""

    X: Features
    labels: dict[str, Labels]
    groups: Rows
    settings: HeadSettings
    columns: Mapping[str, Columns] | None
    n_jobs: int
    strata: Rows


@dataclass(frozen=True)
class _Judged:
    """How good each prediction is: `right` and `losses` have the shape (n_draws, n_labelled)."""

    groups: Rows
    n_train: float
    right: NDArray[np.float64]
    losses: NDArray[np.float64]


def learning_curve(
    X: Features,
    labels: dict[str, Labels],
    groups: Rows,
    settings: HeadSettings,
    *,
    columns: Mapping[str, Columns] | None = None,
    n_jobs: int = -1,
    progress: Advance | None = None,
) -> tuple[list[CurvePoint], list[Doubling]]:
    """Fit heads on `SHARES` of the training rows, and measure them out of fold.

    The rows are divided into inner folds `N_DRAWS` times. From the training part of each fold
    whole groups are drawn, in proportion for each set of classes, at least two groups of each
    set; smaller shares are parts of larger ones. The held-out rows stay the same. A class with
    a single image at some share is not learnt there. Heads are calibrated with at most 3 folds,
    which saves two fifths of the time.

    Parameters
    ----------
    X, labels, groups, settings, columns, n_jobs
        See `featurepipe.models.heads.fitting.fit_heads`.
    progress : callable, optional
        Called with the number of heads fitted and of all heads.

    Returns
    -------
    points : list of CurvePoint
        By attribute, then by share.
    doublings : list of Doubling
        One for each attribute.

    Raises
    ------
    FitError
        If heads cannot be fitted on the smallest share.
    """
    fits = _fit_shares(X, labels, groups, settings, columns, n_jobs, progress)
    judged = {
        (name, share): _judge(name, labels, groups, settings.task, fits[share])
        for name in labels
        for share in SHARES
    }
    points = [_point(name, share, of_share) for (name, share), of_share in judged.items()]
    doublings = [_doubling(name, judged[name, 0.5], judged[name, 1.0]) for name in labels]
    return points, doublings


def _fit_shares(
    X: Features,
    labels: dict[str, Labels],
    groups: Rows,
    settings: HeadSettings,
    columns: Mapping[str, Columns] | None,
    n_jobs: int,
    progress: Advance | None,
) -> dict[float, _ShareFits]:
    """Fit heads on each share of each fold of each draw, and predict the rows held out."""
    strata = label_strata(labels, settings.n_folds)
    fits = {share: _ShareFits.of_nothing(labels) for share in SHARES}
    shared = _FitsOfShares(X, labels, groups, settings, columns, n_jobs, strata)
    jobs = [
        (draw, share, *fold)
        for draw in range(N_DRAWS)
        for fold in inner_folds(strata, groups, settings.n_folds, settings.seed + draw)
        for share in SHARES
    ]
    answers = call_each(_fit_share, shared, jobs, progress=progress)
    for (draw, share, _, validation), of_fit in zip(jobs, answers, strict=True):
        for name, (probabilities, n_train) in of_fit.items():
            fits[share].scores[name][draw, validation] = probabilities
            fits[share].n_train[name].append(n_train)
    return fits


def _fit_share(
    given: _FitsOfShares, job: tuple[int, float, Rows, Rows]
) -> dict[str, tuple[NDArray[np.float64], int]]:
    """Probabilities of the rows that a fold holds out, and how many rows were fitted on."""
    draw, share, training, validation = job
    strata, groups, settings = given.strata, given.groups, given.settings
    rows = training[draw_share(strata[training], groups[training], share, settings.seed + draw)]
    drawn = {name: truth.take(rows) for name, truth in given.labels.items()}
    known = learnable(drawn, settings.task)
    model = fit_heads(
        given.X[rows],
        known,
        groups[rows],
        replace(settings, n_folds=min(settings.n_folds, _CALIBRATION_FOLDS)),
        columns=given.columns,
        n_jobs=given.n_jobs,
    ).model
    return {
        name: (probabilities, int(known[name].labelled.sum()))
        for name, probabilities in model.predict(given.X[validation]).items()
    }


def _judge(
    name: str, labels: Mapping[str, Labels], groups: Rows, task: Task, fits: _ShareFits
) -> _Judged:
    rows = np.flatnonzero(labels[name].labelled)
    right, losses = [], []
    for scores in fits.scores[name]:
        predictions = Predictions.of(
            ids=rows.astype(np.str_),
            parts=np.full(len(rows), "train"),
            groups=groups[rows],
            task=task,
            labels={name: labels[name].take(rows)},
            scores={name: scores[rows]},
        )
        right.append(predictions.correct(name))
        losses.append(predictions.log_losses(name))
    n_train = float(np.mean(fits.n_train[name]))
    return _Judged(groups[rows], n_train, np.array(right, float), np.array(losses))


def _point(name: str, share: float, judged: _Judged) -> CurvePoint:
    accuracies, losses = judged.right.mean(axis=1), judged.losses.mean(axis=1)
    return CurvePoint(
        attribute=name,
        share=share,
        n_train=round(judged.n_train),
        accuracy=float(accuracies.mean()),
        accuracy_spread=float(accuracies.std(ddof=1)),
        log_loss=float(losses.mean()),
        log_loss_spread=float(losses.std(ddof=1)),
    )


def _doubling(name: str, half: _Judged, whole: _Judged) -> Doubling:
    gains = whole.right - half.right
    variance = variance_of_mean(gains.mean(axis=0), half.groups)
    variance += gains.mean(axis=1).var(ddof=1) / len(gains)
    return Doubling(
        attribute=name,
        n_half=round(half.n_train),
        n_train=round(whole.n_train),
        accuracy=float(whole.right.mean()),
        gain=float(gains.mean()),
        margin=float(_NORMAL_95 * np.sqrt(variance)),
    )
