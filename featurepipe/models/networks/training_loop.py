"""The one training loop: stages of epochs, checkpoints, early stopping, and what can go wrong."""

import gc
import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurepipe.errors import FitError
from featurepipe.features.engines.batch_memory import is_out_of_memory
from featurepipe.features.engines.quiet_keras import keras
from featurepipe.models.networks.augmentation import build_augmentation
from featurepipe.models.networks.batches import (
    Batch,
    Batches,
    Rows,
    plan_batches,
    plan_pairs,
    require_pairs,
)
from featurepipe.models.networks.checkpoints import Arrays, Checkpoint, CheckpointFolder
from featurepipe.models.networks.compiling import SAME_WEIGHT, compile_graph, epoch_figures
from featurepipe.models.networks.network import SAME, Network
from featurepipe.models.networks.network_settings import NetworkSettings
from featurepipe.models.networks.outputs import Targets, row_hits, row_losses, total_losses
from featurepipe.models.networks.peak_memory import PeakMemory
from featurepipe.models.networks.recipes import Stage
from featurepipe.models.networks.schedules import has_ended, rate_of_epoch
from featurepipe.models.networks.verification import pair_figures
from featurepipe.progress import Progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """Images that a network is trained on, or judged by.

    Attributes
    ----------
    pixels : callable
        Rows to pixels of shape (n, height, width, 3), uint8.
    targets : Targets
    features : ndarray of shape (n_rows, n_features), float32, or None
        What the frozen backbone says of them, where that is known.
    """

    pixels: Callable[[Rows], NDArray[np.uint8]]
    targets: Targets
    features: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.targets.kinds)


@dataclass(frozen=True)
class Training:
    """What training gave; the network has the weights of the best epoch.

    Attributes
    ----------
    history : pandas.DataFrame
        One row an epoch; see `featurepipe.reports.plots.plot_training`.
    scores : ndarray of shape (n_epochs, n_validation, n_scores), float32
        What the validation images were answered after each epoch.
    peak_bytes : int
        Most memory that the process took.
    batch_size : int
        Images at once in the end.
    ended_by : str
        Why it ended before its last stage did: ``"interrupt"`` or ``"loss not finite"``; empty
        if it did not.
    """

    history: pd.DataFrame
    scores: NDArray[np.float32]
    peak_bytes: int
    batch_size: int
    ended_by: str

    @property
    def seconds(self) -> float:
        """Of all epochs."""
        return float(self.history["seconds"].sum())


def train_network(
    network: Network,
    train: Part,
    validation: Part,
    settings: NetworkSettings,
    folder: CheckpointFolder,
    *,
    resume: bool,
) -> Training:
    """Train a network stage by stage, and give it the weights of its best epoch.

    After each epoch a checkpoint is kept. The best epoch is the one of the lowest validation
    loss of the attributes, unweighted by class. The next stage begins from there.

    Parameters
    ----------
    network : Network
    train, validation : Part
        With ``features``, stages that train the top alone and do not augment read these.
    settings : NetworkSettings
    folder : CheckpointFolder
    resume : bool
        Whether to go on from the checkpoint, if there is one.

    Returns
    -------
    Training

    Raises
    ------
    FitError
        If the loss is not finite before any epoch is complete, memory does not suffice for a
        batch of two, or pairs cannot be made.
    RunError
        If the checkpoint is damaged or of another training.
    KeyboardInterrupt
        If interrupted before any epoch is complete.
    """
    if settings.spec.pairs:
        require_pairs(train.targets.kinds, settings.batch_size)
    checkpoint = folder.load() if resume and folder.exists else Checkpoint()
    loop = _Loop(network, train, validation, settings, folder, checkpoint)
    with PeakMemory() as memory:
        loop.memory = memory
        ended_by = loop.run()
    network.set_weights(checkpoint.best_weights)
    history = pd.DataFrame(checkpoint.history)
    history["best"] = history["epoch"] == loop.best_epoch
    return Training(
        history, np.stack(checkpoint.scores), loop.peak_bytes, checkpoint.batch_size, ended_by
    )


class _LossNotFiniteError(Exception):
    def __init__(self, step: int) -> None:
        self.step = step


class _Watch(keras.callbacks.Callback):
    """Moves the bar, and stops at a loss that is no number."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._progress.advance()
        # Keras' loss is the mean since the epoch began: once it is no number it stays so.
        if logs and not math.isfinite(float(logs["loss"])):
            raise _LossNotFiniteError(batch + 1)


class _Loop:
    """A training under way; what it knows is its checkpoint."""

    memory: PeakMemory

    def __init__(
        self,
        network: Network,
        train: Part,
        validation: Part,
        settings: NetworkSettings,
        folder: CheckpointFolder,
        checkpoint: Checkpoint,
    ) -> None:
        self._network, self._settings, self._folder = network, settings, folder
        self._train, self._validation = train, validation
        self._state = checkpoint
        self._state.batch_size = checkpoint.batch_size or settings.batch_size
        self._graph: keras.Model | None = None
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._written: Future[None] | None = None

    @property
    def best_epoch(self) -> int:
        """The number, from 1, of the epoch of the lowest validation loss; 0 if there is none."""
        losses = [row["attributes_loss"] for row in self._state.history]
        finite = [loss if math.isfinite(loss) else math.inf for loss in losses]
        return 1 + int(np.argmin(finite)) if finite else 0

    @property
    def peak_bytes(self) -> int:
        """The most memory, those of a killed training included."""
        return max(self.memory.bytes, self._state.peak_bytes)

    def run(self) -> str:
        """Train to the end, or to what ends it before: why."""
        try:
            ended_by = self._run_stages()
            self._wait_for_checkpoint()
        finally:
            # A checkpoint that is being written is whole in the end, whatever comes.
            self._writer.shutdown(wait=True)
        return ended_by

    def _run_stages(self) -> str:
        try:
            for number, stage in enumerate(self._settings.stages):
                self._run_stage(number, stage)
        except _LossNotFiniteError as error:
            epoch = len(self._state.history) + 1
            what = f"The loss is not finite at step {error.step} of epoch {epoch}"
            if not self._state.history:
                raise FitError(
                    f"{what}, before any epoch was complete. Expected a finite loss; give a lower "
                    "--learning-rate."
                ) from None
            logger.warning("%s: training stops, and epoch %d is kept.", what, self.best_epoch)
            return "loss not finite"
        except KeyboardInterrupt as error:
            # Whoever ends the process otherwise has no time for us to finish anything.
            if type(error) is not KeyboardInterrupt or not self._state.history:
                raise
            logger.warning("Interrupted: epoch %d, the best so far, is kept.", self.best_epoch)
            return "interrupt"
        return ""

    def _run_stage(self, number: int, stage: Stage) -> None:
        before = [r["attributes_loss"] for r in self._state.history if r["stage_number"] < number]
        best_before = min(filter(math.isfinite, before), default=math.inf)
        n_epochs = self._settings.n_epochs
        while not has_ended(self._losses(number), n_epochs, stage.patience, best_before):
            if self._graph is None:
                self._begin(number, stage)
            self._run_epoch(number, stage)
        self._graph = None

    def _losses(self, number: int) -> list[float]:
        return [r["attributes_loss"] for r in self._state.history if r["stage_number"] == number]

    def _begin(self, number: int, stage: Stage) -> None:
        """Compile a stage's graph, and give it the weights that it goes on from."""
        state, network = self._state, self._network
        network.unfreeze(stage.n_blocks)
        if self._reads_features(stage):
            self._graph = network.top_graph()
        else:
            how = self._settings.spec.augmentation
            self._graph = network.training_graph(
                build_augmentation(how) if stage.augments else None
            )
        compile_graph(self._graph, network, stage, self._settings.n_epochs)
        if self._losses(number):
            # Within a stage, of which an epoch was complete.
            self._restore(state.weights, state.optimizer)
        else:
            if state.best_weights:
                network.set_weights(state.best_weights)
            state.weights, state.optimizer = network.get_weights(), self._optimizer_values()

    def _reads_features(self, stage: Stage) -> bool:
        return stage.n_blocks == 0 and not stage.augments and self._train.features is not None

    def _optimizer_values(self) -> Arrays:
        assert self._graph is not None
        variables = self._graph.optimizer.variables
        return [keras.ops.convert_to_numpy(each.value).copy() for each in variables]

    def _restore(self, weights: Arrays, optimizer: Arrays) -> None:
        assert self._graph is not None
        self._network.set_weights(weights)
        for variable, value in zip(self._graph.optimizer.variables, optimizer, strict=True):
            variable.assign(value)

    def _run_epoch(self, number: int, stage: Stage) -> None:
        assert self._graph is not None
        epoch = len(self._losses(number))
        if stage.schedule != "decay":
            losses, n_epochs = self._losses(number), self._settings.n_epochs
            rate = rate_of_epoch(stage.schedule, stage.learning_rate, losses, n_epochs)
            self._graph.optimizer.learning_rate.assign(rate)
        started = time.perf_counter()
        logs, scores, judged = self._fit_with_room(number, stage, epoch)
        row = {
            "epoch": len(self._state.history) + 1,
            "stage": stage.title,
            "stage_number": number,
            "seconds": time.perf_counter() - started,
            "learning_rate": float(keras.ops.convert_to_numpy(self._graph.optimizer.learning_rate)),
            **epoch_figures(logs, self._network),
            **judged,
        }
        self._keep(row, scores)
        self._tell(row, epoch)

    def _keep(self, row: dict[str, Any], scores: NDArray[np.float32]) -> None:
        state = self._state
        weights, optimizer = self._network.get_weights(), self._optimizer_values()
        # All at once: an interrupt in between would leave what does not belong together.
        state.weights, state.optimizer = weights, optimizer
        state.scores.append(scores)
        state.history.append(row)
        if self.best_epoch == len(state.history):
            state.best_weights = weights
        state.peak_bytes = self.peak_bytes
        kept = replace(state, history=list(state.history), scores=list(state.scores))
        self._wait_for_checkpoint()
        # Beside the next epoch, which needs the processor while this needs the disk.
        self._written = self._writer.submit(self._folder.save, kept, self.best_epoch)

    def _wait_for_checkpoint(self) -> None:
        if self._written is not None:
            self._written.result()

    def _fit_with_room(
        self, number: int, stage: Stage, epoch: int
    ) -> tuple[dict[str, float], NDArray[np.float32], dict[str, float]]:
        """One epoch and what `_judge` says of it, in smaller batches where memory is short."""
        while True:
            try:
                return self._fit(number, stage, epoch), *self._judge(stage)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if self._state.batch_size < 4:
                    raise FitError(
                        f"{self._settings.network} does not fit into memory, even in batches of "
                        f"{self._state.batch_size}. Give a smaller --size, or another network."
                    ) from error
            self._state.batch_size //= 2
            logger.warning(
                "Memory does not suffice for that many images at once; the epoch begins again in "
                "batches of %d.",
                self._state.batch_size,
            )
            gc.collect()
            self._restore(self._state.weights, self._state.optimizer)

    def _fit(self, number: int, stage: Stage, epoch: int) -> dict[str, float]:
        assert self._graph is not None
        rng = np.random.default_rng([self._settings.seed, number, epoch])
        self._sow(rng)
        batches = self._plan(rng)
        features = self._train.features
        read = self._train.pixels
        if features is not None and self._reads_features(stage):
            read = features.__getitem__
        data = Batches(batches, read, self._network.outputs, self._train.targets)
        title = f"{self._settings.network}, {stage.title}, epoch {epoch + 1}"
        with Progress(len(batches), title, "batch") as progress:
            watch = _Watch(progress)
            try:
                fitted = self._graph.fit(data, verbose=0, callbacks=[watch], shuffle=False)
            except Exception:
                # Backends say in words of their own, if at all, what was raised by reading.
                if data.error is not None:
                    raise data.error from None
                raise
        return {name: float(values[0]) for name, values in fitted.history.items()}

    def _plan(self, rng: np.random.Generator) -> list[Batch]:
        size = self._state.batch_size
        if not self._settings.spec.pairs:
            return plan_batches(len(self._train), size, rng)
        share = self._settings.positive_pairs
        kinds = self._train.targets.kinds
        return plan_pairs(kinds, size, 0.5 if share is None else share, rng)

    def _sow(self, rng: np.random.Generator) -> None:
        """Begin dropout and augmentation anew, so that an epoch depends on its number alone."""
        assert self._graph is not None
        for variable in self._graph.variables:
            if variable.path.endswith("seed_generator_state"):
                seed = np.array([rng.integers(2**31), 0])
                variable.assign(keras.ops.cast(seed, variable.dtype))

    def _judge(self, stage: Stage) -> tuple[NDArray[np.float32], dict[str, float]]:
        """Scores of the validation images, and their figures."""
        part, network = self._validation, self._network
        if self._reads_features(stage) and part.features is not None:
            embeddings = part.features
            scores = network.scores_of(part.features)
        else:
            answers = network.read_in_batches(part.pixels, len(part), self._state.batch_size)
            n_scores = network.outputs[-1].columns.stop
            scores, embeddings = answers[:, :n_scores], answers[:, n_scores:]
        figures = {"attributes_loss": float(total_losses(network.outputs, scores, part.targets))}
        for output in network.outputs:
            truth = part.targets.truth[output.attribute]
            counted = part.targets.weights[output.attribute] > 0
            own = scores[counted][:, output.columns]
            figures |= {
                f"validation_loss:{output.attribute}": _mean(
                    row_losses(output, own, truth[counted])
                ),
                f"validation_accuracy:{output.attribute}": _mean(
                    row_hits(output, own, truth[counted])
                ),
            }
        figures["validation_loss"] = figures["attributes_loss"]
        if network.same is not None:
            loss, accuracy = pair_figures(
                embeddings, part.targets.kinds, network.same.get_weights()
            )
            figures |= {f"validation_loss:{SAME}": loss, f"validation_accuracy:{SAME}": accuracy}
            # As the training's: either image of a pair has its loss.
            figures["validation_loss"] = 2 * figures["attributes_loss"] + SAME_WEIGHT * loss
        return scores, figures

    def _tell(self, row: dict[str, Any], epoch: int) -> None:
        accuracies = ", ".join(
            f"{output.attribute} {row[f'validation_accuracy:{output.attribute}']:.3f}"
            for output in self._network.outputs
        )
        logger.info(
            "%s, %s, epoch %d of %d: loss %.4f; validation loss %.4f, right %s (%.1f s)%s",
            self._settings.network,
            row["stage"],
            epoch + 1,
            self._settings.n_epochs,
            row["train_loss"],
            row["validation_loss"],
            accuracies,
            row["seconds"],
            " *" if self.best_epoch == row["epoch"] else "",
        )


def _mean(values: Sequence[float] | NDArray[np.float64]) -> float:
    return float(np.mean(values)) if len(values) else math.nan
