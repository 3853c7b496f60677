"""Images that are nearly the same: copies cropped, resized, compressed or brightened."""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from featurepipe.errors import FitError
from featurepipe.features.extraction.views import PLAIN_VIEW
from featurepipe.features.store import FeatureStore
from featurepipe.models.answers.arrays import Features, Rows
from featurepipe.models.answers.row_chunks import RowChunks
from featurepipe.models.studies.duplicate_rows import BYTES_A_ROW, RULE, near_duplicates
from featurepipe.models.studies.duplicates_file import read_duplicates, write_duplicates
from featurepipe.progress import Progress
from featurepipe.workspace import Workspace

# Two chunks, and the float64 parts of them that are multiplied at a time.
_COPIES_OF_A_CHUNK, _LEAST_CHUNK_ROWS = 3, 256


@dataclass(frozen=True)
class NearDuplicates:
    """Pairs of images that are nearly the same.

    Attributes
    ----------
    store : str
        Name of the store whose features were compared.
    images : ndarray of shape (n_images,), str objects
        Ids of the images that were compared, sorted.
    pairs : ndarray of shape (n_pairs, 2), intp
        Positions of the images of each pair, ascending.
    distances : ndarray of shape (n_pairs,), float64, ascending
        Distance of the two as a share of the median distance between images.
    is_remembered : bool
        Whether they were read from the file that remembers them.
    """

    store: str
    images: NDArray[np.object_]
    pairs: NDArray[np.intp]
    distances: NDArray[np.float64]
    is_remembered: bool = False

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def ids(self) -> NDArray[np.object_]:
        """Ids of the images of each pair: ndarray of shape (n_pairs, 2), str objects."""
        return self.images[self.pairs]

    def groups(self) -> dict[str, int]:
        """Group number of each image: pairs share it, directly or through other pairs.

        Examples
        --------
        >>> images = np.array(["a", "b", "c", "d", "e"], dtype=object)
        >>> pairs = np.array([[0, 1], [2, 3], [1, 4]])
        >>> NearDuplicates("store", images, pairs, np.array([0.1, 0.1, 0.2])).groups()
        {'a': 0, 'b': 0, 'c': 1, 'd': 1, 'e': 0}
        """
        paired, ends = np.unique(self.pairs, return_inverse=True)
        first, second = ends.reshape(-1, 2).T
        graph = coo_array((np.ones(len(self)), (first, second)), shape=(len(paired), len(paired)))
        names = self.images[paired].tolist()
        return dict(zip(names, connected_components(graph)[1].tolist(), strict=True))

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
        return replace(self, pairs=self.pairs[kept], distances=self.distances[kept])


@dataclass(frozen=True)
class DuplicateSearch:
    """A search for near-duplicates, and the file that remembers what it finds.

    Attributes
    ----------
    store : Path
    rows : ndarray of shape (n_images,), intp
        Rows of the store that are compared.
    images : ndarray of shape (n_images,), str objects
        Their ids.
    digest : str
        Of all that decides what is found.
    file : Path
        What remembers it.
    """

    store: Path
    rows: NDArray[np.intp]
    images: NDArray[np.object_]
    digest: str
    file: Path

    @classmethod
    def among(
        cls, workspace: Workspace, store: Path, ids: Collection[str] | NDArray[np.object_]
    ) -> "DuplicateSearch":
        """A search among images, with the features of one store.

        Parameters
        ----------
        workspace : Workspace
        store : Path
            See `deciding_store`.
        ids : collection of str
            Images to compare. Among images with identical bytes the first stands for all.
        """
        with FeatureStore.open(store) as opened:
            # Of a million images, the store's own copy of their ids takes 70 MB.
            known = {image: image for image in ids}
            rows, stored = opened.rows("done"), opened.ids
            rows = rows[[image in known for image in stored[rows]]]
            _, firsts = np.unique(opened.digests[rows], axis=0, return_index=True)
            rows = rows[np.sort(firsts)]
            images = np.array([known[image] for image in stored[rows]], dtype=object)
            file = workspace.found_duplicates(store.stem)
            return cls(store, rows, images, _digest(opened, rows), file)

    @contextmanager
    def features(self, memory_bytes: int | None = None) -> Iterator[RowChunks]:
        """Features of the images, in chunks of which two fit into memory.

        Parameters
        ----------
        memory_bytes : int or None
            Bound of the memory; None: no bound.

        Raises
        ------
        FitError
            If the bound is too small.
        """
        with FeatureStore.open(self.store) as store:
            chunk_rows = _chunk_rows(len(self.rows), store.n_features, memory_bytes)
            yield RowChunks(_StoreRows(store, self.rows), chunk_rows)

    def find(self, memory_bytes: int | None = None) -> NearDuplicates:
        """What is remembered of this search, else what is found now; nothing is written.

        Parameters
        ----------
        memory_bytes : int or None
            Bound of the memory; None: no bound.

        Raises
        ------
        FitError
            If the bound is too small.
        """
        known = self.remembered()
        if known is not None:
            return known
        with (
            self.features(memory_bytes) as rows,
            Progress(None, "Comparing images", "pair of chunk") as progress,
        ):
            found = near_duplicates(rows, progress.report)
        return NearDuplicates(self.store.stem, self.images, *found)

    def remembered(self) -> NearDuplicates | None:
        """What was found and remembered before; None if nothing is."""
        known = read_duplicates(self.file, self.digest, len(self.images))
        if known is None:
            return None
        return NearDuplicates(self.store.stem, self.images, *known, is_remembered=True)

    def remember(self, found: NearDuplicates) -> None:
        """Write down what `find` found, under the lock of the workspace."""
        if not found.is_remembered:
            write_duplicates(self.file, self.digest, found.pairs, found.distances)


@dataclass(frozen=True)
class _StoreRows:
    """A `RowReader` of some rows of a store."""

    store: FeatureStore
    rows: NDArray[np.intp]

    @property
    def n_features(self) -> int:
        return self.store.n_features

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, rows: Rows) -> Features:
        return self.store.features(self.rows[rows])


def _chunk_rows(n_rows: int, n_features: int, memory_bytes: int | None) -> int:
    """Rows of a chunk, of which two and what comparing them takes are in memory."""
    if memory_bytes is None:
        return max(n_rows, 1)
    left = memory_bytes - BYTES_A_ROW * n_rows
    chunk_rows = left // (_COPIES_OF_A_CHUNK * 4 * n_features)
    if chunk_rows < min(_LEAST_CHUNK_ROWS, n_rows):
        raise FitError(
            f"Comparing {n_rows} images needs more memory than {memory_bytes / 1e6:.0f}MB. "
            "Raise --memory."
        )
    return max(min(chunk_rows, n_rows), 1)


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
        if key.is_of_network:
            ranked.append((key.view != PLAIN_VIEW, path))
    return min(ranked, key=lambda candidate: candidate[0])[1] if ranked else None


def _digest(store: FeatureStore, rows: NDArray[np.intp]) -> str:
    """SHA-256 of all that decides which rows are near-duplicates, in hexadecimal."""
    about = [RULE, store.key.as_dict(), store.ids[rows].tolist()]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    digest.update(store.digests[rows].tobytes())
    digest.update(store.checksums(rows).astype("<u4").tobytes())
    return digest.hexdigest()
