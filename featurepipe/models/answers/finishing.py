"""What is learnt from held-out rows: calibration, thresholds, rejection."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import FitError, UsageError
from featurepipe.manifest import Labels
from featurepipe.models.answers.arrays import Features, Probabilities, Rows, widths_of
from featurepipe.models.answers.calibration import Calibrator, calibration_for, fit_calibrator
from featurepipe.models.answers.head import Head, KnownClasses
from featurepipe.models.answers.head_model import HeadModel
from featurepipe.models.answers.questions import Question, Questions
from featurepipe.models.answers.rejection import Rejector, fit_rejector, mean_group_size
from featurepipe.models.answers.row_chunks import RowChunks
from featurepipe.models.answers.thresholds import fit_thresholds, parse_aim
from featurepipe.predictions import Task
from featurepipe.probabilities import usual_thresholds

logger = logging.getLogger(__name__)

# Calibrated at once.
_ROWS_AT_ONCE = 4096


class FinishSettings(Protocol):
    """What `finish_heads` needs of the settings of heads or of a network."""

    @property
    def calibrate(self) -> str:
        """How scores become probabilities."""

    @property
    def thresholds(self) -> str | None:
        """Aim of the thresholds of labels."""

    @property
    def seed(self) -> int:
        """Seed of the rejectors' banks."""


class FittedHeads(NamedTuple):
    """The heads of a run, and what they predict for training rows.

    Attributes
    ----------
    model : HeadModel
    out_of_fold : dict of str to ndarray of shape (n_train, n_classes)
        Raw probabilities of the training rows, by heads and calibration curves fitted
        without them. Rows that were left out are predicted by the final heads, which were
        fitted without them too.
    uncalibrated : dict of str to ndarray of shape (n_train, n_classes)
        The same by uncalibrated heads.
    """

    model: HeadModel
    out_of_fold: dict[str, Probabilities]
    uncalibrated: dict[str, Probabilities]


@dataclass(frozen=True)
class HeldOut:
    """Predictions of one fold's head for the rows that it was not fitted on.

    Attributes
    ----------
    rows : ndarray of shape (n_held_out,), intp
        Positions among the question's rows.
    known : KnownClasses
        Known from the rows that the head was fitted on.
    uncalibrated : ndarray of shape (n_held_out, n_classes)
        Probabilities; float64, or float32 where features are read in chunks.
    scores : ndarray of shape (n_held_out, n_classes)
        Decision scores of the same type; NaN for classes that were not learnt.
    """

    rows: Rows
    known: KnownClasses
    uncalibrated: Features
    scores: Features


@dataclass(frozen=True)
class HeadFits:
    """Fitted heads before calibration, and what the heads of the folds predict.

    Attributes
    ----------
    heads : dict of str to Head
        By the name of their question, fitted on all its rows.
    held_out : dict of str to list of HeldOut
        One for each fold.
    """

    heads: dict[str, Head]
    held_out: dict[str, list[HeldOut]]


def finish_heads(
    questions: Questions, fits: HeadFits, rows: RowChunks, settings: FinishSettings
) -> FittedHeads:
    """Learn everything that is learnt from held-out rows: calibration, thresholds, rejection.

    Parameters
    ----------
    questions : Questions
    fits : HeadFits
        What the heads of the folds predict is removed from it, since it fills the memory.
    rows : RowChunks
        Features of the training rows.
    settings : FinishSettings

    Returns
    -------
    FittedHeads

    Raises
    ------
    FitError
        If a head cannot be calibrated, since no class can be held out.
    UsageError
        If thresholds are requested, and no attribute has sets of labels.
    """
    n_rows = len(questions.groups)
    heads, out_of_fold, uncalibrated = dict(fits.heads), {}, {}
    for question in questions.questions:
        name, folds = question.name, fits.held_out[question.name]
        left_out = np.setdiff1d(np.arange(n_rows), question.rows)
        probabilities: NDArray[Any] = np.empty(
            (n_rows, question.truth.shape[1]), folds[0].scores.dtype
        )
        probabilities[left_out] = rows.predict_proba(heads[name], left_out)
        for k, fold in enumerate(folds):
            probabilities[question.rows[fold.rows]] = fold.uncalibrated
            folds[k] = replace(fold, uncalibrated=np.empty((0, 0)))
        uncalibrated[name] = out_of_fold[name] = probabilities
        method = calibration_for(settings.calibrate, exclusive=question.exclusive)
        if method == "none":
            continue
        most = rows.rows_of_answers(question.truth.shape[1])
        sample = _OfFolds(question, folds, method, most, settings.seed)
        calibrator = sample.fit(heads[name].known.learnt)
        curves = [sample.fit(fold.known.learnt, fold) for fold in folds]
        heads[name] = replace(heads[name], calibrator=calibrator)
        probabilities = out_of_fold[name] = probabilities.copy()
        probabilities[left_out] = rows.predict_proba(heads[name], left_out)
        for k, fold in enumerate(folds):
            own = curves[k]
            if own is not None:
                _calibrate(probabilities, question.rows[fold.rows], fold, own)
            folds[k] = replace(fold, scores=np.empty((0, 0)))
    labels = questions.labels
    model = HeadModel(
        questions.task,
        {name: truth.classes for name, truth in labels.items()},
        {name: truth.exclusive for name, truth in labels.items()},
        heads,
        questions.combinations,
    )
    scores = model.by_attribute(out_of_fold)
    model = replace(model, thresholds=_choose_thresholds(scores, questions, settings))
    model = _with_rejectors(model, scores, questions, rows, settings.seed)
    return FittedHeads(model, scores, model.by_attribute(uncalibrated))


def attributes_with_thresholds(
    labels: Mapping[str, Labels], task: str, thresholds: str | None
) -> list[str]:
    """The attributes whose labels are given one by one, each above its own threshold.

    Parameters
    ----------
    labels : mapping of str to Labels
    task : str
        A `Task` or its value.
    thresholds : str or None
        Aim of the thresholds.

    Raises
    ------
    UsageError
        If thresholds are wanted and there is no such attribute.
    """
    names = [
        name for name, truth in labels.items() if task == Task.MULTI_LABEL or not truth.exclusive
    ]
    if thresholds is not None and not names:
        raise UsageError(
            f"--thresholds {thresholds} only applies to sets of labels, and every image has "
            "exactly one class of each attribute. Omit it, or use --task multi-label."
        )
    return names


def _choose_thresholds(
    out_of_fold: Mapping[str, Probabilities], questions: Questions, settings: FinishSettings
) -> dict[str, Probabilities]:
    labels = questions.labels
    thresholds = usual_thresholds(labels)
    if settings.thresholds is None:
        return thresholds
    for name in attributes_with_thresholds(labels, questions.task, settings.thresholds):
        thresholds[name] = _aimed_thresholds(name, out_of_fold[name], labels[name], settings)
    return thresholds


def _aimed_thresholds(
    attribute: str, out_of_fold: Probabilities, labels: Labels, settings: FinishSettings
) -> Probabilities:
    assert settings.thresholds is not None
    rows = labels.labelled
    thresholds, reached = fit_thresholds(
        out_of_fold[rows], labels.indicator[rows], parse_aim(settings.thresholds)
    )
    if not reached.all():
        logger.warning(
            "%s: no threshold reaches %s for %s. Using the closest one.",
            attribute,
            settings.thresholds,
            ", ".join(labels.classes[k] for k in np.flatnonzero(~reached)),
        )
    return thresholds


def _with_rejectors(
    model: HeadModel,
    out_of_fold: Mapping[str, Probabilities],
    questions: Questions,
    rows: RowChunks,
    seed: int,
) -> HeadModel:
    """The model with a rejector for each attribute, and the lowest p-values of rows.

    These rows are drawn from all, labelled or not, as new images will be.
    """
    n_rows = len(questions.groups)
    # The rows that a rejector learns from, and those with p-values, may be others.
    n_drawn = n_rows if n_rows <= rows.chunk_rows else max(rows.chunk_rows // 2, 1)
    judged = _draw(np.arange(n_rows), n_drawn, seed)
    rejectors: dict[str, Rejector] = {}
    lowest = np.ones(len(judged))
    for name, labels in questions.labels.items():
        learnt = _draw(np.flatnonzero(labels.labelled), n_drawn, seed)
        both, head = np.union1d(judged, learnt), model.head_for(name)
        rejectors[name], p_values = fit_rejector(
            head.select(rows.reader.read(both)),
            labels.indicator[both],
            questions.groups[both],
            model.confidence(name, out_of_fold[name][both]),
            labelled=np.isin(both, learnt),
            widths=widths_of(head.columns),
            seed=seed,
        )
        lowest = np.minimum(lowest, p_values[np.isin(both, judged)])
    return replace(
        model,
        rejectors=rejectors,
        lowest_p_values=np.sort(lowest),
        group_size=mean_group_size(questions.groups[judged]),
    )


def _draw(rows: Rows, n_most: int, seed: int) -> Rows:
    """Some of the rows at random, or all, ascending."""
    if len(rows) <= n_most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, n_most, replace=False))


def _calibrate(
    probabilities: Probabilities, places: Rows, fold: HeldOut, calibrator: Calibrator
) -> None:
    """Write the calibrated probabilities of a fold's rows, some rows at a time."""
    for start in range(0, len(places), _ROWS_AT_ONCE):
        at = slice(start, start + _ROWS_AT_ONCE)
        scores = fold.scores[at, fold.known.learnt].astype(np.float64)
        probabilities[places[at]] = fold.known.all_probabilities(calibrator.predict_proba(scores))


@dataclass(frozen=True)
class _OfFolds:
    """Fits curves on what heads of folds say of rows that they were not fitted on."""

    question: Question
    folds: Sequence[HeldOut]
    method: str
    most: int
    seed: int

    def fit(self, columns: Rows, own: HeldOut | None = None) -> Calibrator | None:
        """Fit on all folds but one's own; None without columns to fit a curve of."""
        if not len(columns) and own is not None:
            return None
        question = self.question
        folds = [fold for fold in self.folds if fold is not own]
        # A single number of all classes needs no more rows than these.
        n_rows = sum(len(fold.rows) for fold in folds)
        is_one = self.method == "temperature" and question.exclusive
        chosen = _draw(np.arange(n_rows), self.most if is_one else n_rows, self.seed)
        ends = np.cumsum([0, *(len(fold.rows) for fold in folds)])
        parts = [
            chosen[np.searchsorted(chosen, start) : np.searchsorted(chosen, end)] - start
            for start, end in pairwise(ends)
        ]
        scores = np.concatenate(
            [fold.scores[part] for fold, part in zip(folds, parts, strict=True)]
        )[:, columns].astype(np.float64)
        rows = np.concatenate([fold.rows[part] for fold, part in zip(folds, parts, strict=True)])
        truth = question.truth[rows][:, columns]
        # A score for a class that the fold's head did not learn says nothing about the final
        # head, which did learn it.
        is_usable = ~(np.isnan(scores) & truth).any(axis=1)
        if question.exclusive:
            is_usable &= truth.any(axis=1)
        scores, truth = scores[is_usable], truth[is_usable]
        if np.isnan(scores).all():
            raise FitError(
                f"The head of {question.name!r} cannot be calibrated: the training images of each "
                "class are all in one group (identical, or equal in the group column), so none "
                "can be held out. Add images, or set --calibrate none."
            )
        # Classes that a fold's head did not learn never win there.
        scores = np.where(np.isnan(scores), np.nanmin(scores), scores)
        return fit_calibrator(self.method, scores, truth, exclusive=question.exclusive)
