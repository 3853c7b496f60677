"""Evaluation: scores, losses and accuracies of the validation images after an epoch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurepipe.models.networks.compiling import SAME_WEIGHT
from featurepipe.models.networks.losses import cross_entropies, image_accuracies, total_losses
from featurepipe.models.networks.material import Dataset
from featurepipe.models.networks.network import SAME, Network
from featurepipe.models.networks.verification import pair_figures


@dataclass(frozen=True)
class Evaluation:
    """Scores, losses and accuracies of the validation images after an epoch.

    Attributes
    ----------
    scores : ndarray of shape (n_validation, n_scores), float32
    figures : dict of str to float
        By columns of the history: ``validation_loss``; ``attributes_loss``, the same without
        pairs; for each attribute and ``same`` ``validation_loss:NAME`` and
        ``validation_accuracy:NAME``.
    """

    scores: NDArray[np.float32]
    figures: dict[str, float]


def evaluate(
    network: Network, validation: Dataset, batch_size: int, *, uses_features: bool
) -> Evaluation:
    """Evaluate a network on the validation images.

    Parameters
    ----------
    network : Network
    validation : Dataset
    batch_size : int
    uses_features : bool
        Whether to use the cached features where there are any; otherwise the pixels.
    """
    if uses_features and validation.features is not None:
        embeddings = validation.features
        scores = network.score_features(validation.features)
    else:
        vectors = network.score_and_embed_in_batches(validation.load, len(validation), batch_size)
        scores, embeddings = vectors[:, : network.n_scores], vectors[:, network.n_scores :]
    targets = validation.targets
    loss = float(total_losses(network.outputs, scores, targets))
    figures = {"attributes_loss": loss}
    for output in network.outputs:
        counts = targets.weights[output.attribute] > 0
        truth = targets.truth[output.attribute][counts]
        counted = scores[counts][:, output.columns]
        losses = cross_entropies(output, counted, truth)
        accuracies = image_accuracies(output, counted, truth)
        figures[f"validation_loss:{output.attribute}"] = _mean(losses)
        figures[f"validation_accuracy:{output.attribute}"] = _mean(accuracies)
    figures["validation_loss"] = loss
    if network.same is not None:
        same_loss, accuracy = pair_figures(
            embeddings, targets.identities, network.same.get_weights()
        )
        figures |= {f"validation_loss:{SAME}": same_loss, f"validation_accuracy:{SAME}": accuracy}
        # As in training, both images of a pair contribute their loss.
        figures["validation_loss"] = 2 * loss + SAME_WEIGHT * same_loss
    return Evaluation(scores, figures)


def _mean(values: Sequence[float] | NDArray[np.float64]) -> float:
    return float(np.mean(values)) if len(values) else math.nan
