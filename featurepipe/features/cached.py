"""CachedFeatures: what fitting needs to know about a finished store."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurepipe.cluster.spreading import Placed
from featurepipe.errors import FitError
from featurepipe.features.store import FeatureStore, StoredImages, StoreKey

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CachedFeatures:
    """The finished features of one store.

    Attributes
    ----------
    name : str
        ``backbone:view``; where stores share that, the name of the file.
    path : Path
    key : StoreKey
        What decides the features.
    weights_label, weights_source : str
        Name of the weights, and where they were.
    n_features : int
    images_per_s : float
        Speed of the extraction.
    images : StoredImages
        Those that have features.
    n_pending : int
        Images that are pending in the store.
    placed : Placed or None
        All features, where tasks on a cluster share them.
    """

    name: str
    path: Path
    key: StoreKey
    weights_label: str
    weights_source: str
    n_features: int
    images_per_s: float
    images: StoredImages
    n_pending: int
    placed: Placed[NDArray[np.float32]] | None = None

    def on_cluster(self) -> "CachedFeatures":
        """The same, with all features read now: `read` takes them from the cluster.

        Raises
        ------
        ClusterError
            If the cluster has no space for them.
        """
        with FeatureStore.open(self.path) as store:
            return replace(self, placed=Placed(store.features(self.images.rows)))

    def read(self, ids: NDArray[np.object_]) -> NDArray[np.float32]:
        """Features of some images.

        Parameters
        ----------
        ids : ndarray of shape (n_images,), str objects

        Returns
        -------
        ndarray of shape (n_images, n_features), float32
        """
        places = self._places(ids)
        if self.placed is not None:
            return self.placed.get()[places]
        with FeatureStore.open(self.path) as store:
            return store.features(self.images.rows[places])

    def checksums(self, ids: NDArray[np.object_]) -> NDArray[np.uint32]:
        """Checksums by which a change of images or their features shows.

        Parameters
        ----------
        ids : ndarray of shape (n_images,), str objects

        Returns
        -------
        ndarray of shape (n_images,), uint32
            CRC-32 of each image's id, digest and features.
        """
        with FeatureStore.open(self.path) as store:
            return store.checksums(self.images.rows[self._places(ids)])

    def digests(self, ids: NDArray[np.object_]) -> Mapping[str, bytes]:
        """SHA-256 of the bytes of those images that have features.

        Parameters
        ----------
        ids : ndarray of shape (n_images,), str objects
        """
        places = self.images.places(ids)
        there = places >= 0
        rows = self.images.rows[places[there]].tolist()
        row_of = dict(zip(ids[there], rows, strict=True))
        with FeatureStore.open(self.path) as store:
            return _Digests(row_of, store.digests)

    def missing(self, ids: NDArray[np.object_]) -> list[str]:
        """Those of some images that have no features.

        Parameters
        ----------
        ids : ndarray of shape (n_images,), str objects
        """
        return ids[self.images.places(ids) < 0].tolist()

    def _places(self, ids: NDArray[np.object_]) -> NDArray[np.intp]:
        places = self.images.places(ids)
        if (places < 0).any():
            raise KeyError(ids[places < 0][0])
        return places

    @property
    def title(self) -> str:
        """A short name for files: the backbone, and the view if it is not rgb."""
        return self.name.removesuffix(":rgb").replace(":", "-")


def open_caches(paths: Sequence[Path], image_ids: Sequence[str]) -> list[CachedFeatures]:
    """Read what fitting needs to know about some stores.

    Parameters
    ----------
    paths : sequence of Path
        Stores.
    image_ids : sequence of str
        Ids of all images.

    Returns
    -------
    list of CachedFeatures
        In the stores' order.
    """
    caches = [_open_cache(path, image_ids) for path in paths]
    shared = Counter(cache.name for cache in caches)
    return [
        replace(cache, name=cache.path.stem) if shared[cache.name] > 1 else cache
        for cache in caches
    ]


class _Digests(Mapping[str, bytes]):
    """Digests of images by id, without an object for each."""

    def __init__(self, row_of: Mapping[str, int], digests: NDArray[np.uint8]) -> None:
        self._row_of, self._digests = row_of, digests

    def __getitem__(self, image_id: str) -> bytes:
        return self._digests[self._row_of[image_id]].tobytes()

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._row_of

    def __iter__(self) -> Iterator[str]:
        return iter(self._row_of)

    def __len__(self) -> int:
        return len(self._row_of)


def _open_cache(path: Path, image_ids: Sequence[str]) -> CachedFeatures:
    with FeatureStore.open(path) as store:
        key, done, refused = store.key, store.images("done"), store.images("refused")
        is_pending = (done.places(image_ids) < 0) & (refused.places(image_ids) < 0)
        return CachedFeatures(
            name=f"{key.backbone}:{key.view}",
            path=path,
            key=key,
            weights_label=store.made_by.get("weights_label", "none"),
            weights_source=store.made_by.get("weights_source", "none"),
            n_features=store.n_features,
            images_per_s=store.images_per_s,
            images=done,
            n_pending=int(is_pending.sum()),
        )


def digests_in_all(
    caches: Sequence[CachedFeatures], ids: NDArray[np.object_], *, allow_partial: bool
) -> Mapping[str, bytes]:
    """Digests of the images to divide: those of the first store, or those in every store.

    Parameters
    ----------
    caches : sequence of CachedFeatures
        At least one.
    ids : ndarray of shape (n_images,), str objects
        Ids of all images.
    allow_partial : bool
        Whether images that lack features in a store are left out, with a warning.

    Returns
    -------
    mapping of str to bytes
        SHA-256 of the bytes of each image.

    Raises
    ------
    FitError
        If images are pending in a store and may not be left out, or none would remain.
    """
    for cache in (cache for cache in caches if cache.n_pending):
        lack = f"{cache.path} has no features yet of {cache.n_pending} of {len(ids)} images"
        if not allow_partial:
            raise FitError(
                f"{lack}. Finish it: featurepipe extract; or fit without these images: "
                "--allow-partial"
            )
        logger.warning("%s. They are left out.", lack)
    if allow_partial:
        ids = ids[np.all([cache.images.places(ids) >= 0 for cache in caches], axis=0)]
        if not len(ids):
            raise FitError(
                f"No image has features in all of: {', '.join(str(cache.path) for cache in caches)}"
                ". Extract more images, or name fewer stores with --backbone or --features."
            )
    return caches[0].digests(ids)
