"""Compiling a stage for Keras: its optimiser, and the loss and accuracy of each output."""

import math
from typing import Any

from featurepipe.features.engines.quiet_keras import keras
from featurepipe.models.networks.network import PARTNER, SAME, Network
from featurepipe.models.networks.outputs import Output
from featurepipe.models.networks.recipes import Stage

SAME_WEIGHT = 0.5
"""Loss weight of "same or different", as published; see `featurepipe.models.networks.zoo.pair`."""


def compile_graph(graph: "keras.Model", network: Network, stage: Stage, n_epochs: int) -> None:
    """Compile a graph for one stage.

    Parameters
    ----------
    graph : keras.Model
        `Network.training_graph` or `Network.features_graph`.
    network : Network
    stage : Stage
    n_epochs : int
        Maximum number of epochs of the stage.
    """
    by_output = {output.layer: output for output in network.outputs}
    losses: dict[str, Any] = {name: _loss(output) for name, output in by_output.items()}
    weights = {name: output.weight for name, output in by_output.items()}
    metrics = {name: [_accuracy(output)] for name, output in by_output.items()}
    if network.same is not None:
        losses |= {f"{name}{PARTNER}": _loss(output) for name, output in by_output.items()}
        weights |= {f"{name}{PARTNER}": output.weight for name, output in by_output.items()}
        losses[SAME] = keras.losses.BinaryCrossentropy(from_logits=True)
        weights[SAME] = SAME_WEIGHT
        metrics[SAME] = [keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)]
    optimizer = _optimizer(stage, n_epochs)
    # Without loss scaling, small gradients underflow in float16. Keras does not scale by itself,
    # since the policy of the graph is float32.
    if network.trunk.compute_dtype == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    graph.compile(
        optimizer,
        loss=losses,
        loss_weights=weights,
        weighted_metrics=metrics,
    )
    graph.optimizer.build(graph.trainable_variables)


def _loss(output: Output) -> "keras.Loss":
    kind = "CategoricalCrossentropy" if output.softmax else "BinaryCrossentropy"
    return getattr(keras.losses, kind)(from_logits=True)


def _accuracy(output: Output) -> "keras.Metric":
    if output.exclusive:
        return keras.metrics.CategoricalAccuracy(name="accuracy")
    return keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)


def _optimizer(stage: Stage, n_epochs: int) -> "keras.Optimizer":
    rate: Any = stage.learning_rate
    schedules = keras.optimizers.schedules
    if stage.schedule == "decay":
        rate = schedules.InverseTimeDecay(rate, decay_steps=1, decay_rate=rate / n_epochs)
    if stage.optimizer == "adam":
        return keras.optimizers.Adam(rate)
    return keras.optimizers.SGD(rate, momentum=stage.momentum, nesterov=stage.momentum > 0)


def training_figures(logs: dict[str, float], network: Network) -> dict[str, float]:
    """Training loss and accuracy of an epoch, by the columns of the history.

    Parameters
    ----------
    logs : dict of str to float
        Logs of `keras.Model.fit`.
    network : Network

    Returns
    -------
    dict of str to float
        ``train_loss``, and for each attribute and ``same`` ``train_loss:NAME`` and
        ``train_accuracy:NAME``.
    """
    figures = {"train_loss": logs["loss"]}
    names = {output.layer: output.attribute for output in network.outputs}
    if network.same is not None:
        names[SAME] = SAME
    for layer, name in names.items():
        # Keras omits the name of a single output.
        figures[f"train_loss:{name}"] = logs.get(f"{layer}_loss", logs["loss"])
        accuracy = logs.get(f"{layer}_accuracy", logs.get("accuracy", math.nan))
        figures[f"train_accuracy:{name}"] = accuracy
    return figures
