"""The pixel cache: images decoded once, so that networks can be trained without decoding."""

from collections.abc import Hashable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import StoreError, UsageError
from featurepipe.features.engines import Engine
from featurepipe.features.engines.pixel_engine import Pixels
from featurepipe.features.extraction.store_update import Extraction
from featurepipe.features.extraction.updating import extract_features
from featurepipe.features.extraction.views import PLAIN_VIEW
from featurepipe.features.framing import Framing
from featurepipe.features.store import FeatureStore, StoreKey, WeightsKey
from featurepipe.sources import ImageSource


@dataclass(frozen=True)
class PixelRecipe:
    """What makes the rows of a pixel cache: images at one size.

    A `featurepipe.features.extraction.ready_stores.RowMaker`.

    Attributes
    ----------
    size_px : int
        Side of the square that images are resized to.

    Raises
    ------
    UsageError
        If the size is below 1.
    """

    size_px: int

    view = PLAIN_VIEW
    fast_decode = False

    def __post_init__(self) -> None:
        if self.size_px < 1:
            raise UsageError(
                f"Images cannot be resized to {self.size_px} px. Use a --size of at least 1."
            )

    @property
    def key(self) -> StoreKey:
        """The key of the pixel cache."""
        return StoreKey(
            backbone="pixels",
            weights=WeightsKey("none"),
            size_px=self.size_px,
            pooling="avg",
            view=PLAIN_VIEW,
            decoding="full",
            resize=self.framing.method,
            preprocessing="none",
            precision="uint8",
        )

    @property
    def origin(self) -> dict[str, str]:
        """What the pixel cache records beside the key: nothing."""
        return {}

    @property
    def n_features(self) -> int:
        """Numbers of an image."""
        return self.size_px * self.size_px * 3

    @property
    def framing(self) -> Framing:
        """How images become pixels."""
        return Framing(self.size_px, self.size_px)

    @property
    def title(self) -> str:
        """Title of a progress bar."""
        return f"pixels {self.size_px} px"

    @property
    def beginning(self) -> str:
        """Log line before decoding begins."""
        return f"Decoding images to {self.size_px} px …"

    @property
    def engine_key(self) -> Hashable:
        """Equal for what one engine can serve."""
        return self

    def open_engine(self, batch_size: int | None = None) -> Engine:
        """The engine that returns pixels; its batches have a size of their own."""
        return Pixels(self.size_px)

    def settled(self, precision: str, kept: str | None = None) -> Self:
        """The same: pixels have no other precision."""
        return self


def decode_pixels(path: Path, source: ImageSource, ids: Sequence[str], size_px: int) -> Extraction:
    """Bring a pixel cache up to date with some images, and make it if it is missing.

    Only images that are new, changed, damaged in the cache, or left pending are decoded.
    After a kill at any moment the next call continues from there.

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
        What was done; decoded images count as embedded.

    Raises
    ------
    StoreMismatchError
        If the file has another size, or is no pixel cache.
    ExtractionError
        If not a single image can be read.
    DiskFullError
        If the disk has no room for all pixels.
    """
    (done,) = extract_features({path: PixelRecipe(size_px)}, source, ids)
    return done


class PixelCache:
    """Decoded images, open for the whole of a training.

    Open one with `PixelCache.open`; it closes as a context manager. It knows the
    images that had pixels when it was opened. `read` may be called by several
    threads.

    Parameters
    ----------
    store : FeatureStore
        An open store of pixels, which is closed with it.

    Attributes
    ----------
    path : Path
    key : StoreKey
        What made the pixels: `PixelRecipe.key`.
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
        self.size_px = self.key.size_px
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

    def __exit__(self, *_: object) -> None:
        self.close()

    def refused(self) -> dict[str, str]:
        """Ids of the images that cannot be decoded, each with the reason."""
        return self._store.refused()

    def read(self, ids: NDArray[np.object_] | Sequence[str]) -> NDArray[np.uint8]:
        """Pixels of some images in the order given; each is checked the first time it is read.

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
            If an image has no pixels, or they do not match their checksum.
        """
        rows = self._rows(ids)
        if self._checked[rows].all():
            pixels = self._store.unchecked_features(rows)
        else:
            pixels = self._store.features(rows)
            self._checked[rows] = True
        return pixels.reshape(len(rows), self.size_px, self.size_px, 3)

    def checksums(self, ids: NDArray[np.object_] | Sequence[str]) -> NDArray[np.uint32]:
        """Checksums by which a change of images or their pixels shows.

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
                f"{len(self.row_of)} images that were decoded. Train again, which decodes it."
            ) from None


def _require_pixels(store: FeatureStore) -> None:
    if not store.holds_pixels:
        raise StoreError(
            f"{store.path} holds features of {store.key.backbone}. Expected a pixel cache, such "
            "as pixels/96.h5 in a workspace."
        )
