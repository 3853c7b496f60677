"""StoreUpdate: which rows of one store are stale, and what becomes of their images."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import ExtractionError
from featurepipe.features.extraction.lanes import Cost
from featurepipe.features.extraction.loading import LoadedImage
from featurepipe.features.store import DONE, PENDING, REFUSED, FeatureStore
from featurepipe.features.store.stages import StageTimes
from featurepipe.image_types import READ
from featurepipe.sources import UNKNOWN


@dataclass(frozen=True)
class Extraction:
    """What one extraction did to one store.

    Attributes
    ----------
    store : Path
        The feature store.
    n_images : int
        Images requested.
    n_embedded : int
        Images embedded now.
    n_unchanged : int
        Images whose features were there already.
    refused : dict of str to str
        Ids of the requested images that have no features, each with the reason.
    unread : dict of str to str
        Ids of the images that cannot be read now but keep their features, each with
        the reason.
    images_per_s : float
        Images embedded per second, decoding and writing included, over the store's
        whole life; NaN if none was.
    stages : StageTimes
        How long each stage was busy with this store now.
    """

    store: Path
    n_images: int
    n_embedded: int
    n_unchanged: int
    refused: dict[str, str]
    unread: dict[str, str]
    images_per_s: float
    stages: StageTimes

    def in_words(self) -> str:
        """One line for a person, and one on the stages if any image was embedded."""
        speed = f" ({self.images_per_s:.1f} images/s)" if self.n_embedded else ""
        unread = f", {len(self.unread)} unreadable now (features kept)" if self.unread else ""
        stages = f"\n  {self.stages.in_words()}" if self.n_embedded else ""
        return (
            f"{self.store}: {self.n_images} images, {self.n_embedded} embedded now{speed}, "
            f"{self.n_unchanged} unchanged, {len(self.refused)} refused{unread}{stages}"
        )

    def as_dict(self) -> dict[str, object]:
        """The same as JSON values."""
        speed = None if math.isnan(self.images_per_s) else self.images_per_s
        return {
            **asdict(self),
            "store": str(self.store),
            "images_per_s": speed,
            "bottleneck": self.stages.bottleneck or None,
        }


class StoreUpdate:
    """The sink of a lane that writes to a store; a `featurepipe.features.extraction.lanes.Sink`.

    Parameters
    ----------
    store : FeatureStore
        Open for writing.
    ids : sequence of str
        Images, each of which has a row.
    stamps : ndarray of shape (n_images, 2), int64
        Size and modification time of each.
    """

    def __init__(self, store: FeatureStore, ids: Sequence[str], stamps: NDArray[np.int64]) -> None:
        self.store = store
        self._ids = ids
        self._row_of = {image_id: row for row, image_id in enumerate(store.ids)}
        self._rows = np.array([self._row_of[image_id] for image_id in ids], dtype=np.intp)
        # One for each row of the store, as all that follows.
        self._stamps = np.full((len(store), 2), UNKNOWN, np.int64)
        self._stamps[self._rows] = stamps
        self._was_done = store.status == DONE
        self._is_untouched = np.zeros(len(store), bool)
        self._n_embedded = 0
        self._unread: dict[str, str] = {}

    def stale(self, *, retry_refused: bool, rehash: bool) -> dict[str, bytes | None]:
        """Ids of the images to load, each with the digest that makes embedding needless."""
        status, digests = self.store.status, self.store.digests
        again = (status == PENDING) | ((status == REFUSED) & retry_refused)
        kept = np.stack([self.store.sizes, self.store.mtimes], axis=1)
        self._is_untouched = (self._stamps == kept).all(axis=1)
        self._is_untouched &= (self._stamps != UNKNOWN).all(axis=1)
        wanted = again | ~self._is_untouched | rehash
        return {
            self._ids[position]: None if again[row] else digests[row].tobytes()
            for position, row in enumerate(self._rows)
            if wanted[row]
        }

    def embedded(self, images: Sequence[LoadedImage], features: NDArray[Any], cost: Cost) -> None:
        """Commit the features of some images."""
        # Timing first: a store that holds features always knows what they cost.
        self.store.add_timing(len(images), cost.seconds, cost.stages)
        rows, digests, stamps = self._columns(images)
        order = np.argsort(rows)
        self.store.write_done(rows[order], features[order], digests[order], *stamps[order].T)
        self._n_embedded += len(images)

    def not_embedded(self, image: LoadedImage) -> None:
        """Commit why an image has no features, or that its bytes are still the same."""
        rows, digests, stamps = self._columns([image])
        if image.reason and not any(image.digest) and self._was_done[rows[0]]:
            # It may be readable again later; its features are those of the digest it had.
            self._unread[image.image_id] = image.reason
        elif image.reason:
            self.store.write_refused(rows, [image.reason], digests, *stamps.T)
        elif not self._is_untouched[rows[0]]:
            self.store.write_seen(rows, *stamps.T)

    def _columns(
        self, images: Sequence[LoadedImage]
    ) -> tuple[NDArray[np.intp], NDArray[np.uint8], NDArray[np.int64]]:
        rows = np.array([self._row_of[image.image_id] for image in images], dtype=np.intp)
        digests = np.frombuffer(b"".join(image.digest for image in images), dtype=np.uint8)
        digests = digests.reshape(-1, 32)
        # Asked before reading: a change in between is then noticed the next time.
        was_read = digests.any(axis=1, keepdims=True)
        return rows, digests, np.where(was_read, self._stamps[rows], UNKNOWN)

    def summarise(self, stages: StageTimes | None = None) -> Extraction:
        """What was done.

        Parameters
        ----------
        stages : StageTimes, optional
            Default: nothing was.
        """
        is_asked = np.zeros(len(self.store), bool)
        is_asked[self._rows] = True
        every = self.store.refused().items()
        refused = {key: why for key, why in every if is_asked[self._row_of[key]]}
        n_done = int((self.store.status[is_asked] == DONE).sum())
        return Extraction(
            store=self.store.path,
            n_images=len(self._rows),
            n_embedded=self._n_embedded,
            n_unchanged=n_done - self._n_embedded,
            refused=refused,
            unread=self._unread,
            images_per_s=self.store.images_per_s,
            stages=stages or StageTimes(),
        )


def require_readable_images(done: Sequence[Extraction]) -> None:
    """Stop if not a single image has features in one of some stores.

    Parameters
    ----------
    done : sequence of Extraction

    Raises
    ------
    ExtractionError
    """
    for one in done:
        if one.n_images and one.n_embedded + one.n_unchanged == 0:
            shown = "; ".join(f"{key}: {why}" for key, why in list(one.refused.items())[:3])
            raise ExtractionError(
                f"None of the {one.n_images} images can be read ({shown}). Expected {READ} files; "
                "look at the first of them."
            )
