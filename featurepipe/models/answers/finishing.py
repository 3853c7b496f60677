"""What is learnt from held-out rows: calibration, thresholds, rejection."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import FitError, UsageError
from featurepipe.manifest import Labels
from featurepipe.models.answers.arrays import Features, Probabilities, Rows, Scores, widths_of
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
class Fold:
    """The rows that the head of a fold was not fitted on.

    Attributes
    ----------
    rows : ndarray of shape (n_held_out,), intp
        Positions among the question's rows.
    known : KnownClasses
        Known from the rows that the head was fitted on.
    """

    rows: Rows
    known: KnownClasses


@dataclass(frozen=True)
class HeldOut:
    """Predictions for a question's rows, each by the head of the fold that holds it out.

    Attributes
    ----------
    folds : list of Fold
    uncalibrated : ndarray of shape (n_train, n_classes)
        Probabilities; float64, or float32 where features are read in chunks. Rows that no fold
        holds out mean nothing.
    scores : ndarray of shape (n_train, n_classes)
        Decision scores of the same type; NaN for classes that were not learnt.
    """

    folds: list[Fold]
    uncalibrated: Features
    scores: Features

    @classmethod
    def nothing(cls, n_rows: int, n_classes: int, dtype: type[np.floating] = np.float64) -> Self:
        """Room for predictions, without folds.

        Parameters
        ----------
        n_rows : int
            Training rows.
        n_classes : int
        dtype : type
        """
        # Zeros that are not written to take no memory.
        return cls([], np.zeros((n_rows, n_classes), dtype), np.zeros((n_rows, n_classes), dtype))

    def write(self, rows: Rows, probabilities: Probabilities, scores: Scores) -> None:
        """Keep what a head predicts for rows that it was not fitted on.

        Parameters
        ----------
        rows : ndarray of shape (n,), intp
            Positions among the training rows.
        probabilities, scores : ndarray of shape (n, n_classes), float64
            Uncalibrated.
        """
        self.uncalibrated[rows], self.scores[rows] = probabilities, scores


@dataclass(frozen=True)
class HeadFits:
    """Fitted heads before calibration, and what the heads of the folds predict.

    Attributes
    ----------
    heads : dict of str to Head
        By the name of their question, fitted on all its rows.
    held_out : dict of str to HeldOut
        Likewise.
    """

    heads: dict[str, Head]
    held_out: dict[str, HeldOut]


def finish_heads(
    questions: Questions, fits: HeadFits, rows: RowChunks, settings: FinishSettings
) -> FittedHeads:
    """Learn everything that is learnt from held-out rows: calibration, thresholds, rejection.

    Parameters
    ----------
    questions : Questions
    fits : HeadFits
        The scores of the folds' heads are replaced by calibrated probabilities, since both
        together would fill the memory.
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
    heads = dict(fits.heads)
    out_of_fold: dict[str, NDArray[Any]] = {}
    uncalibrated: dict[str, NDArray[Any]] = {}
    for question in questions.questions:
        name, held_out = question.name, fits.held_out[question.name]
        left_out = np.setdiff1d(np.arange(n_rows), question.rows)
        uncalibrated[name] = out_of_fold[name] = held_out.uncalibrated
        uncalibrated[name][left_out] = rows.predict_proba(heads[name], left_out)
        method = calibration_for(settings.calibrate, exclusive=question.exclusive)
        if method == "none":
            continue
        most = rows.rows_of_answers(question.truth.shape[1])
        sample = _OfFolds(question, held_out, method, most, settings.seed)
        calibrator = sample.fit(heads[name].known.learnt)
        curves = [sample.fit(fold.known.learnt, fold) for fold in held_out.folds]
        heads[name] = replace(heads[name], calibrator=calibrator)
        out_of_fold[name] = held_out.scores
        out_of_fold[name][left_out] = rows.predict_proba(heads[name], left_out)
        for fold, own in zip(held_out.folds, curves, strict=True):
            _calibrate(held_out, question.rows[fold.rows], fold.known, own)
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
    held_out: HeldOut, places: Rows, known: KnownClasses, calibrator: Calibrator | None
) -> None:
    """Replace the scores of a fold's rows by probabilities, some rows at a time."""
    if calibrator is None:
        held_out.scores[places] = held_out.uncalibrated[places]
        return
    for start in range(0, len(places), _ROWS_AT_ONCE):
        at = places[start : start + _ROWS_AT_ONCE]
        scores = held_out.scores[at][:, known.learnt].astype(np.float64)
        held_out.scores[at] = known.all_probabilities(calibrator.predict_proba(scores))


@dataclass(frozen=True)
class _OfFolds:
    """Fits curves on what heads of folds say of rows that they were not fitted on."""

    question: Question
    held_out: HeldOut
    method: str
    most: int
    seed: int

    def fit(self, columns: Rows, own: Fold | None = None) -> Calibrator | None:
        """Fit on all folds but one's own; None without columns to fit a curve of."""
        if not len(columns) and own is not None:
            return None
        question = self.question
        others = [fold.rows for fold in self.held_out.folds if fold is not own]
        # A single number of all classes needs no more rows than these.
        rows = np.concatenate(others) if others else np.empty(0, np.intp)
        is_one = self.method == "temperature" and question.exclusive
        rows = rows[_draw(np.arange(len(rows)), self.most if is_one else len(rows), self.seed)]
        cells = np.ix_(question.rows[rows], columns)
        scores = self.held_out.scores[cells].astype(np.float64)
        truth = question.truth[np.ix_(rows, columns)]
        # A score for a class that the fold's head did not learn says nothing about the final
        # head, which did learn it.
        is_usable = ~(np.isnan(scores) & truth).any(axis=1)
        if question.exclusive:
            is_usable &= truth.any(axis=1)
        if not is_usable.all():
            scores, truth = scores[is_usable], truth[is_usable]
        is_unknown = np.isnan(scores)
        if is_unknown.all():
            raise FitError(
                f"The head of {question.name!r} cannot be calibrated: the training images of each "
                "class are all in one group (identical, or equal in the group column), so none "
                "can be held out. Add images, or set --calibrate none."
            )
        # Classes that a fold's head did not learn never win there.
        scores[is_unknown] = np.nanmin(scores)
        return fit_calibrator(self.method, scores, truth, exclusive=question.exclusive)
