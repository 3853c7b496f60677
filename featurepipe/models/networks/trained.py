"""TrainedNetwork: the engine that computes scores and embeddings with a run's network."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import RunError
from featurepipe.features.engines import Engine
from featurepipe.features.engines.keras_classes import require_known_classes
from featurepipe.features.engines.keras_weights import open_weights
from featurepipe.features.engines.protocol import pad_batch
from featurepipe.features.engines.quiet_keras import backend, keras, library_versions
from featurepipe.files import require_readable
from featurepipe.models.networks.network import build_inference_graph
from featurepipe.words import one_line


class TrainedNetwork(Engine):
    """Computes what `Network.score_and_embed` does, with the saved network of a run.

    Parameters
    ----------
    path : Path
        The `.keras` file of `Network.model`.
    outputs : mapping of str to int
        Number of classes by layer of the outputs, in the order of the attributes.
    batch_size : int
        Smaller batches are padded to this size.

    Raises
    ------
    RunError
        If the file is missing or damaged, is not safe to load, or has other outputs.
    """

    n_parallel = 1

    def __init__(self, path: Path, outputs: Mapping[str, int], batch_size: int) -> None:
        self._graph = load_inference_graph(path, outputs)
        self.name = f"keras-{backend()}"
        self.versions = library_versions()
        self.input_size = tuple(self._graph.input_shape[1:3])
        self.n_features = int(self._graph.output_shape[-1])
        self.batch_size = batch_size
        self._worker = ThreadPoolExecutor(1, "network")
        # Memory may not suffice; find out now.
        self.embed(np.zeros((batch_size, *self.input_size, 3), dtype=np.uint8))

    def start(self, images: NDArray[np.uint8]) -> Future[NDArray[np.float32]]:
        """Start to compute a batch; see `Engine`."""
        padded = pad_batch(images, self.batch_size)
        return self._worker.submit(self._compute, padded, len(images))

    def _compute(self, pixels: NDArray[np.uint8], n_images: int) -> NDArray[np.float32]:
        return np.asarray(self._graph.predict_on_batch(pixels))[:n_images]


def load_inference_graph(path: Path, outputs: Mapping[str, int]) -> "keras.Model":
    """The graph from pixels to scores and embeddings of a saved network.

    Parameters
    ----------
    path, outputs
        See `TrainedNetwork`.

    Raises
    ------
    RunError
        As `TrainedNetwork`.
    """
    return _inference_graph_of(_load(path), path, outputs)


def _load(path: Path) -> "keras.Model":
    require_readable(path)
    try:
        with open_weights(path):
            pass
        require_known_classes(path)
        # In safe mode, Keras only builds its own layers and runs no code from the file.
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    # The type of the error depends on what is wrong with the file.
    except Exception as error:
        reason = one_line(error)[:200]
        raise RunError(
            f"Run {path.parent.name!r} is damaged: {path} cannot be read ({reason}). Train it "
            "again."
        ) from error


def _inference_graph_of(
    model: "keras.Model", path: Path, outputs: Mapping[str, int]
) -> "keras.Model":
    layers = {layer.name: layer for layer in model.layers}
    score_layers = {
        name: layers[f"{name}_scores"] for name in outputs if f"{name}_scores" in layers
    }
    widths = {name: int(layer.output.shape[-1]) for name, layer in score_layers.items()}
    if widths != dict(outputs):
        raise RunError(
            f"Run {path.parent.name!r} is damaged: {path} has other outputs ({widths}, not "
            f"{dict(outputs)}). Train it again."
        )
    embeddings: list[Any] = []
    for layer in score_layers.values():
        # Several outputs may share an embedding.
        if not any(layer.input is embedding for embedding in embeddings):
            embeddings.append(layer.input)
    scores = [layer.output for layer in score_layers.values()]
    return build_inference_graph(scores, embeddings, model.input)
