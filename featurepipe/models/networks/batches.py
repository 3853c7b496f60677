"""The batches of an epoch as Keras reads them: inputs, targets and sample weights."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurepipe.features.engines.quiet_keras import backend, keras
from featurepipe.models.networks.batch_plan import Batch, Indices
from featurepipe.models.networks.network import PARTNER, SAME
from featurepipe.models.networks.outputs import Output, Targets


class Batches(keras.utils.PyDataset):
    """The batches of one epoch, loaded while Keras trains.

    Parameters
    ----------
    plan : sequence of Batch
    load : callable
        Maps positions of images to pixels of shape (n, height, width, 3), uint8, or to features of
        shape (n, n_features), float32.
    outputs : sequence of Output
    targets : Targets

    Attributes
    ----------
    error : Exception or None
        The error that loading a batch raised.
    """

    def __init__(
        self,
        plan: Sequence[Batch],
        load: Callable[[Indices], NDArray[Any]],
        outputs: Sequence[Output],
        targets: Targets,
    ) -> None:
        # With one worker, Keras lets tf.data prefetch. tf.data tunes itself, and the end of an
        # epoch waits for its tuner: up to as long as the epoch took. With two workers, Keras
        # prefetches itself; but on JAX and PyTorch, the first epoch of a graph then sees some
        # batches twice and others never (keras 3.15).
        workers = 2 if backend() == "tensorflow" else 1
        super().__init__(workers=workers, use_multiprocessing=False, max_queue_size=8)
        self._plan, self._load = plan, load
        self._outputs, self._targets = outputs, targets
        self.error: Exception | None = None

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, index: int) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """Inputs of one batch; targets and sample weights by the graph's outputs."""
        batch = self._plan[index]
        try:
            inputs = self._load(batch.images)
        except Exception as error:
            self.error = error
            raise
        targets = self._targets.take(batch.images)
        truth = {output.layer: targets.truth[output.attribute] for output in self._outputs}
        weights = {output.layer: targets.weights[output.attribute] for output in self._outputs}
        if batch.partners is None:
            return inputs, truth, weights
        partners = batch.partners
        truth |= {f"{layer}{PARTNER}": values[partners] for layer, values in truth.items()}
        weights |= {f"{layer}{PARTNER}": values[partners] for layer, values in weights.items()}
        truth[SAME], weights[SAME] = _compare(targets.identities, partners)
        return {"seen": inputs, "partners": partners}, truth, weights


def _compare(
    identities: Indices, partners: NDArray[np.int32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Target of each pair, 1 where both show the same, and its sample weight."""
    others = identities[partners]
    counts = (identities >= 0) & (others >= 0) & (partners != np.arange(len(identities)))
    is_same = (identities == others).astype(np.float32)
    return is_same[:, None], counts.astype(np.float32)
