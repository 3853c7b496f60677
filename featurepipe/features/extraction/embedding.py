"""Embedding: features of images without a store."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurepipe.features.extraction.decoding import decode_framed
from featurepipe.features.extraction.embedders import Embedder, SharedEngine, share_engines
from featurepipe.features.extraction.lanes import Cost, Lane
from featurepipe.features.extraction.loading import ImageLoader, LoadedImage
from featurepipe.features.extraction.single_pass import embed_loaded, run_pass
from featurepipe.features.extraction.views import find_view
from featurepipe.features.framing import Framing
from featurepipe.progress import SilentCount
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
    lanes = _lanes(ids, embedders, engines or share_engines(embedders), sinks)
    for fast_decode, alike in _by_decoding(embedders, lanes):
        run_pass(ImageLoader(source, fast_decode=fast_decode), ids, alike)
    reasons: dict[str, str] = {}
    for sink in sinks:
        reasons |= sink.refused
    refused = {k: reasons[image_id] for k, image_id in enumerate(ids) if image_id in reasons}
    return _side_by_side([image_id for image_id in ids if image_id not in reasons], sinks), refused


@dataclass(frozen=True)
class DecodedImage:
    """The pixels of an image that some embedders read.

    Attributes
    ----------
    pixels : mapping of bool to mapping of Framing to ndarray of shape (height, width, 3), uint8
        For each way of decoding: whether large JPEGs are decoded at a reduced size.
    """

    pixels: Mapping[bool, Mapping[Framing, NDArray[np.uint8]]]


def decode_for(embedders: Sequence[Embedder], data: bytes) -> DecodedImage:
    """Decode an image as embedders read it.

    Parameters
    ----------
    embedders : sequence of Embedder
    data : bytes
        An image file.

    Raises
    ------
    ImageError
        If it cannot be decoded; see `featurepipe.features.extraction.decoding.decode_image`.
    """
    framings: dict[bool, list[Framing]] = {}
    for embedder in embedders:
        framings.setdefault(embedder.fast_decode, []).append(embedder.framing)
    return DecodedImage(
        {fast: decode_framed(data, alike, fast=fast) for fast, alike in framings.items()}
    )


def embed_decoded(
    images: Sequence[DecodedImage],
    embedders: Sequence[Embedder],
    engines: Sequence[SharedEngine],
) -> NDArray[np.float32]:
    """Embed images that are decoded.

    Parameters
    ----------
    images : sequence of DecodedImage
        At least one, by `decode_for` of the same embedders.
    embedders : sequence of Embedder
    engines : sequence of SharedEngine
        The engine of each embedder.

    Returns
    -------
    ndarray of shape (n_images, n_features), float32
        As `embed_images`.
    """
    ids = [str(position) for position in range(len(images))]
    sinks = [_MemorySink() for _ in embedders]
    lanes = _lanes(ids, embedders, engines, sinks)
    for fast_decode, alike in _by_decoding(embedders, lanes):
        loaded = (
            LoadedImage(image_id, pixels=dict(image.pixels[fast_decode]))
            for image_id, image in zip(ids, images, strict=True)
        )
        embed_loaded(loaded, alike, SilentCount())
    return _side_by_side(ids, sinks)


def _lanes(
    ids: Sequence[str],
    embedders: Sequence[Embedder],
    engines: Sequence[SharedEngine],
    sinks: Sequence["_MemorySink"],
) -> list[Lane]:
    return [
        Lane(
            f"embedding by {embedder.title}",
            embedder.framing,
            find_view(embedder.view),
            dict.fromkeys(ids),
            engine,
            sink,
        )
        for embedder, engine, sink in zip(embedders, engines, sinks, strict=True)
    ]


def _by_decoding(
    embedders: Sequence[Embedder], lanes: Sequence[Lane]
) -> Iterator[tuple[bool, list[Lane]]]:
    """The lanes of each way of decoding."""
    for fast_decode in sorted({embedder.fast_decode for embedder in embedders}):
        yield (
            fast_decode,
            [
                lane
                for lane, embedder in zip(lanes, embedders, strict=True)
                if embedder.fast_decode == fast_decode
            ],
        )


def _side_by_side(ids: Sequence[str], sinks: Sequence["_MemorySink"]) -> NDArray[np.float32]:
    rows = [np.concatenate([sink.features[image_id] for sink in sinks]) for image_id in ids]
    return np.stack(rows) if rows else np.empty((0, 0), np.float32)


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
