"""The heads of a trained network: they answer questions from its scores and embeddings.

The vector of an image holds the scores of all outputs, followed by the embeddings. A `Head` uses
the scores as they are. Calibration, thresholds and rejection are learnt on the validation images,
as those of other heads are learnt on out-of-fold predictions.

The validation images also chose the best epoch, which makes their scores too good. So each fold of
them gets the scores from the epoch that was best on the other folds.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from featurepipe.models.answers.finishing import FittedHeads, HeldOut, finish_heads
from featurepipe.models.answers.head_model import Columns, Head
from featurepipe.models.answers.questions import Question
from featurepipe.models.networks.losses import total_losses
from featurepipe.models.networks.material import Material
from featurepipe.models.networks.outputs import Output, Targets
from featurepipe.splits import inner_folds

if TYPE_CHECKING:
    from featurepipe.models.networks.network import Network
    from featurepipe.models.networks.training_loop import Training

Indices = NDArray[np.intp]

N_FOLDS = 5


def finish_network(
    material: Material,
    network: "Network",
    vectors: NDArray[np.float32],
    training: "Training",
) -> FittedHeads:
    """Make the heads of a trained network: learn calibration, thresholds and rejection.

    Parameters
    ----------
    material : Material
    network : Network
    vectors : ndarray of shape (n_validation, n_scores + n_embedding), float32
        `Network.score_and_embed` of the validation images.
    training : Training

    Returns
    -------
    FittedHeads
        ``out_of_fold`` and ``uncalibrated`` are predictions of the validation images.
    """
    validation, outputs = material.validation, network.outputs
    targets = material.targets.take(validation)
    embeddings = _embedding_columns(outputs, network.embedding_widths)
    questions, heads, held_out = [], {}, {}
    for train_question in material.questions:
        question = replace(train_question, columns=_columns_of(train_question, embeddings))
        columns = _score_columns(question, outputs)
        head = _make_head(question, validation, columns)
        question = _restrict(question, validation)
        folds = inner_folds(
            question.strata(N_FOLDS), question.groups, N_FOLDS, material.settings.seed
        )
        questions.append(question)
        heads[question.name] = head
        held_out[question.name] = [
            _hold_out(question, head, training.scores, columns, outputs, targets, *fold)
            for fold in folds
        ]
    labels = {name: labels.take(validation) for name, labels in material.labels.items()}
    return finish_heads(
        questions,
        heads,
        held_out,
        np.empty((0, len(labels)), np.intp),
        labels,
        material.groups[validation],
        material.settings,
        predict_rows=lambda head, rows: head.predict_proba(vectors[rows]),
        read_rows=lambda rows: vectors[rows],
        most_rows=len(vectors),
    )


def _embedding_columns(outputs: Sequence[Output], widths: Sequence[int]) -> dict[str, Columns]:
    """By attribute: the columns of the embedding that its scores are computed from."""
    ends = outputs[-1].columns.stop + np.cumsum([0, *widths])
    blocks = [(int(start), int(end)) for start, end in pairwise(ends)]
    if len(blocks) == 1:
        blocks *= len(outputs)
    return {output.attribute: (block,) for output, block in zip(outputs, blocks, strict=True)}


def _columns_of(question: Question, embeddings: dict[str, Columns]) -> Columns:
    if question.name in embeddings:
        return embeddings[question.name]
    # One head over all labels uses every embedding once.
    return tuple(dict.fromkeys(block for blocks in embeddings.values() for block in blocks))


def _score_columns(question: Question, outputs: Sequence[Output]) -> slice:
    for output in outputs:
        if output.attribute == question.name:
            return output.columns
    return slice(0, outputs[-1].columns.stop)


def _make_head(question: Question, validation: Indices, columns: slice) -> Head:
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


def _restrict(question: Question, validation: Indices) -> Question:
    """Restrict a question about all training images to the validation images."""
    position_of = {int(row): position for position, row in enumerate(validation)}
    is_kept = np.isin(question.rows, validation)
    return replace(
        question,
        rows=np.array([position_of[int(row)] for row in question.rows[is_kept]], np.intp),
        truth=question.truth[is_kept],
        groups=question.groups[is_kept],
    )


def _hold_out(
    question: Question,
    head: Head,
    scores: NDArray[np.float32],
    columns: slice,
    outputs: Sequence[Output],
    targets: Targets,
    others: Indices,
    fold: Indices,
) -> HeldOut:
    """The scores of a fold after the epoch that was best on the other folds."""
    losses = total_losses(outputs, scores, targets, question.rows[others])
    best = int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))
    fold_scores = scores[best, question.rows[fold], columns].astype(np.float64)
    known = np.full(fold_scores.shape, np.nan)
    known[:, head.learnt] = fold_scores[:, head.learnt]
    return HeldOut(fold, head, _probabilities(head, fold_scores), known)


def _probabilities(head: Head, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    probabilities = np.tile(head.constant, (len(scores), 1))
    learnt = scores[:, head.learnt]
    probabilities[:, head.learnt] = softmax(learnt, axis=1) if head.exclusive else expit(learnt)
    return probabilities
