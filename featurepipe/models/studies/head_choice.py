"""Choose the head for the features that were chosen, by the same folds of training rows."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from joblib import Parallel, delayed
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from featurepipe.manifest import Labels
from featurepipe.models.answers.arrays import Columns, Features, Rows
from featurepipe.models.answers.questions import Question, make_questions
from featurepipe.models.heads.fitting import fit_one_head
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.heads.registry import default_solver
from featurepipe.models.studies.hold_outs import (
    Folds,
    HeldOutAnswers,
    HoldOuts,
    Right,
    is_right,
    mean_right,
    unseen_right,
)
from featurepipe.predictions import Task

HEADS = ("bagged-sgd", "logistic")
"""The heads to choose from; the first is chosen at a tie."""


@dataclass(frozen=True)
class HeadTrial:
    """How well a head recognises the attributes by the features that were chosen for each.

    Attributes
    ----------
    head : str
    seen_accuracy, unseen_accuracy : float
        As of a `featurepipe.models.studies.feature_choice.Trial`, means over the attributes.
    chosen : bool
    """

    head: str
    seen_accuracy: float
    unseen_accuracy: float
    chosen: bool


def choose_head(
    X: Features,
    labels: dict[str, Labels],
    groups: Rows,
    settings: HeadSettings,
    columns: Mapping[str, Columns],
    *,
    objective: str = "balanced",
    n_jobs: int = -1,
    progress: Callable[[int, int], object] | None = None,
) -> list[HeadTrial]:
    """Fit each of `HEADS` without the rows of every fold, and ask it about them.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features)
        Features of training rows, finite; `sample_rows` draws enough of them.
    labels : dict of str to Labels
    groups : ndarray of shape (n_rows,), intp
        Rows of a group are never on both sides.
    settings : HeadSettings
        Apart from the head and its solver.
    columns : mapping of str to tuple of (int, int)
        The blocks of features that each attribute's head reads.
    objective, n_jobs, progress
        See `featurepipe.models.studies.feature_choice.choose_features`.

    Returns
    -------
    list of HeadTrial
        The one with the best mean of the objective over the attributes is chosen.
    """
    hold_outs = HoldOuts.of(labels, groups, settings.seed)
    questions = make_questions(labels, Task.PER_ATTRIBUTE, columns, groups).questions
    of_heads = {head: replace(settings, head=head, solver=default_solver(head)) for head in HEADS}
    calls = [
        delayed(_answer)(X, attribute, question, folds, of_head)
        for of_head in of_heads.values()
        for attribute, question in zip(hold_outs, questions, strict=True)
        for folds in (attribute.seen, *(unseen.folds for unseen in attribute.unseen))
    ]
    right: list[Right] = []
    with threadpool_limits(limits=1), warnings.catch_warnings():
        # The recipe fixes the number of passes; users cannot change it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for answered in Parallel(n_jobs=n_jobs, backend="threading", return_as="generator")(calls):
            right.append(answered)
            if progress is not None:
                progress(len(right), len(calls))
    in_order = iter(right)
    answers = {head: _answers(hold_outs, in_order) for head in HEADS}
    scores = {
        head: np.mean([mean_right(of_one.wanted(objective)) for of_one in of_head])
        for head, of_head in answers.items()
    }
    chosen = max(HEADS, key=lambda head: scores[head])
    return [
        HeadTrial(
            head,
            float(np.mean([mean_right([of_one.seen]) for of_one in answers[head]])),
            float(np.mean([mean_right([of_one.unseen]) for of_one in answers[head]])),
            chosen=head == chosen,
        )
        for head in HEADS
    ]


def _answers(hold_outs: Sequence[HoldOuts], right: Iterator[Right]) -> list[HeldOutAnswers]:
    """Sort what one head answered by attribute; `right` is in the order of the calls."""
    seen: list[Right] = []
    tested: dict[tuple[str, str | None], Right] = {}
    for attribute in hold_outs:
        seen.append(next(right))
        for unseen in attribute.unseen:
            tested[attribute.name, unseen.other] = next(right)
    return [
        HeldOutAnswers(of_attribute, unseen_right(attribute, tested))
        for attribute, of_attribute in zip(hold_outs, seen, strict=True)
    ]


def _answer(
    X: Features, attribute: HoldOuts, question: Question, folds: Folds, settings: HeadSettings
) -> Right:
    """How often each row is answered correctly by the head that is fitted without its fold."""
    right = np.full(len(X), np.nan)
    for asked, away in folds:
        kept = np.flatnonzero(~np.isin(question.rows, away))
        head = fit_one_head(X, question, kept, settings)
        right[asked] = is_right(head.predict_proba(X[asked]), attribute.labels.take(asked))
    return right
