"""Heads that read features: one an attribute, or one over all labels."""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from featurepipe.errors import FitError, UnknownNameError, UsageError
from featurepipe.manifest import Labels
from featurepipe.models.calibration import (
    AUTO,
    CALIBRATIONS,
    Calibrator,
    calibration_for,
    fit_calibrator,
)
from featurepipe.models.registry import (
    HEADS,
    build_head,
    build_variance_threshold,
    find_head,
    fit_head,
)
from featurepipe.models.rejection import Rejector, fit_rejector
from featurepipe.models.thresholds import USUAL, fit_thresholds, parse_aim
from featurepipe.models.tuning import fit_tuned_head
from featurepipe.predictions import TASKS, answer_confidence, normalized
from featurepipe.splits import inner_folds

logger = logging.getLogger(__name__)

ALL_LABELS = "all labels"
COMBINATIONS = "combinations"
LEAST_IMAGES_A_CLASS = 2

Features = NDArray[np.floating]
Probabilities = NDArray[np.float64]
Rows = NDArray[np.intp]
Columns = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class HeadSettings:
    """What is fitted, and how.

    Attributes
    ----------
    head : str
        A key of `featurepipe.models.registry.HEADS`.
    solver : str or None
        What fits the head, of those in `HEADS`; None becomes its usual one.
    task : {"per-attribute", "multi-label", "joint"}
        One head an attribute, one OneVsRest head over all labels, or one head over
        the combinations of classes that training images have.
    calibrate : {"auto", "sigmoid", "isotonic", "temperature", "none"}
        How decision scores become probabilities; ``auto`` is temperature for exclusive
        classes, and sigmoid for labels of sets.
    variance_threshold : str
        ``"1%"`` of the mean variance, or an absolute variance such as ``"0.01"``.
    tune : bool
        Choose penalty, variance threshold (in place of the one above) and scaling for each
        head on folds of the rows it is fitted on; see `featurepipe.models.tuning`.
    seed : int
        Random state of folds and heads.
    n_folds : int
        Inner folds; what calibrates and selects is measured on these.
    thresholds : str or None
        ``"f1"``, ``"precision=0.9"`` or ``"recall=0.8"``: what the thresholds of labels are
        chosen for; None: 0.5 each.

    Raises
    ------
    UsageError
        If a name does not exist or the threshold cannot be read.
    """

    head: str = "bagged-sgd"
    solver: str | None = None
    task: str = "per-attribute"
    calibrate: str = AUTO
    variance_threshold: str = "1%"
    tune: bool = False
    seed: int = 0
    n_folds: int = 5
    thresholds: str | None = None

    def __post_init__(self) -> None:
        find_head(self.head, self.solver)
        object.__setattr__(self, "solver", self.solver or next(iter(HEADS[self.head])))
        build_variance_threshold(self.variance_threshold)
        if self.thresholds is not None:
            parse_aim(self.thresholds)
        if self.task not in TASKS:
            raise UnknownNameError("task", self.task, TASKS)
        if self.calibrate not in (AUTO, *CALIBRATIONS):
            raise UnknownNameError("calibration", self.calibrate, (AUTO, *CALIBRATIONS))


@dataclass(frozen=True)
class Head:
    """One fitted estimator and what makes probabilities of its scores.

    Attributes
    ----------
    estimator : Pipeline or None
        None if its rows left nothing to tell apart.
    learnt : ndarray of shape (n_learnt,), intp
        Columns of the classes that the estimator tells apart.
    constant : ndarray of shape (n_classes,), float64
        Probability of the other classes: 1 if every row had the class, else 0.
    exclusive : bool
        True if every image has exactly one class.
    columns : tuple of (int, int)
        First column of each block of features that it reads, and the one after its last.
    calibrator : Calibrator or None
        None leaves the estimator's own probabilities.
    tuned : dict or None
        What was chosen, as `featurepipe.models.tuning.fit_tuned_head` says it; None if
        nothing was.
    """

    estimator: Pipeline | None
    learnt: Rows
    constant: Probabilities
    exclusive: bool
    columns: Columns
    calibrator: Calibrator | None = None
    tuned: dict[str, Any] | None = None

    def decision_scores(self, X: Features) -> NDArray[np.float64]:
        """How much speaks for each class.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)
            All columns, whichever of them the head reads.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float64
            NaN for classes that the estimator does not know.
        """
        scores = np.full((len(X), len(self.constant)), np.nan)
        if self.estimator is not None and len(X):
            of_learnt = self.estimator.decision_function(self.read(X)).reshape(len(X), -1)
            # scikit-learn scores two exclusive classes by one number.
            if self.exclusive and len(self.learnt) == 2:
                of_learnt = of_learnt * [-1, 1]
            scores[:, self.learnt] = of_learnt
        return scores

    def predict_proba(self, X: Features) -> Probabilities:
        """Probability of each class.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float64
            In [0, 1]; rows sum to 1, to the precision of `X`, if the classes are
            exclusive.
        """
        probabilities = np.tile(self.constant, (len(X), 1))
        if self.estimator is None or not len(X):
            return probabilities
        if self.calibrator is None:
            probabilities[:, self.learnt] = self._own_probabilities(X)
        else:
            scores = self.decision_scores(X)[:, self.learnt]
            probabilities[:, self.learnt] = self.calibrator.predict_proba(scores)
        return probabilities

    def read(self, X: Features) -> Features:
        """The features that the head reads: ndarray of shape (n_samples, n_read)."""
        return _side_by_side(X, self.columns)

    def _own_probabilities(self, X: Features) -> Probabilities:
        assert self.estimator is not None
        # OneVsRest over a single label also gives the probability of its absence.
        own = self.estimator.predict_proba(self.read(X))[:, -len(self.learnt) :]
        return own.astype(np.float64)


@dataclass(frozen=True)
class HeadModel:
    """The fitted heads of one run.

    Attributes
    ----------
    task : {"per-attribute", "multi-label", "joint"}
    classes : dict of str to tuple of str
        The classes of each attribute, in the order of the columns.
    exclusive : dict of str to bool
        Whether an image has exactly one class of an attribute.
    heads : dict of str to Head
        By attribute; in the multi-label task one, over the labels of all
        attributes in their order; in the joint task one, over `combinations`.
    combinations : ndarray of shape (n_combinations, n_attributes), intp
        The class of each attribute in each combination that the joint task knows;
        empty in the other tasks.
    thresholds : dict of str to ndarray of shape (n_classes,), float64
        For each attribute the probabilities above which labels of a set are given.
    rejectors : dict of str to Rejector
        What tells, for each attribute, images that are unlike those trained on.
    """

    task: str
    classes: dict[str, tuple[str, ...]]
    exclusive: dict[str, bool]
    heads: dict[str, Head]
    combinations: Rows
    thresholds: dict[str, Probabilities] = field(default_factory=dict)
    rejectors: dict[str, Rejector] = field(default_factory=dict)

    def predict(self, X: Features) -> dict[str, Probabilities]:
        """Raw probabilities, as `featurepipe.predictions.Predictions.scores` has them.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)

        Returns
        -------
        dict of str to ndarray of shape (n_samples, n_classes), float64
            For each attribute.
        """
        return self.by_attribute({name: head.predict_proba(X) for name, head in self.heads.items()})

    def by_attribute(self, of_heads: dict[str, Probabilities]) -> dict[str, Probabilities]:
        """The probabilities that heads give, as probabilities of each attribute's classes.

        Parameters
        ----------
        of_heads : dict of str to ndarray of shape (n_samples, n_classes of the head), float64

        Returns
        -------
        dict of str to ndarray of shape (n_samples, n_classes), float64
            In the joint task, a class has the sum over its combinations.
        """
        n_classes = [len(names) for names in self.classes.values()]
        if self.task == "multi-label":
            parts = np.split(of_heads[ALL_LABELS], np.cumsum(n_classes)[:-1], axis=1)
            return dict(zip(self.classes, parts, strict=True))
        if self.task == "joint":
            return {
                name: np.minimum(of_heads[COMBINATIONS] @ (codes[:, None] == np.arange(n)), 1)
                for name, codes, n in zip(self.classes, self.combinations.T, n_classes, strict=True)
            }
        return {name: of_heads[name] for name in self.classes}

    def p_values(
        self, X: Features, scores: Mapping[str, Probabilities]
    ) -> dict[str, Probabilities]:
        """How much images are like those trained on, in what each attribute's head reads.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)
        scores : dict of str to ndarray of shape (n_samples, n_classes), float64
            What `predict` says of them.

        Returns
        -------
        dict of str to ndarray of shape (n_samples,), float64
            `featurepipe.models.rejection.Rejector.p_values`.
        """
        return {
            name: rejector.p_values(
                self._head_of(name).read(X), self._confidence(name, scores[name])
            )
            for name, rejector in self.rejectors.items()
        }

    def _head_of(self, attribute: str) -> Head:
        return self.heads.get(attribute) or next(iter(self.heads.values()))

    def _confidence(self, attribute: str, scores: Probabilities) -> Probabilities:
        exclusive = self.exclusive[attribute]
        return answer_confidence(
            normalized(scores) if exclusive else scores,
            self.thresholds[attribute],
            exclusive=exclusive,
        )

    def in_words(
        self, scores: Mapping[str, Probabilities]
    ) -> dict[str, tuple[tuple[str, ...], Probabilities]]:
        """Classes of each attribute and their probabilities, as a person is told them.

        Parameters
        ----------
        scores : dict of str to ndarray of shape (n_samples, n_classes), float64
            What `predict` says.

        Returns
        -------
        dict of str to tuple of (classes, ndarray of shape (n_samples, n_classes), float64)
            Rows of exclusive attributes sum to 1.
        """
        return {
            name: (self.classes[name], normalized(of_name) if self.exclusive[name] else of_name)
            for name, of_name in scores.items()
        }

    def given(self, attribute: str, scores: Probabilities) -> NDArray[np.bool_]:
        """Which classes are the answer.

        Parameters
        ----------
        attribute : str
        scores : ndarray of shape (n_samples, n_classes), float64
            What `predict` says of it.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), bool
            The most probable one of exclusive classes, else all above their thresholds.
        """
        if self.exclusive[attribute]:
            return np.asarray(scores.argmax(axis=1)[:, None] == np.arange(scores.shape[1]))
        return scores > self.thresholds[attribute]


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
class _Question:
    """What one head is fitted to answer."""

    name: str
    rows: Rows
    truth: NDArray[np.bool_]
    exclusive: bool
    columns: Columns
    groups: NDArray[np.intp]

    def strata(self, n_folds: int) -> Rows:
        if self.exclusive:
            return self.truth.argmax(axis=1)
        _, sets, counts = np.unique(self.truth, axis=0, return_inverse=True, return_counts=True)
        # Sets too rare to be in every fold are spread as one.
        return np.where(counts[sets] < n_folds, len(counts), sets)


@dataclass(frozen=True)
class _HeldOut:
    """What the head of one fold says of the rows that it was not fitted on.

    `own` are the probabilities of the estimator itself.
    """

    rows: Rows
    head: Head
    own: Probabilities
    scores: NDArray[np.float64]


_Job = Callable[[], tuple[str, Head | _HeldOut]]


# One BLAS thread in each of ours: more would contend, and round differently.
@threadpool_limits.wrap(limits=1)
def fit_heads(
    X: Features,
    labels: dict[str, Labels],
    groups: NDArray[np.intp],
    settings: HeadSettings,
    *,
    columns: Mapping[str, Columns] | None = None,
    n_jobs: int = -1,
    progress: Callable[[int, int], object] | None = None,
) -> FittedHeads:
    """Fit heads on training rows, and predict these out of fold.

    Each head is fitted once on all rows and once for every inner fold; the
    scores of the rows that a fold holds out calibrate the head. The result does
    not depend on `n_jobs`.

    Parameters
    ----------
    X : ndarray of shape (n_train, n_features), float32 or float64
        Features, finite.
    labels : dict of str to Labels
        The truth for each attribute. In the per-attribute task an image without
        a label is left out of that attribute's head; in the multi-label task
        and in the joint one images without a label of every attribute are left out.
    groups : ndarray of shape (n_train,), intp
        Rows of one group are never on both sides of a fold.
    settings : HeadSettings
    columns : mapping of str to tuple of (int, int), optional
        For each attribute the blocks of features that its head reads, as in `Head`; if one
        head answers for all attributes, equal for each. Default: all columns, as one block.
    n_jobs : int
        Threads; -1: one a processor core.
    progress : callable, optional
        Called with the numbers of fits done and of all fits.

    Returns
    -------
    FittedHeads

    Raises
    ------
    FitError
        If features are not finite, no feature varies enough, or an attribute
        has fewer than two classes or a class with a single image.
    UsageError
        If thresholds are asked for, and no attribute has sets of labels.
    """
    _check_finite(np.asarray(np.isfinite(X).all(axis=1)))
    columns = columns or dict.fromkeys(labels, ((0, X.shape[1]),))
    questions, combinations = _make_questions(labels, settings.task, columns, groups)
    held_out, heads = _run_fits(X, questions, settings, n_jobs, progress)
    return finish_heads(
        questions,
        heads,
        held_out,
        combinations,
        labels,
        groups,
        settings,
        predict_rows=lambda head, rows: head.predict_proba(X[rows]),
        read_rows=lambda rows: X[rows],
        most_rows=len(X),
    )


def finish_heads(
    questions: Sequence[_Question],
    heads: dict[str, Head],
    held_out: Mapping[str, Sequence[_HeldOut]],
    combinations: Rows,
    labels: dict[str, Labels],
    groups: NDArray[np.intp],
    settings: HeadSettings,
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


def _fit_thresholds(
    out_of_fold: dict[str, Probabilities], labels: dict[str, Labels], settings: HeadSettings
) -> dict[str, Probabilities]:
    thresholds = {name: np.full(len(each.classes), USUAL) for name, each in labels.items()}
    if settings.thresholds is None:
        return thresholds
    of_sets = [
        name
        for name, each in labels.items()
        if settings.task == "multi-label" or not each.exclusive
    ]
    if not of_sets:
        raise UsageError(
            f"--thresholds {settings.thresholds} is for labels that are given one by one, and "
            "every attribute has exactly one class an image. Leave it out, or set --task "
            "multi-label."
        )
    for name in of_sets:
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
    settings: HeadSettings,
    read_rows: Callable[[Rows], Features],
    most_rows: int,
) -> Rejector:
    rows, head = np.flatnonzero(labels.labelled), model._head_of(attribute)
    if len(rows) > most_rows:
        drawn = np.random.default_rng(settings.seed).choice(rows, most_rows, replace=False)
        rows = np.sort(drawn)
    return fit_rejector(
        head.read(read_rows(rows)),
        labels.indicator[rows],
        groups[rows],
        model._confidence(attribute, out_of_fold[rows]),
        widths=[end - start for start, end in head.columns],
        seed=settings.seed,
    )


def _make_questions(
    labels: dict[str, Labels],
    task: str,
    columns: Mapping[str, Columns],
    groups: NDArray[np.intp],
) -> tuple[list[_Question], Rows]:
    """What is to be fitted, and the combinations that a joint head tells apart."""
    if task == "per-attribute":
        rows_of = {name: np.flatnonzero(each.labelled) for name, each in labels.items()}
    else:
        everywhere = np.all([each.labelled for each in labels.values()], axis=0)
        rows_of = dict.fromkeys(labels, np.flatnonzero(everywhere))
        if n_left_out := np.count_nonzero(~everywhere):
            logger.info(
                "Left out %d of %d training images: they lack a label of some attribute.",
                n_left_out,
                len(everywhere),
            )
    questions = [
        _Question(
            name,
            rows_of[name],
            each.indicator[rows_of[name]],
            each.exclusive,
            columns[name],
            groups[rows_of[name]],
        )
        for name, each in labels.items()
    ]
    for question in questions:
        _check_question(question, labels[question.name].classes)
    no_combinations = np.empty((0, len(labels)), np.intp)
    if task == "per-attribute":
        return questions, no_combinations
    if task == "joint":
        question, combinations = _joint_question(questions, labels)
        return [question], combinations
    truth = np.hstack([question.truth for question in questions])
    return [replace(questions[0], name=ALL_LABELS, truth=truth, exclusive=False)], no_combinations


def _joint_question(
    questions: Sequence[_Question], labels: dict[str, Labels]
) -> tuple[_Question, Rows]:
    sets = [question.name for question in questions if not question.exclusive]
    if sets:
        raise FitError(
            f"Attribute {sets[0]!r} has sets of labels, and combinations are of exactly one class "
            "of each attribute. Expected exclusive attributes; set --task multi-label."
        )
    codes = np.column_stack([question.truth.argmax(axis=1) for question in questions])
    combinations, of_row = np.unique(codes, axis=0, return_inverse=True)
    truth = of_row.reshape(-1, 1) == np.arange(len(combinations))
    question = replace(questions[0], name=COMBINATIONS, truth=truth)
    names = [
        "_".join(labels[each.name].classes[code] for each, code in zip(questions, row, strict=True))
        for row in combinations
    ]
    _check_question(question, names)
    return question, combinations


def _check_finite(is_finite: NDArray[np.bool_]) -> None:
    if not is_finite.all():
        raise FitError(
            f"{np.count_nonzero(~is_finite)} of {len(is_finite)} training images have features "
            f"that are not finite (the first is row {is_finite.argmin()}). Expected finite "
            "numbers; extract their features again."
        )


def _check_question(question: _Question, classes: Sequence[str]) -> None:
    name, n_rows = question.name, len(question.rows)
    if not n_rows:
        raise FitError(
            f"No training image has a label of attribute {name!r}. Expected at least 2 classes "
            f"of {LEAST_IMAGES_A_CLASS} images each; check the labels."
        )
    n_images = dict(zip(classes, question.truth.sum(axis=0).tolist(), strict=True))
    if not any(0 < n < n_rows for n in n_images.values()):
        found = ", ".join(label for label, n in n_images.items() if n) or "none"
        raise FitError(
            f"All {n_rows} training images have the same label of attribute {name!r} ({found}). "
            "Expected at least 2 classes; add images of another, or leave the attribute out."
        )
    rare = [label for label, n in n_images.items() if 0 < n < LEAST_IMAGES_A_CLASS]
    if rare:
        raise FitError(
            f"Attribute {name!r} has classes with a single training image: "
            f"{', '.join(rare[:5])}{', …' if len(rare) > 5 else ''}. Expected at least "
            f"{LEAST_IMAGES_A_CLASS} a class; add images, or leave these classes out."
        )


def _run_fits(
    X: Features,
    questions: Sequence[_Question],
    settings: HeadSettings,
    n_jobs: int,
    progress: Callable[[int, int], object] | None,
) -> tuple[dict[str, list[_HeldOut]], dict[str, Head]]:
    """Every fit of every head, in one pool of threads."""
    # The final fits take longest: begun first, none of them is waited for alone.
    jobs: list[_Job] = [partial(_fit_final, X, question, settings) for question in questions]
    jobs += [
        partial(_fit_fold, X, question, train, validation, settings)
        for question in questions
        for train, validation in inner_folds(
            question.strata(settings.n_folds),
            question.groups,
            settings.n_folds,
            settings.seed,
        )
    ]
    heads: dict[str, Head] = {}
    held_out: dict[str, list[_HeldOut]] = {question.name: [] for question in questions}
    for name, result in _run_jobs(jobs, n_jobs, progress):
        if isinstance(result, Head):
            heads[name] = result
        else:
            held_out[name].append(result)
    return held_out, heads


def _run_jobs(
    jobs: Sequence[_Job],
    n_jobs: int,
    progress: Callable[[int, int], object] | None,
) -> list[tuple[str, Head | _HeldOut]]:
    """What the jobs return, in their order."""
    results: dict[int, tuple[str, Head | _HeldOut]] = {}
    # SGD and BLAS release the interpreter's lock, so threads can share the features.
    pool = Parallel(n_jobs=n_jobs, backend="threading", return_as="generator_unordered")
    numbered = (delayed(_run_numbered)(number, job) for number, job in enumerate(jobs))
    with warnings.catch_warnings():
        # How many passes there are belongs to the recipe; nobody can change it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for n_done, (number, result) in enumerate(pool(numbered), start=1):
            results[number] = result
            if progress is not None:
                progress(n_done, len(jobs))
    return [results[number] for number in range(len(jobs))]


def _run_numbered(number: int, job: _Job) -> tuple[int, tuple[str, Head | _HeldOut]]:
    return number, job()


def _fit_final(X: Features, question: _Question, settings: HeadSettings) -> tuple[str, Head]:
    return question.name, _fit_head(X, question, np.arange(len(question.rows)), settings)


def _fit_fold(
    X: Features, question: _Question, train: Rows, validation: Rows, settings: HeadSettings
) -> tuple[str, _HeldOut]:
    head = _fit_head(X, question, train, settings)
    X = X[question.rows[validation]]
    # The fold's estimator has done its work and would only fill the memory.
    spent = replace(head, estimator=None)
    return question.name, _HeldOut(
        validation, spent, head.predict_proba(X), head.decision_scores(X)
    )


def _fit_head(X: Features, question: _Question, rows: Rows, settings: HeadSettings) -> Head:
    truth, exclusive = question.truth[rows], question.exclusive
    constant = np.asarray(truth.all(axis=0))
    learnt = np.flatnonzero(truth.any(axis=0) & ~constant)
    estimator, tuned = None, None
    if len(learnt):
        options: dict[str, Any] = {
            "solver": settings.solver,
            "n_train_rows": len(rows),
            "seed": settings.seed,
            "one_vs_rest": not exclusive,
            "widths": [end - start for start, end in question.columns],
        }
        features = _side_by_side(X, question.columns, question.rows[rows])
        targets, groups = _targets(truth, learnt, exclusive), question.groups[rows]
        if settings.tune:
            strata = replace(question, truth=truth).strata(settings.n_folds)
            estimator, tuned = fit_tuned_head(
                settings.head,
                features,
                targets,
                groups,
                strata=strata,
                calibrated=settings.calibrate != "none",
                n_folds=settings.n_folds,
                **options,
            )
        else:
            options["variance_threshold"] = settings.variance_threshold
            estimator = fit_head(build_head(settings.head, **options), features, targets, groups)
    certain = constant.astype(np.float64)
    return Head(estimator, learnt, certain, exclusive, question.columns, tuned=tuned)


def _side_by_side(X: Features, columns: Columns, rows: Rows | slice = np.s_[:]) -> Features:
    blocks = [X[rows, start:end] for start, end in columns]
    return blocks[0] if len(blocks) == 1 else np.hstack(blocks)


def _targets(truth: NDArray[np.bool_], learnt: Rows, exclusive: bool) -> NDArray[np.intp]:
    if exclusive:
        return truth.argmax(axis=1)
    columns = truth[:, learnt].astype(np.intp)
    return columns.ravel() if len(learnt) == 1 else columns


def _calibrated(head: Head, question: _Question, held_out: Sequence[_HeldOut], method: str) -> Head:
    calibrator = _fit_on_held_out(question, held_out, head.learnt, method)
    return replace(head, calibrator=calibrator)


def _unseen_probabilities(
    n_rows: int,
    predict_rows: Callable[[Rows], Probabilities],
    question: _Question,
    held_out: Sequence[_HeldOut],
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
    question: _Question, fold: _HeldOut, others: Sequence[_HeldOut], method: str
) -> Probabilities:
    if method == "none":
        return fold.own
    probabilities = np.tile(fold.head.constant, (len(fold.rows), 1))
    if len(learnt := fold.head.learnt):
        calibrator = _fit_on_held_out(question, others, learnt, method)
        probabilities[:, learnt] = calibrator.predict_proba(fold.scores[:, learnt])
    return probabilities


def _fit_on_held_out(
    question: _Question, held_out: Sequence[_HeldOut], columns: Rows, method: str
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
