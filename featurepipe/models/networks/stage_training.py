"""StageTraining: one stage of a training, compiled once and trained epoch by epoch."""

import math
from typing import Any

import numpy as np

from featurepipe.features.engines.quiet_keras import keras
from featurepipe.models.networks.batch_plan import Batch, plan_batches, plan_pairs
from featurepipe.models.networks.batches import Batches
from featurepipe.models.networks.checkpoints import Arrays
from featurepipe.models.networks.compiling import compile_graph
from featurepipe.models.networks.layers import build_augmentation
from featurepipe.models.networks.material import Dataset
from featurepipe.models.networks.network import Network
from featurepipe.models.networks.network_settings import NetworkSettings
from featurepipe.progress import Progress


class LossNotFiniteError(Exception):
    """The training loss is infinite or NaN.

    Parameters
    ----------
    step : int
        Number of the step in its epoch, from 1.
    """

    def __init__(self, step: int) -> None:
        self.step = step


class StageTraining:
    """One stage of a training, compiled once and trained epoch by epoch.

    An epoch depends only on the seed, its stage and its number: image order, pairs, augmentation
    and dropout are drawn from these.

    Parameters
    ----------
    network : Network
    settings : NetworkSettings
    number : int
        Position of the stage in `NetworkSettings.stages`.
    train : Dataset
        With features, a stage that neither trains the backbone nor augments uses them instead of
        pixels.
    """

    def __init__(
        self, network: Network, settings: NetworkSettings, number: int, train: Dataset
    ) -> None:
        self.number, self.stage = number, settings.stages[number]
        self._settings, self._network, self._train = settings, network, train
        network.unfreeze(self.stage.n_blocks)
        self._graph = self._build_graph()
        compile_graph(self._graph, network, self.stage, settings.n_epochs)

    @property
    def uses_features(self) -> bool:
        """Whether the stage trains on cached features instead of pixels."""
        trains_top = self.stage.n_blocks == 0 and not self.stage.augments
        return trains_top and self._train.features is not None

    def _build_graph(self) -> "keras.Model":
        if self.uses_features:
            return self._network.features_graph()
        recipe = self._settings.spec.augmentation
        return self._network.training_graph(
            build_augmentation(recipe) if self.stage.augments else None
        )

    @property
    def learning_rate(self) -> float:
        """The current learning rate."""
        return float(keras.ops.convert_to_numpy(self._graph.optimizer.learning_rate))

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self._graph.optimizer.learning_rate.assign(rate)

    def optimizer_values(self) -> Arrays:
        """Copies of the values of the optimiser's variables."""
        variables = self._graph.optimizer.variables
        return [keras.ops.convert_to_numpy(variable.value).copy() for variable in variables]

    def restore(self, weights: Arrays, optimizer: Arrays) -> None:
        """Set the variables of network and optimiser."""
        self._network.set_weights(weights)
        for variable, value in zip(self._graph.optimizer.variables, optimizer, strict=True):
            variable.assign(value)

    def fit_epoch(self, epoch: int, batch_size: int) -> dict[str, float]:
        """Train for one epoch.

        Parameters
        ----------
        epoch : int
            Number of the epoch in the stage, from 0.
        batch_size : int

        Returns
        -------
        dict of str to float
            Logs of `keras.Model.fit`.

        Raises
        ------
        LossNotFiniteError
        """
        rng = np.random.default_rng([self._settings.seed, self.number, epoch])
        self._seed_layers(rng)
        plan = self._plan(batch_size, rng)
        load: Any = self._train.load
        if self.uses_features and self._train.features is not None:
            load = self._train.features.__getitem__
        batches = Batches(plan, load, self._network.outputs, self._train.targets)
        title = f"{self._settings.network}, {self.stage.title}, epoch {epoch + 1}"
        with Progress(len(plan), title, "batch") as progress:
            try:
                fitted = self._graph.fit(
                    batches, verbose=0, callbacks=[_Watch(progress)], shuffle=False
                )
            except Exception:
                # Each backend wraps an error of the loader in its own way, or hides it.
                if batches.error is not None:
                    raise batches.error from None
                raise
        return {name: float(values[0]) for name, values in fitted.history.items()}

    def _plan(self, batch_size: int, rng: np.random.Generator) -> list[Batch]:
        positive_share = self._settings.positive_pairs
        if positive_share is None:
            return plan_batches(len(self._train), batch_size, rng)
        return plan_pairs(self._train.targets.identities, batch_size, positive_share, rng)

    def _seed_layers(self, rng: np.random.Generator) -> None:
        """Seed dropout and augmentation, so that the epoch does not depend on those before it."""
        for variable in self._graph.variables:
            if variable.path.endswith("seed_generator_state"):
                seed = np.array([rng.integers(2**31), 0])
                variable.assign(keras.ops.cast(seed, variable.dtype))


class _Watch(keras.callbacks.Callback):
    """Advances the progress bar, and stops the training if the loss is not finite."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._progress.advance()
        # Keras logs the mean of the epoch so far; once it is not finite, it stays so.
        if logs and not math.isfinite(float(logs["loss"])):
            raise LossNotFiniteError(batch + 1)
