"""A trained network as an engine that reads images."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import RunError
from featurepipe.features.engines import Engine
from featurepipe.features.engines.protocol import pad_batch
from featurepipe.features.engines.quiet_keras import backend, keras, library_versions
from featurepipe.models.networks.network import build_reader


class TrainedNetwork(Engine):
    """A network of a run: its rows are scores and embeddings, as `Network.read` gives them.

    Parameters
    ----------
    path : Path
        A `.keras` file as `Network.model` saves it.
    outputs : mapping of str to int
        Names of its outputs' layers, in the attributes' order, and how many classes each has.
    batch_size : int
        Images of one batch; a smaller one is padded.

    Raises
    ------
    RunError
        If the file is missing or damaged, holds what is not safe to load, or does not have these
        outputs.
    """

    n_parallel = 1

    def __init__(self, path: Path, outputs: Mapping[str, int], batch_size: int) -> None:
        model = _load(path)
        self._reader = _reader_of(model, path, outputs)
        self.name = f"keras-{backend()}"
        self.versions = library_versions()
        self.input_size = tuple(model.input_shape[1:3])
        self.n_features = int(self._reader.output_shape[-1])
        self.batch_size = batch_size
        self._worker = ThreadPoolExecutor(1, "network")
        # Whether memory suffices is known only now.
        self.embed(np.zeros((batch_size, *self.input_size, 3), dtype=np.uint8))

    def start(self, images: NDArray[np.uint8]) -> Future[NDArray[np.float32]]:
        """Begin to compute the rows of a batch; see `Engine`."""
        padded = pad_batch(images, self.batch_size)
        return self._worker.submit(self._compute, padded, len(images))

    def _compute(self, pixels: NDArray[np.uint8], n_images: int) -> NDArray[np.float32]:
        return np.asarray(self._reader.predict_on_batch(pixels))[:n_images]


def _load(path: Path) -> "keras.Model":
    try:
        # In safe mode Keras builds its own layers from their configurations, and no code.
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    # What a damaged or forged file raises depends on what is wrong with it.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(
            f"Run {path.parent.name!r} is damaged: {path} cannot be read ({reason}). Expected a "
            "network that featurepipe fit has written; train it again."
        ) from error


def _reader_of(model: "keras.Model", path: Path, outputs: Mapping[str, int]) -> "keras.Model":
    found = {layer.name: layer for layer in model.layers}
    tops = {name: found[f"{name}_scores"] for name in outputs if f"{name}_scores" in found}
    widths = {name: int(top.output.shape[-1]) for name, top in tops.items()}
    if widths != dict(outputs):
        raise RunError(
            f"Run {path.parent.name!r} is damaged: {path} has outputs of other classes ({widths} "
            f"by layer, not {dict(outputs)}). Train the run again."
        )
    embeddings: list[Any] = []
    for top in tops.values():
        # One that all outputs read is read once.
        if not any(top.input is each for each in embeddings):
            embeddings.append(top.input)
    return build_reader([top.output for top in tops.values()], embeddings, model.input)
