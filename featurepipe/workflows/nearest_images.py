"""The nearest images to others, among those whose features a store has."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import StoreError
from featurepipe.features.store import FeatureStore, StoredImages
from featurepipe.manifest import Manifest
from featurepipe.models.answers.arrays import Rows, unit_blocks
from featurepipe.models.answers.row_chunks import RowChunks
from featurepipe.models.studies.neighbour_search import median_distance, nearest_rows

# Features that are read and compared at once.
_CHUNK_BYTES = 2**24
_N_SAMPLED_IMAGES = 2000
_NONE = -1


@dataclass(frozen=True)
class Neighbour:
    """An image that is near another one.

    Attributes
    ----------
    image : str
        Its id.
    distance : float
        Euclidean distance of the features, scaled to length 1: from 0 to 2.
    of_median : float
        The same as a share of the median distance between images; NaN if that is 0.
    same_bytes : bool
        Whether the files have the same bytes.
    """

    image: str
    distance: float
    of_median: float
    same_bytes: bool


@dataclass(frozen=True)
class SearchedImages:
    """Images of a store among which neighbours are searched.

    Attributes
    ----------
    store : Path
    images : StoredImages
    digests : ndarray of shape (n_images, 32), uint8
        SHA-256 of their bytes.
    """

    store: Path
    images: StoredImages
    digests: NDArray[np.uint8]

    @classmethod
    def among(cls, store: Path, ids: Collection[str] | NDArray[Any]) -> Self:
        """The images of these ids that have features.

        Parameters
        ----------
        store : Path
        ids : collection of str

        Raises
        ------
        StoreError
            If none has.
        """
        with FeatureStore.open(store) as opened:
            images = opened.images("done")
            places = np.unique(images.places(ids))
            images = images.take(places[places >= 0])
            if not len(images):
                raise StoreError(
                    f"{store} has no features of the images to search. Make them: featurepipe "
                    "extract"
                )
            return cls(store, images, opened.digests[images.rows])

    def __len__(self) -> int:
        return len(self.images)

    def row_of(self, image_id: str) -> int | None:
        """The row of the store of an image; None if it is not among them."""
        (place,) = self.images.places([image_id])
        return None if place < 0 else int(self.images.rows[place])

    def rows_of_bytes(self, digest: bytes) -> Rows:
        """Rows of the store of the images that have these bytes.

        Parameters
        ----------
        digest : bytes
            Their SHA-256.
        """
        wanted = np.frombuffer(digest, np.uint8)
        return self.images.rows[(self.digests == wanted).all(axis=1)]

    def nearest(
        self,
        X: NDArray[np.float32],
        n: int,
        *,
        left_out: Sequence[int | None] = (),
        digests: Sequence[bytes] = (),
    ) -> list[list[Neighbour]]:
        """The nearest images to some features; every image is compared.

        Parameters
        ----------
        X : ndarray of shape (n_queries, n_features), float32
        n : int
            Most neighbours of each.
        left_out : sequence of int or None
            For each query the row that is no neighbour of it, such as its own.
        digests : sequence of bytes
            SHA-256 of each query's bytes.

        Returns
        -------
        list of list of Neighbour
            The nearest first.

        Raises
        ------
        StoreError
            If a row is damaged.
        """
        with FeatureStore.open(self.store) as store:
            median = self._median_distance(store)
            found, distances = nearest_rows(_units(X), self._chunks(store), n + 1)
        is_own = self.images.rows[found] == np.array(
            [_NONE if row is None else row for row in left_out or [None] * len(X)]
        ).reshape(-1, 1)
        nearest = []
        for query in range(len(X)):
            kept = ~is_own[query]
            same = digests[query] if digests else b""
            nearest.append(
                [
                    self._neighbour(at, distance, median, same)
                    for at, distance in zip(
                        found[query][kept][:n], distances[query][kept][:n], strict=True
                    )
                ]
            )
        return nearest

    def _neighbour(self, at: int, distance: float, median: float, digest: bytes) -> Neighbour:
        share = float(distance / median) if median > 0 else float("nan")
        same_bytes = self.digests[at].tobytes() == digest
        return Neighbour(self.images.ids[at].decode(), float(distance), share, same_bytes)

    def _chunks(self, store: FeatureStore) -> Iterator[NDArray[np.float32]]:
        size = max(1, _CHUNK_BYTES // (4 * store.n_features))
        for start in range(0, len(self), size):
            yield _units(store.features(self.images.rows[start : start + size]))

    def _median_distance(self, store: FeatureStore) -> float:
        """Median distance between images, of at most `_N_SAMPLED_IMAGES` of them."""
        if len(self) < 2:
            return float("nan")
        n = min(len(self), _N_SAMPLED_IMAGES)
        sample = np.random.default_rng(0).choice(self.images.rows, n, replace=False)
        return median_distance(RowChunks.in_memory(_units(store.features(np.sort(sample)))))


def nearest_training_images(
    store: Path, ids: Sequence[str], training_ids: Collection[str] | NDArray[Any], n: int
) -> dict[str, list[Neighbour]]:
    """The training images nearest to images, none of which is its own neighbour.

    Parameters
    ----------
    store : Path
        Whose features are compared.
    ids : sequence of str
        Images whose features the store has, each once.
    training_ids : collection of str
    n : int
        Most neighbours of each.

    Returns
    -------
    dict of str to list of Neighbour
        For each image that has features, the nearest first; `labels_of` has their labels.

    Raises
    ------
    StoreError
        If the store has none of the training images, or a row is damaged.
    """
    training = SearchedImages.among(store, training_ids)
    with FeatureStore.open(store) as opened:
        done = opened.images("done")
        places = done.places(ids)
        rows = done.rows[places[places >= 0]]
        X, digests = opened.features(rows), list(map(bytes, opened.digests[rows]))
    names = [image for image, place in zip(ids, places, strict=True) if place >= 0]
    nearest = training.nearest(X, n, left_out=rows.tolist(), digests=digests)
    return dict(zip(names, nearest, strict=True))


def labels_of(manifest: Manifest, image_id: str) -> dict[str, list[str] | None]:
    """The classes of an image for each attribute; None where the label is missing.

    Parameters
    ----------
    manifest : Manifest
    image_id : str
        One of its images.
    """
    row = int(np.searchsorted(manifest.ids, image_id))
    cells = {name: manifest.cells[name][row] for name in manifest.attribute_names}
    return {name: None if cell is None else list(cell) for name, cell in cells.items()}


def _units(X: NDArray[np.float32]) -> NDArray[np.float32]:
    return unit_blocks(X, ((0, X.shape[1]),))
