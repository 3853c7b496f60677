"""Outputs and targets: what a network predicts, and the truth it is trained on."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurepipe.manifest import Labels
from featurepipe.models.networks.network_settings import NetworkSettings


@dataclass(frozen=True)
class Output:
    """The output of a network for one attribute.

    Attributes
    ----------
    attribute : str
    layer : str
        Name of the layer that returns probabilities. The layer before it, ``LAYER_scores``,
        returns scores.
    n_classes : int
    softmax : bool
        Whether the probabilities are a softmax; otherwise each is a sigmoid.
    exclusive : bool
        Whether each image has exactly one class.
    weight : float
        Weight of its loss.
    columns : slice
        Columns of its scores among those of all outputs.
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
        By attribute: 1 where an image has a class, else 0.
    weights : dict of str to ndarray of shape (n_images,), float32
        By attribute: sample weight of each image, 0 where its label is missing.
    identities : ndarray of shape (n_images,), intp
        Images with the same identity have the same labels for all attributes; -1 where a label
        is missing.
    """

    truth: dict[str, NDArray[np.float32]]
    weights: dict[str, NDArray[np.float32]]
    identities: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.identities)

    def take(self, images: NDArray[np.intp]) -> "Targets":
        """Targets of some of the images.

        Parameters
        ----------
        images : ndarray of shape (n_images,), intp
            Positions.
        """
        return Targets(
            {name: values[images] for name, values in self.truth.items()},
            {name: values[images] for name, values in self.weights.items()},
            self.identities[images],
        )


def make_outputs(labels: Mapping[str, Labels], settings: NetworkSettings) -> list[Output]:
    """Make one output for each attribute, in the order of the attributes.

    In the multi-label task, the loss of an output is weighted by its number of labels, so that the
    total is the mean over all labels.
    """
    n_labels = sum(len(attribute.classes) for attribute in labels.values())
    outputs: list[Output] = []
    start = 0
    for number, (name, attribute) in enumerate(labels.items(), start=1):
        n_classes = len(attribute.classes)
        is_multi_label = settings.task == "multi-label"
        share = n_classes / n_labels if is_multi_label else 1.0
        outputs.append(
            Output(
                attribute=name,
                layer=_layer_name(name, number, [output.layer for output in outputs]),
                n_classes=n_classes,
                softmax=attribute.exclusive and not is_multi_label,
                exclusive=attribute.exclusive,
                weight=share * settings.loss_weights.get(name, 1.0),
                columns=slice(start, start + n_classes),
            )
        )
        start += n_classes
    return outputs


def _layer_name(attribute: str, number: int, taken: Sequence[str]) -> str:
    """The attribute's name in characters that Keras accepts, and used by no other layer."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", attribute).lstrip("_-") or "output"
    # These endings name other layers of an output.
    is_free = not name.endswith(("_partner", "_scores"))
    reserved = {"same", "pixels", "partners", *taken}
    while name in reserved or not is_free:
        name, is_free = f"{name}_{number}", True
    return name


def make_targets(labels: Mapping[str, Labels], settings: NetworkSettings) -> Targets:
    """Make the targets and sample weights of some images.

    In the multi-label task, an image without a label for every attribute has the weight 0.
    `NetworkSettings.class_weight` decides the weights of the other images.

    Parameters
    ----------
    labels : mapping of str to Labels
    settings : NetworkSettings
    """
    is_complete = np.all([attribute.labelled for attribute in labels.values()], axis=0)
    truth, weights = {}, {}
    for name, attribute in labels.items():
        counts = is_complete if settings.task == "multi-label" else attribute.labelled
        truth[name] = attribute.indicator.astype(np.float32)
        weights[name] = counts.astype(np.float32)
        if settings.class_weight == "balanced":
            weights[name] *= balanced_weights(attribute.indicator, counts)
    indicators = np.hstack([attribute.indicator for attribute in labels.values()])
    _, identities = np.unique(indicators, axis=0, return_inverse=True)
    return Targets(truth, weights, np.where(is_complete, identities.reshape(-1), -1))


def balanced_weights(
    indicator: NDArray[np.bool_], counts: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Sample weights that give every class the same total weight.

    Parameters
    ----------
    indicator : ndarray of shape (n_images, n_classes), bool
    counts : ndarray of shape (n_images,), bool
        Images that count.

    Returns
    -------
    ndarray of shape (n_images,), float32
        ``n_images / (n_classes n)`` for an image whose class has n images, as in scikit-learn. An
        image with several labels gets their mean, an image without any gets 1.
    """
    images_per_class = indicator[counts].sum(axis=0)
    occurs = images_per_class > 0
    class_weights = np.zeros(indicator.shape[1])
    class_weights[occurs] = counts.sum() / (occurs.sum() * images_per_class[occurs])
    n_labels = indicator.sum(axis=1)
    mean = (indicator @ class_weights) / np.maximum(n_labels, 1)
    return np.where(n_labels > 0, mean, 1).astype(np.float32)
