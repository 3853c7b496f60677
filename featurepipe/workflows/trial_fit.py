"""Whether a head of one's own can be fitted, answer, and be saved: found out on made-up rows."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import FeaturepipeError, UsageError
from featurepipe.models.answers.arrays import Features, Rows
from featurepipe.models.answers.head import FeatureHead
from featurepipe.models.answers.questions import Question, questions_of
from featurepipe.models.heads.fitting import fit_one_head
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.runs.heads_file import saved_and_loaded
from featurepipe.words import listed, one_line
from featurepipe.workflows.fit_task import FitTask

_ROWS_A_CLASS = 10


def require_usable_head(task: FitTask, trusted: Sequence[str]) -> None:
    """Stop if a head of one's own cannot be fitted, does not answer, or cannot be saved.

    It is fitted once for each question of the run, on made-up features of the right width and
    the labels of ten training images a class; of all, if these are too few.

    Parameters
    ----------
    task : FitTask
    trusted : sequence of str
        The types beyond those of skops and featurepipe that the user trusts.

    Raises
    ------
    UsageError
        Says what is wrong with the head.
    """
    settings, columns = task.settings, task.feature_set.columns
    if settings.own is None:
        return
    questions = questions_of(task.labels, settings.task, columns, task.groups)
    rng = np.random.default_rng(settings.seed)
    n_features = sum(cache.n_features for cache in task.feature_set.caches)
    X = np.abs(rng.normal(size=(len(task.groups), n_features))).astype(np.float32)
    for question in questions.questions:
        few = np.flatnonzero(_ranks(question.strata(settings.n_folds)) < _ROWS_A_CLASS)
        problem = _problem(X, question, few, settings, trusted)
        if problem is not None:
            problem = _problem(X, question, np.arange(len(question.rows)), settings, trusted)
        if problem is not None:
            raise UsageError(problem)


def _problem(
    X: Features, question: Question, rows: Rows, settings: HeadSettings, trusted: Sequence[str]
) -> str | None:
    """What is wrong with the head that is fitted on some rows, in words."""
    try:
        head = fit_one_head(X, question, rows, settings)
        if isinstance(head, FeatureHead):
            problem = next(_head_problems(head, X[question.rows[rows]], trusted), None)
            return problem and f"The head {settings.head} {problem}"
        return None
    except FeaturepipeError as error:
        return str(error)
    # A head of the user's own may raise anything.
    except Exception as error:
        return (
            f"The head {settings.head} cannot answer ({one_line(error)}). Change its parameters, "
            "or use another head."
        )


def _head_problems(head: FeatureHead, X: Features, trusted: Sequence[str]) -> Iterator[str]:
    scores = head.decision_scores(X)
    head.predict_proba(X)
    known = head.known
    if known.exclusive:
        best = known.learnt[scores[:, known.learnt].argmax(axis=1)]
        share = np.mean(best == head.estimator.predict(head.select(X)))
        if share < 0.5:
            yield (
                f"predicts another class than the one with its highest score, for {1 - share:.0%} "
                "of the rows that it was fitted on. Use another head, or other parameters."
            )
    try:
        types, loaded = saved_and_loaded(head)
        other = loaded.decision_scores(X)
        problem = "" if np.array_equal(other, scores, equal_nan=True) else "its answers change"
    # What cannot be saved or loaded may raise anything.
    except Exception as error:
        problem = one_line(error)
    if problem:
        yield (
            f"cannot be saved and loaded without pickle ({problem}). Use another head, or one "
            "that is made of arrays, numbers, texts and importable classes and functions."
        )
    if missing := sorted({*types} - {*trusted}):
        yield (
            f"is made of {listed(missing)}, which neither skops nor featurepipe trusts. If you "
            f"trust them, name them: trusted={missing}."
        )


def _ranks(strata: NDArray[np.intp]) -> NDArray[np.intp]:
    """For each row, how many rows of its stratum come before it."""
    ranks = np.empty(len(strata), np.intp)
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        ranks[rows] = np.arange(len(rows))
    return ranks
