"""Embedders: what computes rows of images, and the engines that they share."""

import logging
import threading
from collections.abc import Hashable, Sequence
from typing import Protocol

from featurepipe.features.engines import Engine
from featurepipe.features.extraction.views import find_view
from featurepipe.features.framing import Framing
from featurepipe.features.store.stages import BusyClock

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

    @property
    def engine_key(self) -> Hashable:
        """Equal for embedders that one engine can serve, whatever their views."""

    def open_engine(self, batch_size: int | None = None) -> Engine:
        """Load it, for batches of at most so many pictures."""


class SharedEngine:
    """The engine of embedders that one can serve, opened when something must be computed.

    Parameters
    ----------
    embedder : Embedder
        One of them.
    n_pictures : int, optional
        Pictures computed at once; default: the engine's own.

    Attributes
    ----------
    clock : BusyClock
        How long the engine was busy.
    """

    def __init__(self, embedder: Embedder, n_pictures: int | None) -> None:
        self._embedder = embedder
        self._n_pictures = n_pictures
        self._engine: Engine | None = None
        self._opening = threading.Lock()
        self.clock = BusyClock(1)

    def open(self, n_pictures: int | None = None) -> Engine:
        """The engine; it is loaded anew if batches of another size are requested."""
        with self._opening:
            if n_pictures is not None:
                # Released first: two engines would need even more memory.
                self._n_pictures, self._engine = n_pictures, None
            if self._engine is None:
                logger.info("%s", self._embedder.beginning)
                self._engine = self._embedder.open_engine(self._n_pictures)
                self.clock = BusyClock(self._engine.n_parallel)
            return self._engine


def share_engines(
    embedders: Sequence[Embedder], batch_size: int | None = None
) -> list[SharedEngine]:
    """The engine of each embedder; views of one network share one.

    Parameters
    ----------
    embedders : sequence of Embedder
    batch_size : int, optional
        Images computed at once; default: the engine's own.
    """
    by_key: dict[Hashable, list[Embedder]] = {}
    for embedder in embedders:
        by_key.setdefault(embedder.engine_key, []).append(embedder)
    engines = {}
    for key, sharing in by_key.items():
        n_pictures = max(find_view(embedder.view).n_pictures for embedder in sharing)
        engines[key] = SharedEngine(sharing[0], batch_size and batch_size * n_pictures)
    return [engines[embedder.engine_key] for embedder in embedders]
