"""The pixel cache: images decoded once, so that networks can be trained without decoding."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import StoreError
from featurepipe.features.backbones import BackboneSpec
from featurepipe.features.extraction.recipe import Recipe
from featurepipe.features.extraction.updating import Extraction, extract_features
from featurepipe.features.extraction.views import PLAIN_VIEW
from featurepipe.features.headless import HeadlessNetwork
from featurepipe.features.store import FeatureStore
from featurepipe.features.weights import Weights
from featurepipe.sources import ImageSource

PIXELS = BackboneSpec(
    name="pixels",
    constructor="",
    module="",
    size_px=1,
    min_size_px=1,
    n_features=3,
    preprocessing="none",
    licence="MIT",
    weights_url="",
    weights_file="",
    weights_hash=None,
    blocks="",
    kind="descriptor",
)
"""What stands for the backbone in the key of a pixel cache; none that features are made of."""


class _PixelRecipe(Recipe):
    @property
    def title(self) -> str:
        return f"pixels {self.network.size_px} px"

    @property
    def beginning(self) -> str:
        return f"Decoding images to {self.network.size_px} px …"


def pixel_recipe(size_px: int) -> Recipe:
    """What makes the pixel cache of a size, and keys it.

    Parameters
    ----------
    size_px : int
        Side of the square that images are resized to.
    """
    network = HeadlessNetwork(PIXELS, Weights("none", "none", PIXELS.name), size_px)
    return _PixelRecipe(network, PLAIN_VIEW, precision="uint8")


def decode_pixels(path: Path, source: ImageSource, ids: Sequence[str], size_px: int) -> Extraction:
    """Bring a pixel cache up to date with some images; it is made if it is missing.

    Only images that are new, changed, or left pending are decoded. The work may
    be killed at any moment and goes on where it was the next time.

    Parameters
    ----------
    path : Path
        Such as `featurepipe.workspace.Workspace.pixels` gives.
    source : ImageSource
    ids : sequence of str
        Image ids, sorted.
    size_px : int
        Side of the square that images are resized to.

    Returns
    -------
    Extraction
        What was done; embedded are those images that were decoded.

    Raises
    ------
    StoreMismatchError
        If the file is of another size, or no pixel cache.
    ExtractionError
        If no image at all can be read.
    DiskFullError
        If the disk has not the room that all pixels need.
    """
    (done,) = extract_features({path: pixel_recipe(size_px)}, source, ids)
    return done


class PixelCache:
    """Decoded images, open for the whole of a training.

    Open one with `PixelCache.open`; it closes as a context manager. Which images
    there are is that of the moment it was opened. `read` may be called by a thread
    of its own.

    Parameters
    ----------
    store : FeatureStore
        An open store of pixels, which is closed with it.

    Attributes
    ----------
    path : Path
    key : dict of str to Any
        What made the pixels: `featurepipe.features.extraction.recipe.Recipe.key`.
    size_px : int
        Height and width of the images.
    images_per_s : float
        Speed of decoding; NaN if nothing was decoded yet.
    row_of : dict of str to int
        Rows of the file by image id, of the images that have pixels.
    digests : dict of str to bytes
        SHA-256 of the bytes of each of these images.
    """

    def __init__(self, store: FeatureStore) -> None:
        ids, done, digests = store.ids, store.rows("done"), store.digests
        self.path, self.key = store.path, store.key
        self.size_px = int(self.key["size_px"])
        self.images_per_s = store.images_per_s
        self.row_of = {ids[row]: int(row) for row in done}
        self.digests = {ids[row]: digests[row].tobytes() for row in done}
        self._store = store
        self._checked = np.zeros(len(store), dtype=np.bool_)

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open a pixel cache for reading.

        Raises
        ------
        StoreError
            If the file is missing, damaged, or no pixel cache.
        """
        with ExitStack() as unless_sound:
            store = unless_sound.enter_context(FeatureStore.open(path))
            _require_pixels(store)
            cache = cls(store)
            unless_sound.pop_all()
        return cache

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def refused(self) -> dict[str, str]:
        """Ids of the images that cannot be decoded, and why."""
        return self._store.refused()

    def read(self, ids: NDArray[np.object_] | Sequence[str]) -> NDArray[np.uint8]:
        """Pixels of some images, in the order asked; each is checked the first time it is read.

        Parameters
        ----------
        ids : ndarray of shape (n_images,), str objects, or sequence of str
            An id may occur several times.

        Returns
        -------
        ndarray of shape (n_images, size_px, size_px, 3), uint8
            RGB in [0, 255].

        Raises
        ------
        StoreError
            If an image has no pixels, or they do not fit their checksum.
        """
        rows = self._rows(ids)
        if self._checked[rows].all():
            pixels = self._store.unchecked_features(rows)
        else:
            pixels = self._store.features(rows)
            self._checked[rows] = True
        return pixels.reshape(len(rows), self.size_px, self.size_px, 3)

    def checksums(self, ids: NDArray[np.object_] | Sequence[str]) -> NDArray[np.uint32]:
        """What tells whether images, or their pixels, are still the same.

        Parameters
        ----------
        ids : ndarray of shape (n_images,), str objects, or sequence of str

        Returns
        -------
        ndarray of shape (n_images,), uint32
            CRC-32 of each image's id, digest and pixels.

        Raises
        ------
        StoreError
            If an image has no pixels.
        """
        return self._store.checksums(self._rows(ids))

    def _rows(self, ids: NDArray[np.object_] | Sequence[str]) -> NDArray[np.intp]:
        try:
            return np.array([self.row_of[image_id] for image_id in ids], dtype=np.intp)
        except KeyError as error:
            raise StoreError(
                f"{self.path} has no pixels of {error.args[0]!r}: expected one of the "
                f"{len(self.row_of)} images that were decoded. Decode it first."
            ) from None


def _require_pixels(store: FeatureStore) -> None:
    if not store.holds_pixels:
        raise StoreError(
            f"{store.path} holds features of {store.key['backbone']}. Expected a pixel cache, such "
            "as pixels/96.h5 in a workspace."
        )
