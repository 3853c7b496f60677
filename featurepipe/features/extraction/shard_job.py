"""What the driver of an extraction and its workers tell each other: job, tasks, receipts."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurepipe.features.extraction.store_update import Extraction
from featurepipe.features.store import StoreKey
from featurepipe.features.store.shards import Shard

Runs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class WantedStore:
    """A store of shards, and what makes its rows.

    Attributes
    ----------
    folder : Path
        Absolute.
    key : StoreKey
        Its precision counts only if the store exists.
    weights : str
        Where the weights are.
    engine : {"auto", "openvino", "keras"}
    precision : str
        As in `featurepipe.extract`.
    kept : str or None
        Precision of the store if it exists.
    """

    folder: Path
    key: StoreKey
    weights: str
    engine: str
    precision: str
    kept: str | None


@dataclass(frozen=True)
class ShardJob:
    """What all tasks have in common.

    Attributes
    ----------
    root : str
        Where the images are; see `featurepipe.manifest.Manifest`.
    manifest : Path
        Absolute path of its file, which is there when the first task is done.
    token : Path
        A file that is there for the time of the job; who does not see it sees another folder.
    stores : tuple of WantedStore
    batch_size : int or None
    retry_refused, rehash : bool
        As in `featurepipe.extract`.
    """

    root: str
    manifest: Path
    token: Path
    stores: tuple[WantedStore, ...]
    batch_size: int | None
    retry_refused: bool
    rehash: bool


@dataclass(frozen=True)
class ShardTask:
    """One shard of some of the stores: a new one, or one that is there.

    Attributes
    ----------
    number : int
        Of the shard.
    rows : tuple of (int, int)
        Images of a new shard: runs of rows of the manifest, each from a first row to before a
        last.
    files : dict of int to (str or None)
        For each of the stores, by its place in the job: the shard's file, if it is there.
    n_images : int
        Of the shard.
    """

    number: int
    rows: Runs
    files: dict[int, str | None]
    n_images: int

    @property
    def title(self) -> str:
        """How messages name it."""
        return f"Shard {self.number}"

    @property
    def size(self) -> int:
        """Features to compute; 0 of a shard that is there, since that may need none."""
        return self.n_images * len(self.files) if self.rows else 0


@dataclass(frozen=True)
class ShardReceipt:
    """What a task did to one store.

    Attributes
    ----------
    shard : Shard or None
        The new file; None if the one that is there is as it should be.
    extraction : Extraction
    """

    shard: Shard | None
    extraction: Extraction


@dataclass(frozen=True)
class WorkerFacts:
    """What a worker tells before it is given a task, one entry a store.

    Attributes
    ----------
    precisions : tuple of str
        In which it computes.
    probes : tuple of ndarray of shape (N_PROBES, n_features), float32
        Features of generated pictures.
    """

    precisions: tuple[str, ...]
    probes: tuple[NDArray[np.float32], ...]
