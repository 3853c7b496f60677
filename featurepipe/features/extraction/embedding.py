"""Embedding: features of images without a store."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from featurepipe.features.extraction.embedders import Embedder, SharedEngine, share_engines
from featurepipe.features.extraction.lanes import Cost, Lane
from featurepipe.features.extraction.loading import ImageLoader, LoadedImage
from featurepipe.features.extraction.single_pass import run_pass
from featurepipe.features.extraction.views import find_view
from featurepipe.sources import ImageSource


def embed_images(
    source: ImageSource,
    ids: Sequence[str],
    embedders: Sequence[Embedder],
    *,
    engines: Sequence[SharedEngine] | None = None,
) -> tuple[NDArray[np.float32], dict[int, str]]:
    """Embed images without a store.

    Parameters
    ----------
    source : ImageSource
    ids : sequence of str
        Image ids, each once.
    embedders : sequence of Embedder
        Embedders that decode alike share one pass over the images.
    engines : sequence of SharedEngine, optional
        The engine of each embedder, if they are kept open; see `share_engines`.

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
            engine,
            sink,
        )
        for embedder, engine, sink in zip(
            embedders, engines or share_engines(embedders), sinks, strict=True
        )
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
