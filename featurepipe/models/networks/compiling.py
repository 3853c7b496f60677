"""What Keras compiles of a stage: optimiser, losses, and accuracies by output."""

import math
from typing import Any

from featurepipe.features.engines.quiet_keras import keras
from featurepipe.models.networks.network import PARTNER, SAME, Network
from featurepipe.models.networks.outputs import Output
from featurepipe.models.networks.recipes import Stage

SAME_WEIGHT = 0.5


def compile_graph(graph: "keras.Model", network: Network, stage: Stage, n_epochs: int) -> None:
    """Make a graph ready to be trained.

    Parameters
    ----------
    graph : keras.Model
        `Network.training_graph` or `Network.top_graph`.
    network : Network
    stage : Stage
    n_epochs : int
        Of the stage, at most.
    """
    by_output = {output.layer: output for output in network.outputs}
    losses: dict[str, Any] = {name: _loss(each) for name, each in by_output.items()}
    weights = {name: each.weight for name, each in by_output.items()}
    metrics = {name: [_accuracy(each)] for name, each in by_output.items()}
    if network.same is not None:
        losses |= {f"{name}{PARTNER}": _loss(each) for name, each in by_output.items()}
        weights |= {f"{name}{PARTNER}": each.weight for name, each in by_output.items()}
        losses[SAME] = keras.losses.BinaryCrossentropy(from_logits=True)
        weights[SAME] = SAME_WEIGHT
        metrics[SAME] = [keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)]
    optimizer = _optimizer(stage, n_epochs)
    # Small gradients would be 0; Keras goes by the graph's own policy, which is float32.
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


def epoch_figures(logs: dict[str, float], network: Network) -> dict[str, float]:
    """What Keras says of an epoch, by the columns of the history.

    Parameters
    ----------
    logs : dict of str to float
        Of `keras.Model.fit`.
    network : Network

    Returns
    -------
    dict of str to float
        ``train_loss``, and ``train_loss:ATTRIBUTE`` and ``train_accuracy:ATTRIBUTE`` of each
        output and of ``same``.
    """
    figures = {"train_loss": logs["loss"]}
    names = {output.layer: output.attribute for output in network.outputs}
    if network.same is not None:
        names[SAME] = SAME
    for layer, name in names.items():
        # Keras leaves the names of a single output away.
        figures[f"train_loss:{name}"] = logs.get(f"{layer}_loss", logs["loss"])
        accuracy = logs.get(f"{layer}_accuracy", logs.get("accuracy", math.nan))
        figures[f"train_accuracy:{name}"] = accuracy
    return figures
