"""Images that are nearly the same: copies cropped, resized, compressed or brightened."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.neighbors import NearestNeighbors

from featurepipe.features.backbones import find_backbone
from featurepipe.features.extraction.views import PLAIN_VIEW
from featurepipe.features.store import FeatureStore

# Measured by benchmarks/duplicates.py: absolute distances do not travel between sets of images.
_N_NEIGHBOURS = 5
_SHARE_OF_NEIGHBOURHOOD = 0.65
_SHARE_OF_MEDIAN = 0.1
_N_SAMPLED_PAIRS = 2000


@dataclass(frozen=True)
class NearDuplicates:
    """Pairs of images that are nearly the same.

    Attributes
    ----------
    store : str
        Name of the store whose features were compared.
    ids : ndarray of shape (n_pairs, 2), str objects
    distances : ndarray of shape (n_pairs,), float64, ascending
        Distance of the two as a share of the median distance between images.
    """

    store: str
    ids: NDArray[np.object_]
    distances: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ids)

    def groups(self) -> dict[str, int]:
        """Group number of each image: pairs share it, directly or through other pairs.

        Examples
        --------
        >>> ids = np.array([["a", "b"], ["c", "d"], ["b", "e"]], dtype=object)
        >>> NearDuplicates("store", ids, np.array([0.1, 0.1, 0.2])).groups()
        {'a': 0, 'b': 0, 'c': 1, 'd': 1, 'e': 0}
        """
        names, ends = np.unique(self.ids.astype(np.str_), return_inverse=True)
        first, second = ends.reshape(-1, 2).T
        graph = coo_array((np.ones(len(self)), (first, second)), shape=(len(names), len(names)))
        return dict(zip(names.tolist(), connected_components(graph)[1].tolist(), strict=True))

    def across(self, part_of: Mapping[str, str]) -> "NearDuplicates":
        """Pairs with one image in the training part and the other outside of it.

        Parameters
        ----------
        part_of : mapping of str to str
            ``"train"``, ``"test"`` or ``"unseen"`` for each image of a split. Pairs with
            other images are left out.
        """
        parts = ((part_of.get(first), part_of.get(second)) for first, second in self.ids)
        leaks = [None not in pair and pair.count("train") == 1 for pair in parts]
        kept = np.flatnonzero(leaks)
        return replace(self, ids=self.ids[kept], distances=self.distances[kept])


def find_near_duplicates(
    stores: Sequence[Path], ids: Collection[str] | NDArray[np.object_]
) -> NearDuplicates | None:
    """Find images that are nearly the same, with the features of the `deciding_store`.

    Parameters
    ----------
    stores : sequence of Path
    ids : collection of str
        Images to compare. Among images with identical bytes the first stands for all.

    Returns
    -------
    NearDuplicates or None
        None if no store holds features of a network.
    """
    path = deciding_store(stores)
    if path is None:
        return None
    with FeatureStore.open(path) as store:
        rows = store.rows("done")
        rows = rows[np.isin(store.ids[rows], list(ids))]
        _, firsts = np.unique(store.digests[rows], axis=0, return_index=True)
        rows = rows[np.sort(firsts)]
        pairs, distances = near_duplicates(store.features(rows))
        return NearDuplicates(path.stem, store.ids[rows[pairs]].reshape(-1, 2), distances)


def near_duplicates(
    X: NDArray[np.float32],
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Find rows that are much closer to each other than to their other neighbours.

    Two rows are near-duplicates if one is among the 5 nearest of the other and their distance
    is below 0.65 of the distance to either's fifth neighbour, or below 0.1 of the median
    distance between rows. The latter finds more than 5 copies of an image.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features), float32
        Features of distinct images.

    Returns
    -------
    pairs : ndarray of shape (n_pairs, 2), intp
        Positions of the rows of each pair, ascending.
    distances : ndarray of shape (n_pairs,), float64, ascending
        As shares of the median distance between rows.
    """
    n_neighbours = min(_N_NEIGHBOURS, len(X) - 1)
    if n_neighbours < 2:
        return np.empty((0, 2), dtype=np.intp), np.empty(0)
    nearest = NearestNeighbors(n_neighbors=n_neighbours, algorithm="brute").fit(X)
    distances, neighbours = nearest.kneighbors()
    reach, median = distances[:, -1], _median_distance(X)
    limits = np.maximum(
        _SHARE_OF_NEIGHBOURHOOD * np.minimum(reach[:, None], reach[neighbours]),
        _SHARE_OF_MEDIAN * median,
    )
    rows, columns = np.nonzero(distances < limits)
    pairs = np.sort(np.column_stack([rows, neighbours[rows, columns]]), axis=1)
    pairs, firsts = np.unique(pairs, axis=0, return_index=True)
    shares = distances[rows, columns][firsts] / median
    order = np.argsort(shares, kind="stable")
    return pairs[order], shares[order]


def deciding_store(stores: Sequence[Path]) -> Path | None:
    """The store whose features decide which images are nearly the same.

    The first store of a network with the plain view, otherwise the first store of a network.
    Features of colours, or of grey images, make too many images alike.

    Parameters
    ----------
    stores : sequence of Path

    Returns
    -------
    Path or None
        None if no store holds features of a network.
    """
    ranked = []
    for path in stores:
        with FeatureStore.open(path) as store:
            key = store.key
        if find_backbone(key.backbone).kind == "network":
            ranked.append((key.view != PLAIN_VIEW, path))
    return min(ranked, key=lambda candidate: candidate[0])[1] if ranked else None


def _median_distance(X: NDArray[np.float32]) -> float:
    """Median distance of random pairs of rows; the same rows give the same figure."""
    rng = np.random.default_rng(0)
    first = rng.integers(0, len(X), _N_SAMPLED_PAIRS)
    second = (first + rng.integers(1, len(X), _N_SAMPLED_PAIRS)) % len(X)
    return float(np.median(np.linalg.norm(X[first] - X[second], axis=1)))
