"""Fit the heads of a run: one for each attribute, for all labels, or for combinations."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from threading import Lock
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from featurepipe.cluster.spreading import call_each
from featurepipe.errors import FitError
from featurepipe.manifest import Labels
from featurepipe.models.answers.arrays import (
    Columns,
    Features,
    Probabilities,
    Rows,
    Scores,
    side_by_side,
    widths_of,
)
from featurepipe.models.answers.finishing import (
    FittedHeads,
    Fold,
    HeadFits,
    HeldOut,
    finish_heads,
)
from featurepipe.models.answers.head import ConstantHead, FeatureHead, Head, KnownClasses
from featurepipe.models.answers.questions import Question, make_questions
from featurepipe.models.answers.row_chunks import RowChunks
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.heads.pipelines import build_head, fit_head
from featurepipe.models.heads.tuning import fit_tuned_head
from featurepipe.splits import inner_folds
from featurepipe.words import one_line

Advance = Callable[[int, int], object]
"""Called with the number of steps done and of all steps."""

Shared = TypeVar("Shared")
Job = TypeVar("Job")
Result = TypeVar("Result")

_ONE_AT_A_TIME = Lock()

_Job = tuple[Question, tuple[Rows, Rows] | None, HeadSettings]
"""A head to fit on all rows of a question, or on those of a fold and to ask about the others."""


# One BLAS thread in each of ours: more would contend, and round differently.
@threadpool_limits.wrap(limits=1)
def fit_heads(
    X: Features,
    labels: dict[str, Labels],
    groups: Rows,
    settings: HeadSettings,
    *,
    columns: Mapping[str, Columns] | None = None,
    n_jobs: int = -1,
    progress: Advance | None = None,
) -> FittedHeads:
    """Fit heads on training rows, and predict these rows out of fold.

    Each head is fitted once on all rows and once for every inner fold. The scores of the rows
    that a fold holds out calibrate the head. Results do not depend on `n_jobs`.

    Parameters
    ----------
    X : ndarray of shape (n_train, n_features), float32 or float64
        Features, finite.
    labels : dict of str to Labels
        The truth for each attribute. In the per-attribute task, images without a label are
        left out for that attribute's head; in the other tasks, images that lack the label of
        any attribute are left out.
    groups : ndarray of shape (n_train,), intp
        Rows of a group are never on both sides of a fold.
    settings : HeadSettings
    columns : mapping of str to tuple of (int, int), optional
        For each attribute the blocks of features that its head reads, as in `Head`. If one
        head answers for all attributes, they are equal. Default: all columns, as one block.
    n_jobs : int
        Threads; -1: one a processor core.
    progress : callable, optional
        Called with the number of fits done and of all fits.

    Returns
    -------
    FittedHeads

    Raises
    ------
    FitError
        If features are not finite, no feature varies enough, an attribute has fewer than two
        classes or a class with a single image, or a head of the user's own cannot be fitted or
        has no finite score for each class.
    UsageError
        If thresholds are requested, and no attribute has sets of labels.
    """
    check_finite(np.asarray(np.isfinite(X).all(axis=1)))
    columns = columns or dict.fromkeys(labels, ((0, X.shape[1]),))
    questions = make_questions(labels, settings.task, columns, groups)
    fits = _run_fits(X, questions.questions, settings, n_jobs, progress)
    return finish_heads(questions, fits, RowChunks.in_memory(X), settings)


def check_finite(is_finite: NDArray[np.bool_]) -> None:
    """Raise an error unless the features of every training image are finite.

    Parameters
    ----------
    is_finite : ndarray of shape (n_train,), bool

    Raises
    ------
    FitError
        With the number of images whose features are not finite.
    """
    if not is_finite.all():
        raise FitError(
            f"{np.count_nonzero(~is_finite)} of {len(is_finite)} training images have features "
            f"that are not finite (the first is row {is_finite.argmin()}). Extract their features "
            "again."
        )


def fit_one_head(X: Features, question: Question, rows: Rows, settings: HeadSettings) -> Head:
    """Fit one head, without calibration.

    Parameters
    ----------
    X : ndarray of shape (n_train, n_features)
    question : Question
    rows : ndarray of shape (n_rows,), intp
        Positions among the question's rows.
    settings : HeadSettings

    Returns
    -------
    Head
        A `FeatureHead`, or a `ConstantHead` if these rows all have the same classes.

    Raises
    ------
    FitError
        If a head of the user's own cannot be fitted.
    """
    truth, columns = question.truth[rows], question.columns
    known = KnownClasses.of(truth, question.exclusive)
    if not len(known.learnt):
        return ConstantHead(known, columns)
    features = side_by_side(X, columns, question.rows[rows])
    targets, groups = known.targets(truth), question.groups[rows]
    label_sets, widths = not question.exclusive, widths_of(columns)
    if not settings.tune:
        head = build_head(settings, len(rows), label_sets=label_sets, widths=widths)
        fit = fit_head
        if settings.own is not None:
            fit = partial(_fit_own, f"{settings.head} of {question.name!r}")
        return FeatureHead(known, columns, fit(head, features, targets, groups))
    strata = question.take(rows).strata(settings.n_folds)
    estimator, tuned = fit_tuned_head(
        settings, features, targets, groups, strata=strata, widths=widths, label_sets=label_sets
    )
    return FeatureHead(known, columns, estimator, tuned)


def _fit_own(title: str, head: Pipeline, X: Features, y: Rows, groups: Rows) -> Pipeline:
    try:
        # Those of scikit-learn that use liblinear share one generator of random numbers: fitted
        # side by side they would not give the same numbers again.
        with _ONE_AT_A_TIME:
            return fit_head(head, X, y, groups)
    # A head of the user's own may raise anything.
    except Exception as error:
        raise FitError(
            f"The head {title} cannot be fitted on {len(X)} images with {X.shape[1]} features: "
            f"{one_line(error)}. Change its parameters, or use another head."
        ) from error


# One BLAS thread in each of ours: more would contend, and round differently.
@threadpool_limits.wrap(limits=1)
def run_jobs(
    function: Callable[[Shared, Job], Result],
    shared: Shared,
    jobs: Sequence[Job],
    n_jobs: int,
    progress: Advance | None,
) -> list[Result]:
    """Run fits side by side, without scikit-learn's warnings that one has not converged.

    Parameters
    ----------
    function : callable
        Of `shared` and a job.
    shared : object
        What all fits read, such as the features.
    jobs : sequence
    n_jobs : int
        Threads; -1: one a processor core. For tasks on a cluster, see
        `featurepipe.cluster.spreading.call_each`.
    progress : callable or None
        Called with the number of jobs done and of all jobs.

    Returns
    -------
    list
        What the function returned, in the order of the jobs.
    """
    with warnings.catch_warnings():
        # The recipe fixes the number of passes; users cannot change it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return list(call_each(function, shared, jobs, n_jobs=n_jobs, progress=progress))


def _run_fits(
    X: Features,
    questions: Sequence[Question],
    settings: HeadSettings,
    n_jobs: int,
    progress: Advance | None,
) -> HeadFits:
    """Run every fit of every head side by side."""
    # The final fits take longest. They come first, so that none of them runs alone at the end.
    jobs: list[_Job] = [(question, None, settings) for question in questions]
    for question in questions:
        folds = inner_folds(
            question.strata(settings.n_folds), question.groups, settings.n_folds, settings.seed
        )
        jobs += [(question, fold, settings) for fold in folds]
    results = run_jobs(_fit_job, X, jobs, n_jobs, progress)
    fits = HeadFits(
        {},
        {question.name: HeldOut.nothing(len(X), question.truth.shape[1]) for question in questions},
    )
    for (question, fold, _), result in zip(jobs, results, strict=True):
        if isinstance(result, Head):
            fits.heads[question.name] = result
        elif fold is not None:
            held_out, (known, *predicted) = fits.held_out[question.name], result
            held_out.folds.append(Fold(fold[1], known))
            held_out.write(question.rows[fold[1]], *predicted)
    return fits


def _fit_job(X: Features, job: _Job) -> Head | tuple[KnownClasses, Probabilities, Scores]:
    question, fold, settings = job
    if fold is None:
        return fit_one_head(X, question, np.arange(len(question.rows)), settings)
    train, validation = fold
    head = fit_one_head(X, question, train, settings)
    X = X[question.rows[validation]]
    # Without the head itself: the fold needs it no more, and it would fill the memory.
    return head.known, head.predict_proba(X), head.decision_scores(X)
