"""What a trained network answers: the same heads as features have, on its scores and embeddings.

A network's rows hold the scores of all outputs, and behind them its embeddings. A `ScoreHead` takes
the scores as they are; calibration, thresholds and rejection are learnt on the validation images,
which are to a network what the rows held out by inner folds are to a head. Which epoch was best
was chosen on these very images, and so their own figures would be too good: each fold of them is
answered as the network answered after the epoch that was best on the other folds.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from featurepipe.manifest import Labels
from featurepipe.models.answers.arrays import Columns, Rows
from featurepipe.models.answers.finishing import FittedHeads, HeadFits, HeldOut, finish_heads
from featurepipe.models.answers.head import KnownClasses, ScoreHead
from featurepipe.models.answers.questions import Question, Questions
from featurepipe.models.answers.row_chunks import RowChunks
from featurepipe.models.networks.network_settings import NetworkSettings
from featurepipe.models.networks.outputs import Output, Targets, total_losses
from featurepipe.predictions import Task
from featurepipe.splits import inner_folds

N_FOLDS = 5


def embedding_columns(outputs: Sequence[Output], widths: Sequence[int]) -> dict[str, Columns]:
    """For each attribute the columns of the embedding that its scores are made of.

    Parameters
    ----------
    outputs : sequence of Output
    widths : sequence of int
        Of the embeddings: one for all outputs, or one for each.
    """
    n_scores = outputs[-1].columns.stop
    ends = n_scores + np.cumsum([0, *widths])
    of_block = [(int(ends[k]), int(ends[k + 1])) for k in range(len(widths))]
    if len(of_block) == 1:
        of_block *= len(outputs)
    return {output.attribute: (of_block[k],) for k, output in enumerate(outputs)}


def finish_network(
    rows: NDArray[np.float32],
    scores: NDArray[np.float32],
    outputs: Sequence[Output],
    train_questions: Sequence[Question],
    validation: Rows,
    targets: Targets,
    labels: dict[str, Labels],
    groups: NDArray[np.intp],
    settings: NetworkSettings,
) -> FittedHeads:
    """Learn calibration, thresholds and rejection from the validation images.

    Parameters
    ----------
    rows : ndarray of shape (n_validation, n_scores + n_embedding), float32
        `Network.read` of the validation images.
    scores : ndarray of shape (n_epochs, n_validation, n_scores), float32
        What they were answered after each epoch.
    outputs : sequence of Output
    train_questions : sequence of Question
        Of all training images.
    validation : ndarray of shape (n_validation,), intp
        Which of these are the validation images.
    targets : Targets
    labels : dict of str to Labels
    groups : ndarray of shape (n_validation,), intp
        All three of the validation images.
    settings : NetworkSettings

    Returns
    -------
    FittedHeads
        ``out_of_fold`` and ``uncalibrated`` are of the validation images.
    """
    asked = []
    fits = HeadFits({}, {})
    for question in train_questions:
        head = _head_of(question, validation, outputs)
        validated = _among(question, validation)
        asked.append(validated)
        fits.heads[question.name] = head
        fits.held_out[question.name] = _hold_out(
            validated, head, scores, outputs, targets, settings
        )
    questions = Questions(
        Task(settings.task), labels, groups, asked, np.empty((0, len(labels)), np.intp)
    )
    return finish_heads(questions, fits, RowChunks.in_memory(rows), settings)


def _among(question: Question, validation: Rows) -> Question:
    """A question of all training images, asked of the validation images among them."""
    position_of = {int(row): position for position, row in enumerate(validation)}
    validated = question.take(np.flatnonzero(np.isin(question.rows, validation)))
    rows = np.array([position_of[int(row)] for row in validated.rows], np.intp)
    return replace(validated, rows=rows)


def _head_of(question: Question, validation: Rows, outputs: Sequence[Output]) -> ScoreHead:
    columns = [output.columns for output in outputs if output.attribute == question.name]
    scores = columns[0] if columns else slice(0, outputs[-1].columns.stop)
    fitted = question.truth[~np.isin(question.rows, validation)]
    return ScoreHead(
        KnownClasses.of(fitted, question.exclusive),
        question.columns,
        (scores.start, scores.stop),
    )


def _hold_out(
    question: Question,
    head: ScoreHead,
    scores: NDArray[np.float32],
    outputs: Sequence[Output],
    targets: Targets,
    settings: NetworkSettings,
) -> list[HeldOut]:
    """Each fold of the validation images, answered after the epoch that was best on the others."""
    folds = inner_folds(question.strata(N_FOLDS), question.groups, N_FOLDS, settings.seed)
    held_out = []
    for others, fold in folds:
        losses = total_losses(outputs, scores, targets, question.rows[others])
        best = int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))
        X = scores[best, question.rows[fold]]
        held_out.append(HeldOut(fold, head.known, head.predict_proba(X), head.decision_scores(X)))
    return held_out
