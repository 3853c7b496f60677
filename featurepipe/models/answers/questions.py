"""What each head is fitted to answer."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import FitError
from featurepipe.manifest import Labels
from featurepipe.models.answers.head_model import ALL_LABELS, COMBINATIONS, Columns, Rows

logger = logging.getLogger(__name__)

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
        The blocks of features that it reads.
    groups : ndarray of shape (n_rows,), intp
    """

    name: str
    rows: Rows
    truth: NDArray[np.bool_]
    exclusive: bool
    columns: Columns
    groups: NDArray[np.intp]

    def strata(self, n_folds: int) -> Rows:
        """What folds keep in proportion: classes, or sets of them that are in every fold.

        Parameters
        ----------
        n_folds : int

        Returns
        -------
        ndarray of shape (n_rows,), intp
        """
        if self.exclusive:
            return self.truth.argmax(axis=1)
        _, sets, counts = np.unique(self.truth, axis=0, return_inverse=True, return_counts=True)
        # Sets too rare to be in every fold are spread as one.
        return np.where(counts[sets] < n_folds, len(counts), sets)


def make_questions(
    labels: dict[str, Labels],
    task: str,
    columns: Mapping[str, Columns],
    groups: NDArray[np.intp],
) -> tuple[list[Question], Rows]:
    """What is to be fitted, and the combinations that a joint head tells apart.

    Parameters
    ----------
    labels : dict of str to Labels
    task : {"per-attribute", "multi-label", "joint"}
    columns : mapping of str to tuple of (int, int)
        For each attribute the blocks of features to read.
    groups : ndarray of shape (n_train,), intp

    Returns
    -------
    questions : list of Question
    combinations : ndarray of shape (n_combinations, n_attributes), intp
        Empty but for the joint task.

    Raises
    ------
    FitError
        If an attribute has fewer than two classes, a class with a single image, or for
        the joint task sets of labels.
    """
    if task != "per-attribute":
        everywhere = np.all([each.labelled for each in labels.values()], axis=0)
        if n_left_out := np.count_nonzero(~everywhere):
            logger.info(
                "Left out %d of %d training images: they lack a label of some attribute.",
                n_left_out,
                len(everywhere),
            )
    return _make_questions(labels, task, columns, groups)


def check_questions(labels: dict[str, Labels], task: str) -> None:
    """Raise the errors of `make_questions`.

    Parameters
    ----------
    labels : dict of str to Labels
    task : {"per-attribute", "multi-label", "joint"}

    Raises
    ------
    FitError
        See `make_questions`.
    """
    n_rows = max(map(len, labels.values()))
    _make_questions(labels, task, dict.fromkeys(labels, ()), np.arange(n_rows))


def _make_questions(
    labels: dict[str, Labels],
    task: str,
    columns: Mapping[str, Columns],
    groups: NDArray[np.intp],
) -> tuple[list[Question], Rows]:
    if task == "per-attribute":
        rows_of = {name: np.flatnonzero(each.labelled) for name, each in labels.items()}
    else:
        everywhere = np.all([each.labelled for each in labels.values()], axis=0)
        rows_of = dict.fromkeys(labels, np.flatnonzero(everywhere))
    questions = [
        Question(
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
    questions: Sequence[Question], labels: dict[str, Labels]
) -> tuple[Question, Rows]:
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


def _check_question(question: Question, classes: Sequence[str]) -> None:
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


def targets_of(truth: NDArray[np.bool_], learnt: Rows, exclusive: bool) -> NDArray[np.intp]:
    """The truth as scikit-learn takes it.

    Parameters
    ----------
    truth : ndarray of shape (n_rows, n_classes), bool
    learnt : ndarray of shape (n_learnt,), intp
        Columns that tell rows apart.
    exclusive : bool

    Returns
    -------
    ndarray of shape (n_rows,) or (n_rows, n_learnt), intp
        Codes of exclusive classes and of a single label, else an indicator.
    """
    if exclusive:
        return truth.argmax(axis=1)
    columns = truth[:, learnt].astype(np.intp)
    return columns.ravel() if len(learnt) == 1 else columns
