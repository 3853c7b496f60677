"""Choose the head for the features that were chosen, by the same folds of training rows.

The features were chosen with ridge regression. So it is also checked whether they are good with the
head that will read them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featurepipe.manifest import Labels
from featurepipe.models.answers.arrays import Columns, Features, Rows
from featurepipe.models.answers.questions import Question, make_questions
from featurepipe.models.heads.fitting import Advance, fit_one_head, run_jobs
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.studies.hold_outs import (
    Folds,
    HeldOutAnswers,
    HoldOuts,
    Right,
    is_right,
    is_worse_on_either,
    mean_right,
    unseen_right,
)
from featurepipe.predictions import Task

HEADS = ("bagged-sgd", "logistic")
"""The heads that are tried unless one is named."""


@dataclass(frozen=True)
class HeadTrial:
    """How well a head recognises the attributes by the features that were chosen for each.

    Attributes
    ----------
    head : str
    seen_accuracy, unseen_accuracy : float
        As of a `featurepipe.models.studies.feature_choice.Trial`, means over the attributes.
    chosen : bool
    ordinary : tuple of str
        Attributes for which this head reads the ordinary block after all, since it is worse with
        the chosen features on either measure.
    """

    head: str
    seen_accuracy: float
    unseen_accuracy: float
    chosen: bool
    ordinary: tuple[str, ...]


def choose_head(
    X: Features,
    labels: dict[str, Labels],
    groups: Rows,
    settings: HeadSettings,
    columns: Mapping[str, Columns],
    ordinary: Columns,
    *,
    heads: Sequence[str] = HEADS,
    objective: str = "balanced",
    n_jobs: int = -1,
    progress: Advance | None = None,
) -> list[HeadTrial]:
    """Fit heads without the rows of every fold, and ask them about these.

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
        The blocks of features that were chosen for each attribute.
    ordinary : tuple of (int, int)
        The `featurepipe.models.studies.feature_choice.ordinary_block`.
    heads : sequence of str
        The heads to choose from; the first is chosen at a tie.
    objective, n_jobs, progress
        See `featurepipe.models.studies.feature_choice.choose_features`.

    Returns
    -------
    list of HeadTrial
        The one with the best mean of the objective over the attributes is chosen.
    """
    hold_outs = HoldOuts.of(labels, groups, settings.seed)
    sets = (columns, dict.fromkeys(labels, ordinary))
    jobs = [
        (attribute, question, folds, of_head)
        for of_head in (settings.with_head(head) for head in heads)
        for read in sets
        for attribute, question in zip(
            hold_outs,
            make_questions(labels, Task.PER_ATTRIBUTE, read, groups).questions,
            strict=True,
        )
        for folds in (attribute.seen, *(unseen.folds for unseen in attribute.unseen))
    ]
    in_order = iter(run_jobs(_answer, X, jobs, n_jobs, progress))
    answers: dict[str, list[HeldOutAnswers]] = {}
    kept: dict[str, tuple[str, ...]] = {}
    for head in heads:
        by_chosen, by_ordinary = (_answers(hold_outs, in_order) for _ in sets)
        stays = [
            objective == "balanced" and is_worse_on_either(there, here, groups)
            for here, there in zip(by_chosen, by_ordinary, strict=True)
        ]
        answers[head] = [
            there if stay else here
            for here, there, stay in zip(by_chosen, by_ordinary, stays, strict=True)
        ]
        kept[head] = tuple(name for name, stay in zip(labels, stays, strict=True) if stay)
    scores = {
        head: np.mean([mean_right(of_one.wanted(objective)) for of_one in of_head])
        for head, of_head in answers.items()
    }
    chosen = max(heads, key=lambda head: scores[head])
    return [
        HeadTrial(
            head,
            float(np.mean([mean_right([of_one.seen]) for of_one in answers[head]])),
            float(np.mean([mean_right([of_one.unseen]) for of_one in answers[head]])),
            chosen=head == chosen,
            ordinary=kept[head],
        )
        for head in heads
    ]


def _answers(hold_outs: Sequence[HoldOuts], right: Iterator[Right]) -> list[HeldOutAnswers]:
    """Sort what one head answered by attribute; `right` is in the order of the jobs."""
    answers = []
    for attribute in hold_outs:
        seen = next(right)
        # Of this attribute alone: others read other features, so how often they are mistaken
        # says nothing about rows that could not be asked.
        tested = {(attribute.name, unseen.other): next(right) for unseen in attribute.unseen}
        answers.append(HeldOutAnswers(seen, unseen_right(attribute, tested)))
    return answers


def _answer(X: Features, job: tuple[HoldOuts, Question, Folds, HeadSettings]) -> Right:
    """How often each row is answered correctly by the head that is fitted without its fold."""
    attribute, question, folds, settings = job
    right = np.full(len(X), np.nan)
    for asked, away in folds:
        kept = np.flatnonzero(~np.isin(question.rows, away))
        head = fit_one_head(X, question, kept, settings)
        right[asked] = is_right(head.predict_proba(X[asked]), attribute.labels.take(asked))
    return right
