"""The training loop: stages of epochs, early stopping, checkpoints, and recovery from errors."""

import gc
import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurepipe.errors import FitError
from featurepipe.features.engines.batch_memory import is_out_of_memory
from featurepipe.models.networks.batch_plan import require_pairs
from featurepipe.models.networks.checkpoints import Checkpoint, CheckpointFolder
from featurepipe.models.networks.compiling import training_figures
from featurepipe.models.networks.evaluation import Evaluation, evaluate
from featurepipe.models.networks.material import Dataset
from featurepipe.models.networks.network import Network
from featurepipe.models.networks.network_settings import NetworkSettings
from featurepipe.models.networks.peak_memory import PeakMemory
from featurepipe.models.networks.schedules import has_ended, rate_of_epoch
from featurepipe.models.networks.stage_training import LossNotFiniteError, StageTraining

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training:
    """The course of a training; its network has the weights of the best epoch.

    Attributes
    ----------
    history : pandas.DataFrame
        One row for each epoch; see `featurepipe.reports.plots.plot_training`.
    scores : ndarray of shape (n_epochs, n_validation, n_scores), float32
        Scores of the validation images after each epoch.
    peak_bytes : int
        Peak memory of the process.
    batch_size : int
        Batch size at the end.
    ended_by : str
        Why the training ended early: ``"interrupt"`` or ``"loss not finite"``; empty if it did not.
    """

    history: pd.DataFrame
    scores: NDArray[np.float32]
    peak_bytes: int
    batch_size: int
    ended_by: str

    @property
    def seconds(self) -> float:
        """Duration of all epochs."""
        return float(self.history["seconds"].sum())


def train_network(
    network: Network,
    train: Dataset,
    validation: Dataset,
    settings: NetworkSettings,
    checkpoints: CheckpointFolder,
    *,
    resume: bool,
) -> Training:
    """Train a network stage by stage, and give it the weights of its best epoch.

    The best epoch has the lowest validation loss of the attributes, without class weights. The next
    stage starts from it. A checkpoint is saved after each epoch.

    Parameters
    ----------
    network : Network
    train, validation : Dataset
    settings : NetworkSettings
    checkpoints : CheckpointFolder
    resume : bool
        Whether to resume from a checkpoint, if there is one.

    Returns
    -------
    Training

    Raises
    ------
    FitError
        If the loss is not finite in the first epoch, memory does not suffice even for small
        batches, or pairs cannot be formed.
    RunError
        If the checkpoint is damaged or belongs to another training.
    KeyboardInterrupt
        If interrupted during the first epoch.
    """
    if settings.spec.pairs:
        require_pairs(train.targets.identities, settings.batch_size)
    checkpoint = checkpoints.load() if resume and checkpoints.exists else Checkpoint()
    with PeakMemory() as memory:
        loop = _Loop(network, train, validation, settings, checkpoints, checkpoint, memory)
        ended_by = loop.run()
    with checkpoints.blamed():
        network.set_weights(checkpoint.best_weights)
        scores = np.stack(checkpoint.scores)
    history = pd.DataFrame(checkpoint.history)
    history["best"] = history["epoch"] == checkpoint.best_epoch
    return Training(history, scores, loop.peak_bytes, checkpoint.batch_size, ended_by)


class _Loop:
    """A training in progress; its whole state is the checkpoint."""

    def __init__(
        self,
        network: Network,
        train: Dataset,
        validation: Dataset,
        settings: NetworkSettings,
        checkpoints: CheckpointFolder,
        checkpoint: Checkpoint,
        memory: PeakMemory,
    ) -> None:
        self._network, self._settings = network, settings
        self._train, self._validation = train, validation
        self._checkpoints, self._memory = checkpoints, memory
        self._state = checkpoint
        self._state.batch_size = checkpoint.batch_size or settings.batch_size
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._written: Future[None] | None = None

    @property
    def peak_bytes(self) -> int:
        """Peak memory, including that of a killed process that this one continues."""
        return max(self._memory.bytes, self._state.peak_bytes)

    def run(self) -> str:
        """Train to the end; why it ended early, or an empty text."""
        try:
            ended_by = self._run_stages()
            self._wait_for_checkpoint()
        finally:
            # Finish writing a checkpoint in any case.
            self._writer.shutdown(wait=True)
        return ended_by

    def _run_stages(self) -> str:
        try:
            for number in range(len(self._settings.stages)):
                self._run_stage(number)
        except LossNotFiniteError as error:
            self._recover_from(error)
            return "loss not finite"
        except KeyboardInterrupt as error:
            # A subclass means that the process is being terminated: there is no time to finish.
            if type(error) is not KeyboardInterrupt or not self._state.history:
                raise
            logger.warning(
                "Interrupted. Keeping epoch %d, the best so far.", self._state.best_epoch
            )
            return "interrupt"
        return ""

    def _recover_from(self, error: LossNotFiniteError) -> None:
        epoch = len(self._state.history) + 1
        problem = f"The loss is not finite at step {error.step} of epoch {epoch}"
        if not self._state.history:
            raise FitError(f"{problem}. Use a lower --learning-rate.") from None
        logger.warning(
            "%s. Training stops; keeping epoch %d, the best so far.",
            problem,
            self._state.best_epoch,
        )

    def _run_stage(self, number: int) -> None:
        stage, n_epochs = self._settings.stages[number], self._settings.n_epochs
        best_before = self._state.best_loss_before(number)
        training = None
        while not has_ended(self._state.losses_of(number), n_epochs, stage.patience, best_before):
            training = training or self._start_stage(number)
            self._run_epoch(training)

    def _start_stage(self, number: int) -> StageTraining:
        """Compile a stage, and restore the weights from which it continues."""
        training = StageTraining(self._network, self._settings, number, self._train)
        state = self._state
        if state.losses_of(number):
            with self._checkpoints.blamed():
                training.restore(state.weights, state.optimizer)
        else:
            if state.best_weights:
                with self._checkpoints.blamed():
                    self._network.set_weights(state.best_weights)
            state.weights = self._network.get_weights()
            state.optimizer = training.optimizer_values()
        return training

    def _run_epoch(self, training: StageTraining) -> None:
        stage, losses = training.stage, self._state.losses_of(training.number)
        if stage.schedule != "decay":
            training.learning_rate = rate_of_epoch(
                stage.schedule, stage.learning_rate, losses, self._settings.n_epochs
            )
        started = time.perf_counter()
        logs, evaluation = self._fit_epoch(training, len(losses))
        row = {
            "epoch": len(self._state.history) + 1,
            "stage": stage.title,
            "stage_number": training.number,
            "seconds": time.perf_counter() - started,
            "learning_rate": training.learning_rate,
            **training_figures(logs, self._network),
            **evaluation.figures,
        }
        self._keep(row, evaluation.scores, training)
        self._log(row, len(losses) + 1)

    def _fit_epoch(
        self, training: StageTraining, epoch: int
    ) -> tuple[dict[str, float], Evaluation]:
        """Train for an epoch and evaluate, with smaller batches if memory does not suffice."""
        state = self._state
        while True:
            try:
                logs = training.fit_epoch(epoch, state.batch_size)
                return logs, evaluate(
                    self._network,
                    self._validation,
                    state.batch_size,
                    uses_features=training.uses_features,
                )
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                self._halve_batches(error)
            gc.collect()
            training.restore(state.weights, state.optimizer)

    def _halve_batches(self, error: Exception) -> None:
        batch_size = self._state.batch_size
        if batch_size < 4:
            raise FitError(
                f"{self._settings.network} does not fit into memory, even in batches of "
                f"{batch_size}. Use a smaller --size, or another network."
            ) from error
        self._state.batch_size = batch_size // 2
        logger.warning(
            "Memory does not suffice for batches of %d images. Repeating the epoch in batches of "
            "%d.",
            batch_size,
            self._state.batch_size,
        )

    def _keep(
        self, row: dict[str, Any], scores: NDArray[np.float32], training: StageTraining
    ) -> None:
        state = self._state
        weights, optimizer = self._network.get_weights(), training.optimizer_values()
        # Both at once: an interrupt in between would leave a state that does not fit together.
        state.weights, state.optimizer = weights, optimizer
        state.scores.append(scores)
        state.history.append(row)
        if state.best_epoch == len(state.history):
            state.best_weights = weights
        state.peak_bytes = self.peak_bytes
        snapshot = state.snapshot()
        self._wait_for_checkpoint()
        # The disk writes while the processor trains the next epoch.
        self._written = self._writer.submit(self._checkpoints.save, snapshot)

    def _wait_for_checkpoint(self) -> None:
        if self._written is not None:
            self._written.result()

    def _log(self, row: dict[str, Any], epoch: int) -> None:
        accuracies = ", ".join(
            f"{output.attribute} {row[f'validation_accuracy:{output.attribute}']:.1%}"
            for output in self._network.outputs
        )
        logger.info(
            "%s, %s, epoch %d of %d: loss %.3g, validation loss %.3g, validation accuracy %s "
            "(%.3g s)%s",
            self._settings.network,
            row["stage"],
            epoch,
            self._settings.n_epochs,
            row["train_loss"],
            row["validation_loss"],
            accuracies,
            row["seconds"],
            ", best so far" if self._state.best_epoch == row["epoch"] else "",
        )
