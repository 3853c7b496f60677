"""ShardWorker: makes shards of stores on one machine, with engines that stay open."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from featurepipe.errors import ClusterError, FeaturepipeError, StoreError
from featurepipe.features.engines import probes
from featurepipe.features.extraction.embedders import share_engines
from featurepipe.features.extraction.ready_stores import open_stores
from featurepipe.features.extraction.recipe import Recipe, repeat_recipe
from featurepipe.features.extraction.store_update import Extraction, StoreUpdate
from featurepipe.features.extraction.updating import update_stores
from featurepipe.features.store import FeatureStore, StoreKey
from featurepipe.features.store.shards import Shard
from featurepipe.files import remove_leftovers, replacing
from featurepipe.progress import SilentCount
from featurepipe.sources import ImageSource, open_part, require_there
from featurepipe.words import one_line


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
    """One shard of some of the stores.

    Attributes
    ----------
    number : int
        Of the shard.
    rows : tuple of (int, int)
        Its images: runs of rows of the manifest, each from a first row to before a last.
    existing : dict of int to (str or None)
        For each of the stores, by its place in the job: the shard's file that is there; None if
        there is none, or it cannot be read.
    """

    number: int
    rows: tuple[tuple[int, int], ...]
    existing: dict[int, str | None]

    @property
    def n_images(self) -> int:
        """Number of images."""
        return sum(stop - start for start, stop in self.rows)


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


class ShardWorker:
    """Makes shards; a `featurepipe.cluster.crew.Worker`.

    Parameters
    ----------
    job : ShardJob

    Raises
    ------
    ClusterError
        If it does not see the workspace or the images.
    FeaturepipeError
        If a network cannot be loaded; see `featurepipe.errors`.
    """

    def __init__(self, job: ShardJob) -> None:
        self._job = job
        if not job.token.is_file():
            raise ClusterError(
                f"it does not see the workspace {job.token.parent}. Put the workspace on storage "
                "that all nodes see under this path."
            )
        try:
            require_there(job.root)
        except FeaturepipeError as error:
            raise ClusterError(
                f"it does not see the images in {job.root}. Put them where all nodes see them "
                "under this path, or at a URL."
            ) from error
        self._recipes = [_recipe(store) for store in job.stores]
        self._engines = share_engines(self._recipes, job.batch_size)
        self._progress = SilentCount()

    def facts(self) -> WorkerFacts:
        """What it computes."""
        opened = [engine.open() for engine in self._engines]
        return WorkerFacts(
            tuple(recipe.precision for recipe in self._recipes),
            tuple(one.embed(probes.probe_images(one.input_size)) for one in opened),
        )

    def n_done(self) -> int:
        """Images times stores of the task in progress that are done."""
        return self._progress.n_done

    def do(self, task: ShardTask) -> dict[int, ShardReceipt]:
        """Make a shard of some stores, in one pass over its images.

        Parameters
        ----------
        task : ShardTask

        Returns
        -------
        dict of int to ShardReceipt
            By the place of the store in the job.

        Raises
        ------
        FeaturepipeError
            As `open_stores` and `update_stores`.
        """
        self._progress = SilentCount()
        ids = _read_ids(self._job.manifest, task.rows)
        source = open_part(self._job.root, ids)
        unchanged = {
            place: done
            for place, file in task.existing.items()
            if file is not None and (done := self._unchanged(place, file, source, ids))
        }
        again = [place for place in task.existing if place not in unchanged]
        receipts = {place: ShardReceipt(None, done) for place, done in unchanged.items()}
        return receipts | (self._make(task, again, source, ids) if again else {})

    def _unchanged(
        self, place: int, file: str, source: ImageSource, ids: Sequence[str]
    ) -> Extraction | None:
        """What a finished shard holds; None if something of it must be computed."""
        path = self._job.stores[place].folder / file
        stamps = dict(zip(ids, source.stamps(ids), strict=True))
        try:
            with FeatureStore.open(path) as store:
                if not set(ids) <= set(store.ids) or len(store.damaged_rows()):
                    return None
                update = StoreUpdate(store, stamps)
                if update.stale(retry_refused=self._job.retry_refused, rehash=self._job.rehash):
                    return None
                return update.summarise()
        except StoreError:
            return None

    def _make(
        self, task: ShardTask, places: Sequence[int], source: ImageSource, ids: Sequence[str]
    ) -> dict[int, ShardReceipt]:
        with _beside([self._job.stores[place].folder for place in places]) as unfinished:
            for place, path in zip(places, unfinished, strict=True):
                if (file := task.existing[place]) is not None:
                    shutil.copyfile(self._job.stores[place].folder / file, path)
            makers = {
                path: self._recipes[place] for place, path in zip(places, unfinished, strict=True)
            }
            engines = [self._engines[place] for place in places]
            with open_stores(makers, ids, engines=engines) as ready:
                done = update_stores(
                    ready,
                    source,
                    ids,
                    retry_refused=self._job.retry_refused,
                    rehash=self._job.rehash,
                    progress=self._progress,
                )
            shards = [_finish(path, task.number) for path in unfinished]
        return {
            place: ShardReceipt(shard, extraction)
            for place, shard, extraction in zip(places, shards, done, strict=True)
        }


def _recipe(store: WantedStore) -> Recipe:
    recipe = repeat_recipe(store.key, store.weights, engine=store.engine)
    return recipe.settled(store.precision, store.kept)


@contextmanager
def _beside(folders: Sequence[Path]) -> Iterator[list[Path]]:
    """Hidden names in some folders, of which nothing is left behind."""
    name = f".{uuid4().hex}.h5"
    paths = [folder / name for folder in folders]
    try:
        yield paths
    finally:
        for path in paths:
            remove_leftovers(path)
            for left in path.parent.glob(f"*{name}*"):
                left.unlink(missing_ok=True)


def _finish(path: Path, number: int) -> Shard:
    """Give a complete shard a name of its own: of two that do the same task, none is in the way."""
    shard = Shard.of(path, f"{number:06d}-{{1:08x}}.h5")
    with replacing(path.with_name(shard.file)) as beside:
        path.replace(beside)
    return shard


def _read_ids(manifest: Path, rows: Sequence[tuple[int, int]]) -> list[str]:
    try:
        column = pq.read_table(manifest, columns=["id"], memory_map=True)["id"]
    except OSError as error:
        raise ClusterError(f"it cannot read {manifest} ({one_line(error)})") from error
    return [name for start, stop in rows for name in column[start:stop].to_pylist()]
