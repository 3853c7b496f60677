"""What is learnt from the rows that inner folds hold out: calibration, thresholds, rejection."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import FitError, UsageError
from featurepipe.manifest import Labels
from featurepipe.models.answers.calibration import Calibrator, calibration_for, fit_calibrator
from featurepipe.models.answers.head_model import Features, Head, HeadModel, Probabilities, Rows
from featurepipe.models.answers.questions import Question
from featurepipe.models.answers.rejection import Rejector, fit_rejector
from featurepipe.models.answers.thresholds import USUAL, fit_thresholds, parse_aim

logger = logging.getLogger(__name__)


class FinishSettings(Protocol):
    """What `finish_heads` needs of the settings of heads or of a network."""

    @property
    def task(self) -> str:
        """What the heads answer; see `featurepipe.models.answers.head_model.HeadModel`."""

    @property
    def calibrate(self) -> str:
        """How scores become probabilities."""

    @property
    def thresholds(self) -> str | None:
        """What the thresholds of labels are chosen for."""

    @property
    def seed(self) -> int:
        """Of what is drawn."""


class FittedHeads(NamedTuple):
    """What fitting gives.

    Attributes
    ----------
    model : HeadModel
    out_of_fold : dict of str to ndarray of shape (n_train, n_classes), float64
        Raw probabilities of the training rows by heads, and calibrated by
        curves, that were fitted without them; rows that were left out are
        predicted by the final heads, which never saw them either.
    uncalibrated : dict of str to ndarray of shape (n_train, n_classes), float64
        The same by the heads alone.
    """

    model: HeadModel
    out_of_fold: dict[str, Probabilities]
    uncalibrated: dict[str, Probabilities]


@dataclass(frozen=True)
class HeldOut:
    """What the head of one fold says of the rows that it was not fitted on.

    `own` are the probabilities of the estimator itself.
    """

    rows: Rows
    head: Head
    own: Probabilities
    scores: NDArray[np.float64]


def finish_heads(
    questions: Sequence[Question],
    heads: dict[str, Head],
    held_out: Mapping[str, Sequence[HeldOut]],
    combinations: Rows,
    labels: dict[str, Labels],
    groups: NDArray[np.intp],
    settings: FinishSettings,
    *,
    predict_rows: Callable[[Head, Rows], Probabilities],
    read_rows: Callable[[Rows], Features],
    most_rows: int,
) -> FittedHeads:
    """Everything that is learnt from what folds hold out: calibration, thresholds, rejection.

    Parameters
    ----------
    questions, heads, held_out, combinations
        What was fitted.
    labels, groups, settings
        As in `fit_heads`.
    predict_rows : callable
        Probabilities of some training rows by a head.
    read_rows : callable
        Features of some training rows.
    most_rows : int
        So many may be read at once.

    Returns
    -------
    FittedHeads
    """
    heads, out_of_fold, uncalibrated = dict(heads), {}, {}
    for question in questions:
        name, folds = question.name, held_out[question.name]
        own = partial(predict_rows, heads[name])
        uncalibrated[name] = _unseen_probabilities(len(groups), own, question, folds, "none")
        method = calibration_for(settings.calibrate, exclusive=question.exclusive)
        if method != "none":
            heads[name] = _calibrated(heads[name], question, folds, method)
        calibrated = partial(predict_rows, heads[name])
        out_of_fold[name] = _unseen_probabilities(len(groups), calibrated, question, folds, method)
    model = HeadModel(
        settings.task,
        {name: of_attribute.classes for name, of_attribute in labels.items()},
        {name: of_attribute.exclusive for name, of_attribute in labels.items()},
        heads,
        combinations,
    )
    found = model.by_attribute(out_of_fold)
    model = replace(model, thresholds=_fit_thresholds(found, labels, settings))
    rejectors = {
        name: _fit_rejector(name, model, found[name], each, groups, settings, read_rows, most_rows)
        for name, each in labels.items()
    }
    return FittedHeads(replace(model, rejectors=rejectors), found, model.by_attribute(uncalibrated))


def attributes_with_thresholds(labels: Mapping[str, Labels], settings: FinishSettings) -> list[str]:
    """The attributes whose labels are given one by one, each above its own threshold.

    Parameters
    ----------
    labels : mapping of str to Labels
    settings : FinishSettings

    Raises
    ------
    UsageError
        If there is none, and the settings ask for thresholds.
    """
    names = [
        name
        for name, each in labels.items()
        if settings.task == "multi-label" or not each.exclusive
    ]
    if settings.thresholds is not None and not names:
        raise UsageError(
            f"--thresholds {settings.thresholds} is for labels that are given one by one, and "
            "every attribute has exactly one class an image. Leave it out, or set --task "
            "multi-label."
        )
    return names


def _fit_thresholds(
    out_of_fold: dict[str, Probabilities], labels: dict[str, Labels], settings: FinishSettings
) -> dict[str, Probabilities]:
    thresholds = {name: np.full(len(each.classes), USUAL) for name, each in labels.items()}
    if settings.thresholds is None:
        return thresholds
    for name in attributes_with_thresholds(labels, settings):
        each = labels[name]
        rows = each.labelled
        thresholds[name], reached = fit_thresholds(
            out_of_fold[name][rows], each.indicator[rows], parse_aim(settings.thresholds)
        )
        if not reached.all():
            missed = [each.classes[k] for k in np.flatnonzero(~reached)]
            logger.warning(
                "%s: no threshold reaches %s for %s; the nearest is taken.",
                name,
                settings.thresholds,
                ", ".join(missed),
            )
    return thresholds


def _fit_rejector(
    attribute: str,
    model: HeadModel,
    out_of_fold: Probabilities,
    labels: Labels,
    groups: NDArray[np.intp],
    settings: FinishSettings,
    read_rows: Callable[[Rows], Features],
    most_rows: int,
) -> Rejector:
    rows, head = np.flatnonzero(labels.labelled), model.head_of(attribute)
    if len(rows) > most_rows:
        drawn = np.random.default_rng(settings.seed).choice(rows, most_rows, replace=False)
        rows = np.sort(drawn)
    return fit_rejector(
        head.read(read_rows(rows)),
        labels.indicator[rows],
        groups[rows],
        model.confidence(attribute, out_of_fold[rows]),
        widths=[end - start for start, end in head.columns],
        seed=settings.seed,
    )


def _calibrated(head: Head, question: Question, held_out: Sequence[HeldOut], method: str) -> Head:
    calibrator = _fit_on_held_out(question, held_out, head.learnt, method)
    return replace(head, calibrator=calibrator)


def _unseen_probabilities(
    n_rows: int,
    predict_rows: Callable[[Rows], Probabilities],
    question: Question,
    held_out: Sequence[HeldOut],
    method: str,
) -> Probabilities:
    """Probabilities of every row, each by what was fitted without it."""
    probabilities = np.empty((n_rows, question.truth.shape[1]))
    left_out = np.setdiff1d(np.arange(n_rows), question.rows)
    probabilities[left_out] = predict_rows(left_out)
    for fold in held_out:
        others = [other for other in held_out if other is not fold]
        probabilities[question.rows[fold.rows]] = _fold_probabilities(
            question, fold, others, method
        )
    return probabilities


def _fold_probabilities(
    question: Question, fold: HeldOut, others: Sequence[HeldOut], method: str
) -> Probabilities:
    if method == "none":
        return fold.own
    probabilities = np.tile(fold.head.constant, (len(fold.rows), 1))
    if len(learnt := fold.head.learnt):
        calibrator = _fit_on_held_out(question, others, learnt, method)
        probabilities[:, learnt] = calibrator.predict_proba(fold.scores[:, learnt])
    return probabilities


def _fit_on_held_out(
    question: Question, held_out: Sequence[HeldOut], columns: Rows, method: str
) -> Calibrator:
    scores = np.concatenate([fold.scores for fold in held_out])[:, columns]
    truth = question.truth[np.concatenate([fold.rows for fold in held_out])][:, columns]
    # A score for a class that the fold's head had never seen says nothing of
    # the final head, which has seen it.
    is_usable = ~(np.isnan(scores) & truth).any(axis=1)
    if question.exclusive:
        is_usable &= truth.any(axis=1)
    scores, truth = scores[is_usable], truth[is_usable]
    if np.isnan(scores).all():
        raise FitError(
            f"The head of {question.name!r} cannot be calibrated: each class's training images "
            "are of one group (identical, or alike in the group column), so that none can be held "
            "out. Expected classes of two groups or more; add images, or set --calibrate none."
        )
    # Classes that a fold's head did not know never win there.
    scores = np.where(np.isnan(scores), np.nanmin(scores), scores)
    return fit_calibrator(method, scores, truth, exclusive=question.exclusive)
