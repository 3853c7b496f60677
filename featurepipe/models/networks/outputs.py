"""Outputs: what a network answers, what the truth is, and how far off an answer is."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit, log_softmax

from featurepipe.errors import UsageError
from featurepipe.manifest import Labels
from featurepipe.models.networks.network_settings import NetworkSettings

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Output:
    """One answer of a network.

    Attributes
    ----------
    attribute : str
    layer : str
        Name of the layer that gives its probabilities; the one before it, which gives scores,
        is called ``LAYER_scores``.
    n_classes : int
    softmax : bool
        Whether its probabilities are a softmax; else each is a sigmoid of its own.
    exclusive : bool
        Whether each image has exactly one class.
    weight : float
        Of its loss.
    columns : slice
        Its scores among those of all outputs, side by side.
    """

    attribute: str
    layer: str
    n_classes: int
    softmax: bool
    exclusive: bool
    weight: float
    columns: slice


@dataclass(frozen=True)
class Targets:
    """The truth about some images.

    Attributes
    ----------
    truth : dict of str to ndarray of shape (n_images, n_classes), float32
        1 where an image has a class; by attribute.
    weights : dict of str to ndarray of shape (n_images,), float32
        How much an image counts: 0 where its label is missing; by attribute.
    kinds : ndarray of shape (n_images,), intp
        Images of one number have the same labels of all attributes; -1 where one is missing.
    """

    truth: dict[str, NDArray[np.float32]]
    weights: dict[str, NDArray[np.float32]]
    kinds: NDArray[np.intp]

    def take(self, rows: NDArray[np.intp]) -> "Targets":
        """The same about some of the images."""
        return Targets(
            {name: each[rows] for name, each in self.truth.items()},
            {name: each[rows] for name, each in self.weights.items()},
            self.kinds[rows],
        )


def make_outputs(labels: Mapping[str, Labels], settings: NetworkSettings) -> list[Output]:
    """One output for each attribute, in their order.

    In the multi-label task a loss weighs as many labels as it has: together they are the mean
    over all labels.

    Raises
    ------
    UsageError
        If a weight or a branch is given to an attribute that there is not.
    """
    for option, given in (
        ("--loss-weights", settings.loss_weights),
        ("--branches", settings.branches),
    ):
        for name in given:
            if name not in labels:
                raise UsageError(
                    f"{option} names {name!r}, which is no attribute. Expected of: "
                    f"{', '.join(labels)}."
                )
    n_labels = sum(len(each.classes) for each in labels.values())
    outputs: list[Output] = []
    start = 0
    for number, (name, each) in enumerate(labels.items(), start=1):
        n_classes = len(each.classes)
        softmax = settings.task == "per-attribute" and each.exclusive
        share = n_classes / n_labels if settings.task == "multi-label" else 1.0
        outputs.append(
            Output(
                attribute=name,
                layer=_layer_name(name, number, [output.layer for output in outputs]),
                n_classes=n_classes,
                softmax=softmax,
                exclusive=each.exclusive,
                weight=share * settings.loss_weights.get(name, 1.0),
                columns=slice(start, start + n_classes),
            )
        )
        start += n_classes
    return outputs


def _layer_name(attribute: str, number: int, taken: Sequence[str]) -> str:
    """The attribute's name, as Keras takes it for a layer's."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", attribute).lstrip("_-") or "output"
    # What an output's other layers are called must be no attribute's.
    clear = not name.endswith(("_partner", "_scores"))
    reserved = {"same", "pixels", "partners", *taken}
    while name in reserved or not clear:
        name, clear = f"{name}_{number}", True
    return name


def make_targets(labels: Mapping[str, Labels], settings: NetworkSettings) -> Targets:
    """The truth about some images, and how much each counts.

    Parameters
    ----------
    labels : mapping of str to Labels
    settings : NetworkSettings
        In the multi-label task images that lack a label of any attribute do not count;
        ``class_weight`` says how much others do.

    Returns
    -------
    Targets
    """
    everywhere = np.all([each.labelled for each in labels.values()], axis=0)
    truth, weights = {}, {}
    for name, each in labels.items():
        counts = everywhere if settings.task == "multi-label" else each.labelled
        truth[name] = each.indicator.astype(np.float32)
        weights[name] = counts.astype(np.float32)
        if settings.class_weight == "balanced":
            weights[name] *= balanced_weights(each.indicator, counts)
    _, kinds = np.unique(
        np.hstack([each.indicator for each in labels.values()]), axis=0, return_inverse=True
    )
    return Targets(truth, weights, np.where(everywhere, kinds.reshape(-1), -1))


def balanced_weights(
    indicator: NDArray[np.bool_], counts: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Weights by which each class counts as much as every other.

    Parameters
    ----------
    indicator : ndarray of shape (n_images, n_classes), bool
    counts : ndarray of shape (n_images,), bool
        Which images are counted.

    Returns
    -------
    ndarray of shape (n_images,), float32
        ``n_images / (n_classes n)`` of an image's class of n images, as scikit-learn has it;
        of a set of labels their mean, and 1 of an empty set.
    """
    n_of_class = indicator[counts].sum(axis=0)
    occurring = n_of_class > 0
    of_class = np.zeros(indicator.shape[1])
    of_class[occurring] = counts.sum() / (occurring.sum() * n_of_class[occurring])
    n_labels = indicator.sum(axis=1)
    mean = (indicator @ of_class) / np.maximum(n_labels, 1)
    return np.where(n_labels > 0, mean, 1).astype(np.float32)


def row_losses(output: Output, scores: Scores, truth: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cross-entropy of each image, in nats.

    Parameters
    ----------
    output : Output
    scores : ndarray of shape (..., n_images, n_classes)
        Those of this output.
    truth : ndarray of shape (n_images, n_classes), float32

    Returns
    -------
    ndarray of shape (..., n_images), float64
        Of a softmax, minus the log-probability of the true class; else the mean over the labels.
    """
    scores = scores.astype(np.float64)
    if output.softmax:
        return -(truth * log_softmax(scores, axis=-1)).sum(axis=-1)
    return -(truth * log_expit(scores) + (1 - truth) * log_expit(-scores)).mean(axis=-1)


def row_hits(output: Output, scores: Scores, truth: NDArray[np.float32]) -> NDArray[np.float64]:
    """How much of each answer is right.

    Returns
    -------
    ndarray of shape (n_images,), float64
        Of an exclusive attribute 1 where the highest score is of the true class, else the share of
        labels on the right side of 0.
    """
    if output.exclusive:
        return (scores.argmax(axis=1) == truth.argmax(axis=1)).astype(np.float64)
    return ((scores > 0) == (truth > 0)).mean(axis=1)


def total_losses(
    outputs: Sequence[Output],
    scores: Scores,
    targets: Targets,
    rows: NDArray[np.intp] | slice = np.s_[:],
) -> NDArray[np.float64]:
    """The loss over some images, all outputs by their weights.

    Parameters
    ----------
    outputs : sequence of Output
    scores : ndarray of shape (..., n_images, n_scores), float32
    targets : Targets
    rows : ndarray of int or slice
        Default: all.

    Returns
    -------
    ndarray of shape (...), float64
        Missing labels do not count, nor do class weights.
    """
    total = np.zeros(scores.shape[:-2])
    for output in outputs:
        truth, name = targets.truth[output.attribute], output.attribute
        counted = np.zeros(len(truth), dtype=bool)
        counted[rows] = targets.weights[name][rows] > 0
        if counted.any():
            losses = row_losses(output, scores[..., counted, output.columns], truth[counted])
            total = total + output.weight * losses.mean(axis=-1)
    return total
