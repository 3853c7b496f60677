"""What a trained network answers: the same heads as features have, on its scores and embeddings.

A network's rows hold the scores of all outputs, and behind them its embeddings. A `Head` takes
the scores as they are; calibration, thresholds and rejection are learnt on the validation images,
which are to a network what the rows held out by inner folds are to a head. Which epoch was best
was chosen on these very images, and so their own figures would be too good: each fold of them is
answered as the network answered after the epoch that was best on the other folds.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from featurepipe.manifest import Labels
from featurepipe.models.answers.finishing import FittedHeads, HeldOut, finish_heads
from featurepipe.models.answers.head_model import Columns, Head, Rows
from featurepipe.models.answers.questions import Question
from featurepipe.models.networks.network_settings import NetworkSettings
from featurepipe.models.networks.outputs import Output, Targets, total_losses
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
    questions, heads, held_out = [], {}, {}
    for question in train_questions:
        own = _among(question, validation)
        columns = _score_columns(question, outputs)
        head = _head_of(question, validation, columns)
        questions.append(own)
        heads[own.name] = head
        held_out[own.name] = _hold_out(own, head, scores, columns, outputs, targets, settings)
    return finish_heads(
        questions,
        heads,
        held_out,
        np.empty((0, len(labels)), np.intp),
        labels,
        groups,
        settings,
        predict_rows=lambda head, places: head.predict_proba(rows[places]),
        read_rows=lambda places: rows[places],
        most_rows=len(rows),
    )


def _among(question: Question, validation: Rows) -> Question:
    """A question of all training images, of those among them that validate."""
    place_of = {int(row): place for place, row in enumerate(validation)}
    kept = np.isin(question.rows, validation)
    return replace(
        question,
        rows=np.array([place_of[int(row)] for row in question.rows[kept]], np.intp),
        truth=question.truth[kept],
        groups=question.groups[kept],
    )


def _score_columns(question: Question, outputs: Sequence[Output]) -> slice:
    own = [output.columns for output in outputs if output.attribute == question.name]
    return own[0] if own else slice(0, outputs[-1].columns.stop)


def _head_of(question: Question, validation: Rows, columns: slice) -> Head:
    fitted = question.truth[~np.isin(question.rows, validation)]
    constant = np.asarray(fitted.all(axis=0))
    return Head(
        None,
        np.flatnonzero(fitted.any(axis=0) & ~constant),
        constant.astype(np.float64),
        question.exclusive,
        question.columns,
        scored=(columns.start, columns.stop),
    )


def _hold_out(
    question: Question,
    head: Head,
    scores: NDArray[np.float32],
    columns: slice,
    outputs: Sequence[Output],
    targets: Targets,
    settings: NetworkSettings,
) -> list[HeldOut]:
    """Each fold of the validation images, answered after the epoch that was best on the others."""
    folds = inner_folds(question.strata(N_FOLDS), question.groups, N_FOLDS, settings.seed)
    held_out = []
    for others, own in folds:
        losses = total_losses(outputs, scores, targets, question.rows[others])
        best = int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))
        of_fold = scores[best, question.rows[own], columns].astype(np.float64)
        known = np.full(of_fold.shape, np.nan)
        known[:, head.learnt] = of_fold[:, head.learnt]
        held_out.append(HeldOut(own, head, _probabilities(head, of_fold), known))
    return held_out


def _probabilities(head: Head, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    probabilities = np.tile(head.constant, (len(scores), 1))
    learnt = scores[:, head.learnt]
    probabilities[:, head.learnt] = softmax(learnt, axis=1) if head.exclusive else expit(learnt)
    return probabilities
