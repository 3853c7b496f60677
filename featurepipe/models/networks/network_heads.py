"""The heads of a trained network: they answer questions from its scores and embeddings.

The vector of an image holds the scores of all outputs, followed by the embeddings. A `ScoreHead`
uses the scores as they are. Calibration, thresholds and rejection are learnt on the validation
images, as those of other heads are learnt on out-of-fold predictions.

The validation images also chose the best epoch, which makes their scores too good. So each fold of
them gets the scores from the epoch that was best on the other folds.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featurepipe.models.answers.arrays import Columns
from featurepipe.models.answers.finishing import (
    FittedHeads,
    Fold,
    HeadFits,
    HeldOut,
    finish_heads,
)
from featurepipe.models.answers.head import KnownClasses, ScoreHead
from featurepipe.models.answers.questions import Question, Questions
from featurepipe.models.answers.row_chunks import RowChunks
from featurepipe.models.networks.losses import total_losses
from featurepipe.models.networks.material import Material
from featurepipe.models.networks.outputs import Output, Targets
from featurepipe.predictions import Task
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
    asked, fits = [], HeadFits({}, {})
    for train_question in material.questions:
        question = replace(train_question, columns=_columns_of(train_question, embeddings))
        head = _make_head(question, validation, outputs)
        question = _restrict(question, validation)
        folds = inner_folds(
            question.strata(N_FOLDS), question.groups, N_FOLDS, material.settings.seed
        )
        asked.append(question)
        fits.heads[question.name] = head
        held_out = HeldOut.nothing(len(validation), question.truth.shape[1])
        fits.held_out[question.name] = held_out
        for fold in folds:
            _hold_out(held_out, question, head, training.scores, outputs, targets, *fold)
    labels = {name: labels.take(validation) for name, labels in material.labels.items()}
    questions = Questions(
        Task(material.settings.task),
        labels,
        material.groups[validation],
        asked,
        np.empty((0, len(labels)), np.intp),
    )
    return finish_heads(questions, fits, RowChunks.in_memory(vectors), material.settings)


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


def _make_head(question: Question, validation: Indices, outputs: Sequence[Output]) -> ScoreHead:
    columns = [output.columns for output in outputs if output.attribute == question.name]
    scores = columns[0] if columns else slice(0, outputs[-1].columns.stop)
    fitted = question.truth[~np.isin(question.rows, validation)]
    return ScoreHead(
        KnownClasses.of(fitted, question.exclusive),
        question.columns,
        (scores.start, scores.stop),
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
    held_out: HeldOut,
    question: Question,
    head: ScoreHead,
    scores: NDArray[np.float32],
    outputs: Sequence[Output],
    targets: Targets,
    others: Indices,
    fold: Indices,
) -> None:
    """Write the scores of a fold after the epoch that was best on the other folds."""
    losses = total_losses(outputs, scores, targets, question.rows[others])
    best = int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))
    rows = question.rows[fold]
    X = scores[best, rows]
    held_out.write(rows, head.predict_proba(X), head.decision_scores(X))
    held_out.folds.append(Fold(fold, head.known))
