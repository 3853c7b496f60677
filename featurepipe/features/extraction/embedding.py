"""Embedding: what computes rows of images, opened once it is needed; rows without a store."""

import logging
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from featurepipe.features.engines import Engine
from featurepipe.features.extraction.lanes import Cost, Lane
from featurepipe.features.extraction.loading import ImageLoader, LoadedImage
from featurepipe.features.extraction.single_pass import run_pass
from featurepipe.features.extraction.views import find_view
from featurepipe.features.framing import Framing
from featurepipe.sources import ImageSource

logger = logging.getLogger(__name__)


class Embedder(Protocol):
    """What computes a row of an image: a `Recipe`, a `PixelRecipe` or a trained network."""

    @property
    def title(self) -> str:
        """Title of a progress bar."""

    @property
    def beginning(self) -> str:
        """Log line before the engine is opened."""

    @property
    def framing(self) -> Framing:
        """How images become its pictures."""

    @property
    def view(self) -> str:
        """Name of the view: what it is shown of the image."""

    @property
    def fast_decode(self) -> bool:
        """Whether large JPEGs are decoded at a reduced size."""

    def open_engine(self, batch_size: int | None = None) -> Engine:
        """Load it, for batches of at most so many pictures."""


class OnDemandEngine:
    """Opens the engine of an embedder when something must be computed, and not before.

    Parameters
    ----------
    embedder : Embedder
    batch_size : int, optional
        Images computed at once; default: the engine's own.
    """

    def __init__(self, embedder: Embedder, batch_size: int | None) -> None:
        self._embedder = embedder
        self._n_pictures = batch_size and batch_size * find_view(embedder.view).n_pictures
        self._engine: Engine | None = None

    @property
    def is_open(self) -> bool:
        """Whether the engine is open already."""
        return self._engine is not None

    def open(self, n_pictures: int | None = None) -> Engine:
        """The engine; it is loaded anew if batches of another size are requested."""
        if n_pictures is not None:
            self._n_pictures, self._engine = n_pictures, None
        if self._engine is None:
            logger.info("%s", self._embedder.beginning)
            self._engine = self._embedder.open_engine(self._n_pictures)
        return self._engine


def embed_images(
    source: ImageSource,
    ids: Sequence[str],
    embedders: Sequence[Embedder],
    *,
    batch_size: int | None = None,
) -> tuple[NDArray[np.float32], dict[int, str]]:
    """Embed images without a store.

    Parameters
    ----------
    source : ImageSource
    ids : sequence of str
        Image ids, each once.
    embedders : sequence of Embedder
        Embedders that decode alike share one pass over the images.
    batch_size : int, optional
        Images embedded at once; default: the engine's own.

    Returns
    -------
    features : ndarray of shape (n_readable, n_features), float32
        One row for each image that can be read, in their order; the features of the embedders
        lie side by side.
    refused : dict of int to str
        Positions of the other images, each with the reason.
    """
    sinks = [_MemorySink() for _ in embedders]
    lanes = [
        Lane(
            f"embedding by {embedder.title}",
            embedder.framing,
            find_view(embedder.view),
            dict.fromkeys(ids),
            OnDemandEngine(embedder, batch_size).open,
            sink,
        )
        for embedder, sink in zip(embedders, sinks, strict=True)
    ]
    for fast_decode in sorted({embedder.fast_decode for embedder in embedders}):
        alike = [
            lane
            for lane, embedder in zip(lanes, embedders, strict=True)
            if embedder.fast_decode == fast_decode
        ]
        run_pass(ImageLoader(source, fast_decode=fast_decode), ids, alike)
    reasons: dict[str, str] = {}
    for sink in sinks:
        reasons |= sink.refused
    refused = {k: reasons[image_id] for k, image_id in enumerate(ids) if image_id in reasons}
    rows = [
        np.concatenate([sink.features[image_id] for sink in sinks])
        for image_id in ids
        if image_id not in reasons
    ]
    return np.stack(rows) if rows else np.empty((0, 0), np.float32), refused


class _MemorySink:
    """Features and reasons by image id."""

    def __init__(self) -> None:
        self.features: dict[str, NDArray[np.float32]] = {}
        self.refused: dict[str, str] = {}

    def embedded(
        self, images: Sequence[LoadedImage], features: NDArray[np.float32], cost: Cost
    ) -> None:
        self.features |= zip((image.image_id for image in images), features, strict=True)

    def not_embedded(self, image: LoadedImage) -> None:
        self.refused[image.image_id] = image.reason
