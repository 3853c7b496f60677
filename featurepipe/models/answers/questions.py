"""What each head is fitted to answer: an attribute, all labels, or combinations of classes."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import FitError
from featurepipe.manifest import Labels
from featurepipe.models.answers.arrays import Columns, Rows, Truth
from featurepipe.predictions import Task
from featurepipe.splits import pool_rare
from featurepipe.words import listed

logger = logging.getLogger(__name__)

ALL_LABELS = "all labels"
COMBINATIONS = "combinations"
LEAST_IMAGES_A_CLASS = 2


@dataclass(frozen=True)
class Question:
    """What one head is fitted to answer.

    Attributes
    ----------
    name : str
        An attribute, or `ALL_LABELS`, or `COMBINATIONS`.
    rows : ndarray of shape (n_rows,), intp
        The training rows that it is fitted on.
    truth : ndarray of shape (n_rows, n_classes), bool
    exclusive : bool
        True if each row has exactly one class.
    columns : tuple of (int, int)
        The blocks of features that the head reads.
    groups : ndarray of shape (n_rows,), intp
    """

    name: str
    rows: Rows
    truth: Truth
    exclusive: bool
    columns: Columns
    groups: Rows

    def take(self, rows: Rows) -> Self:
        """The same question of some of its rows.

        Parameters
        ----------
        rows : ndarray of int
            Positions among its rows.
        """
        return replace(self, rows=self.rows[rows], truth=self.truth[rows], groups=self.groups[rows])

    def strata(self, n_folds: int) -> Rows:
        """What folds keep in proportion: classes, or sets of labels.

        Parameters
        ----------
        n_folds : int

        Returns
        -------
        ndarray of shape (n_rows,), intp
        """
        if self.exclusive:
            return self.truth.argmax(axis=1)
        sets = np.unique(self.truth, axis=0, return_inverse=True)[1]
        return pool_rare(sets, n_folds)


@dataclass(frozen=True)
class Questions:
    """What all heads of a run are fitted to answer.

    Attributes
    ----------
    task : Task
    labels : dict of str to Labels
        The truth for each attribute.
    groups : ndarray of shape (n_train,), intp
    questions : list of Question
        One for each head.
    combinations : ndarray of shape (n_combinations, n_attributes), intp
        The class of each attribute in each combination that a joint head distinguishes; empty
        in the other tasks.
    """

    task: Task
    labels: dict[str, Labels]
    groups: Rows
    questions: list[Question]
    combinations: Rows


def make_questions(
    labels: dict[str, Labels], task: str, columns: Mapping[str, Columns], groups: Rows
) -> Questions:
    """Make the questions of a task, one for each head.

    Parameters
    ----------
    labels : dict of str to Labels
        Of the training rows.
    task : str
        A `Task` or its value. In the per-attribute task each head is fitted on the images
        labelled for its attribute, otherwise on those labelled for every attribute.
    columns : mapping of str to tuple of (int, int)
        For each attribute the blocks of features that its head reads.
    groups : ndarray of shape (n_train,), intp

    Returns
    -------
    Questions

    Raises
    ------
    FitError
        If an attribute has fewer than two classes, a class with a single image, or, in the
        joint task, sets of labels.
    """
    task = Task(task)
    if n_left_out := _n_without_some_label(labels, task):
        logger.info(
            "Left out %d of %d training images, which lack a label of some attribute.",
            n_left_out,
            len(groups),
        )
    return questions_of(labels, task, columns, groups)


def check_questions(labels: dict[str, Labels], task: str) -> None:
    """Raise the errors of `make_questions`, without its log message.

    Parameters
    ----------
    labels : dict of str to Labels
    task : str
        A `Task` or its value.

    Raises
    ------
    FitError
        See `make_questions`.
    """
    n_rows = max(map(len, labels.values()))
    questions_of(labels, Task(task), dict.fromkeys(labels, ()), np.arange(n_rows))


def questions_of(
    labels: dict[str, Labels], task: Task, columns: Mapping[str, Columns], groups: Rows
) -> Questions:
    """The questions of `make_questions`, without its log message.

    Parameters
    ----------
    labels, task, columns, groups
        See `make_questions`.

    Raises
    ------
    FitError
        See `make_questions`.
    """
    rows_for = _labelled_rows(labels, task)
    questions = [
        Question(
            name,
            rows_for[name],
            _rows_of(truth.indicator, rows_for[name]),
            truth.exclusive,
            columns[name],
            groups[rows_for[name]],
        )
        for name, truth in labels.items()
    ]
    for question in questions:
        _check_question(question, labels[question.name].classes)
    combinations = np.empty((0, len(labels)), np.intp)
    if task == Task.MULTI_LABEL:
        truth = np.hstack([question.truth for question in questions])
        questions = [replace(questions[0], name=ALL_LABELS, truth=truth, exclusive=False)]
    elif task == Task.JOINT:
        question, combinations = _joint_question(questions, labels)
        questions = [question]
    return Questions(task, labels, groups, questions, combinations)


def _rows_of(truth: Truth, rows: Rows) -> Truth:
    # Of a million rows and a hundred classes, a copy takes 100 MB.
    return truth if len(rows) == len(truth) else truth[rows]


def _labelled_rows(labels: Mapping[str, Labels], task: Task) -> dict[str, Rows]:
    """For each attribute the rows that its head is fitted on."""
    if task == Task.PER_ATTRIBUTE:
        return {name: np.flatnonzero(truth.labelled) for name, truth in labels.items()}
    return dict.fromkeys(labels, np.flatnonzero(_labelled_everywhere(labels)))


def _labelled_everywhere(labels: Mapping[str, Labels]) -> NDArray[np.bool_]:
    return np.asarray(np.all([truth.labelled for truth in labels.values()], axis=0))


def _n_without_some_label(labels: Mapping[str, Labels], task: Task) -> int:
    if task == Task.PER_ATTRIBUTE:
        return 0
    return int(np.count_nonzero(~_labelled_everywhere(labels)))


def _joint_question(
    questions: Sequence[Question], labels: Mapping[str, Labels]
) -> tuple[Question, Rows]:
    sets = [question.name for question in questions if not question.exclusive]
    if sets:
        raise FitError(
            f"Attribute {sets[0]!r} has sets of labels, but --task joint needs exactly one class "
            "of each attribute. Set --task multi-label."
        )
    codes = np.column_stack([question.truth.argmax(axis=1) for question in questions])
    combinations, number_of_row = np.unique(codes, axis=0, return_inverse=True)
    truth = number_of_row.reshape(-1, 1) == np.arange(len(combinations))
    joint = replace(questions[0], name=COMBINATIONS, truth=truth)
    classes = [labels[question.name].classes for question in questions]
    names = [
        "_".join(names[code] for names, code in zip(classes, combination, strict=True))
        for combination in combinations
    ]
    _check_question(joint, names)
    return joint, combinations


def _check_question(question: Question, classes: Sequence[str]) -> None:
    name, n_rows = question.name, len(question.rows)
    if not n_rows:
        raise FitError(
            f"No training image has a label of attribute {name!r}. Check the labels: at least 2 "
            f"classes with {LEAST_IMAGES_A_CLASS} images each are needed."
        )
    n_images = dict(zip(classes, question.truth.sum(axis=0).tolist(), strict=True))
    if not any(0 < n < n_rows for n in n_images.values()):
        shared = ", ".join(label for label, n in n_images.items() if n) or "none"
        raise FitError(
            f"All {n_rows} training images have the same label of attribute {name!r} ({shared}): "
            "one class cannot be told from another. Add images of another class, or choose other "
            "--attributes."
        )
    rare = [label for label, n in n_images.items() if 0 < n < LEAST_IMAGES_A_CLASS]
    if rare:
        raise FitError(
            f"Attribute {name!r} has classes with a single training image: "
            f"{listed(rare)}. Add images of them, or leave these classes out: a class needs at "
            f"least {LEAST_IMAGES_A_CLASS}."
        )
