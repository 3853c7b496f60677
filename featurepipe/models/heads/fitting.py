"""Heads that read features: one an attribute, one over all labels, or one over combinations."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from featurepipe.errors import FitError
from featurepipe.manifest import Labels
from featurepipe.models.answers.finishing import FittedHeads, HeldOut, finish_heads
from featurepipe.models.answers.head_model import Columns, Features, Head, Rows, side_by_side
from featurepipe.models.answers.questions import Question, make_questions, targets_of
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.heads.registry import build_head, fit_head
from featurepipe.models.heads.tuning import fit_tuned_head
from featurepipe.splits import inner_folds

_Job = Callable[[], tuple[str, Head | HeldOut]]


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
    check_finite(np.asarray(np.isfinite(X).all(axis=1)))
    columns = columns or dict.fromkeys(labels, ((0, X.shape[1]),))
    questions, combinations = make_questions(labels, settings.task, columns, groups)
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


def check_finite(is_finite: NDArray[np.bool_]) -> None:
    """Stop unless the features of every training image are numbers.

    Parameters
    ----------
    is_finite : ndarray of shape (n_train,), bool

    Raises
    ------
    FitError
        With the number of images whose features are not.
    """
    if not is_finite.all():
        raise FitError(
            f"{np.count_nonzero(~is_finite)} of {len(is_finite)} training images have features "
            f"that are not finite (the first is row {is_finite.argmin()}). Expected finite "
            "numbers; extract their features again."
        )


def _run_fits(
    X: Features,
    questions: Sequence[Question],
    settings: HeadSettings,
    n_jobs: int,
    progress: Callable[[int, int], object] | None,
) -> tuple[dict[str, list[HeldOut]], dict[str, Head]]:
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
    held_out: dict[str, list[HeldOut]] = {question.name: [] for question in questions}
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
) -> list[tuple[str, Head | HeldOut]]:
    """What the jobs return, in their order."""
    results: dict[int, tuple[str, Head | HeldOut]] = {}
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


def _run_numbered(number: int, job: _Job) -> tuple[int, tuple[str, Head | HeldOut]]:
    return number, job()


def _fit_final(X: Features, question: Question, settings: HeadSettings) -> tuple[str, Head]:
    return question.name, fit_one_head(X, question, np.arange(len(question.rows)), settings)


def _fit_fold(
    X: Features, question: Question, train: Rows, validation: Rows, settings: HeadSettings
) -> tuple[str, HeldOut]:
    head = fit_one_head(X, question, train, settings)
    X = X[question.rows[validation]]
    # The fold's estimator has done its work and would only fill the memory.
    spent = replace(head, estimator=None)
    return question.name, HeldOut(validation, spent, head.predict_proba(X), head.decision_scores(X))


def fit_one_head(X: Features, question: Question, rows: Rows, settings: HeadSettings) -> Head:
    """One fit of one head, not calibrated.

    Parameters
    ----------
    X : ndarray of shape (n_train, n_features)
    question : Question
    rows : ndarray of shape (n_rows,), intp
        Positions among the question's rows.
    settings : HeadSettings
    """
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
        features = side_by_side(X, question.columns, question.rows[rows])
        targets, groups = targets_of(truth, learnt, exclusive), question.groups[rows]
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
