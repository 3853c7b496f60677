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
from featurepipe.features.store import DONE, PENDING, FeatureStore, StoreKey

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
    row_of : dict of str to int
        Rows of the store by image id.
    digests : mapping of str to bytes
        SHA-256 of each image's bytes.
    n_pending : int
        Images that are pending in the store.
    placed : Placed or None
        The rows that are done and their features, where tasks on a cluster share them.
    """

    name: str
    path: Path
    key: StoreKey
    weights_label: str
    weights_source: str
    n_features: int
    images_per_s: float
    row_of: dict[str, int]
    digests: Mapping[str, bytes]
    n_pending: int
    placed: Placed[tuple[NDArray[np.intp], NDArray[np.float32]]] | None = None

    def on_cluster(self) -> "CachedFeatures":
        """The same, with all features read now: `read` takes them from the cluster.

        Raises
        ------
        ClusterError
            If the cluster has no space for them.
        """
        rows = np.array(sorted(self.row_of.values()), np.intp)
        with FeatureStore.open(self.path) as store:
            return replace(self, placed=Placed((rows, store.features(rows))))

    def read(self, ids: NDArray[np.object_]) -> NDArray[np.float32]:
        """Features of some images.

        Parameters
        ----------
        ids : ndarray of shape (n_images,), str objects

        Returns
        -------
        ndarray of shape (n_images, n_features), float32
        """
        if self.placed is not None:
            rows, features = self.placed.get()
            return features[np.searchsorted(rows, self._rows(ids))]
        with FeatureStore.open(self.path) as store:
            return store.features(self._rows(ids))

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
            return store.checksums(self._rows(ids))

    def _rows(self, ids: NDArray[np.object_]) -> NDArray[np.intp]:
        return np.array([self.row_of[image_id] for image_id in ids], np.intp)

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
        key, status = store.key, store.status
        # Of a million images, a second copy of their ids takes 80 MB.
        known = {image_id: image_id for image_id in image_ids}
        ids = [known.get(image_id, image_id) for image_id in store.ids]
        row_of = {ids[row]: row for row in np.flatnonzero(status == DONE).tolist()}
        settled = {ids[row] for row in np.flatnonzero(status != PENDING)}
        return CachedFeatures(
            name=f"{key.backbone}:{key.view}",
            path=path,
            key=key,
            weights_label=store.made_by.get("weights_label", "none"),
            weights_source=store.made_by.get("weights_source", "none"),
            n_features=store.n_features,
            images_per_s=store.images_per_s,
            row_of=row_of,
            digests=_Digests(row_of, store.digests),
            n_pending=sum(image_id not in settled for image_id in image_ids),
        )


def digests_in_all(
    caches: Sequence[CachedFeatures], n_images: int, *, allow_partial: bool
) -> Mapping[str, bytes]:
    """Digests of the images to divide: those of the first store, or those in every store.

    Parameters
    ----------
    caches : sequence of CachedFeatures
        At least one.
    n_images : int
        Images of the manifest.
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
        lack = f"{cache.path} has no features yet of {cache.n_pending} of {n_images} images"
        if not allow_partial:
            raise FitError(
                f"{lack}. Finish it: featurepipe extract; or fit without these images: "
                "--allow-partial"
            )
        logger.warning("%s. They are left out.", lack)
    if not allow_partial:
        return caches[0].digests
    everywhere = set.intersection(*(set(cache.digests) for cache in caches))
    if not everywhere:
        raise FitError(
            f"No image has features in all of: {', '.join(str(cache.path) for cache in caches)}. "
            "Extract more images, or name fewer stores with --backbone or --features."
        )
    return {name: digest for name, digest in caches[0].digests.items() if name in everywhere}
