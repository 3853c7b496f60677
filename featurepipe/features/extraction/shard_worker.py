"""ShardWorker: makes shards of stores on one machine, with engines that stay open."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from featurepipe.errors import ClusterError, FeaturepipeError
from featurepipe.features.engines import probes
from featurepipe.features.extraction.embedders import share_engines
from featurepipe.features.extraction.ready_stores import open_stores
from featurepipe.features.extraction.recipe import Recipe, repeat_recipe
from featurepipe.features.extraction.shard_job import (
    ShardJob,
    ShardReceipt,
    ShardTask,
    WantedStore,
    WorkerFacts,
)
from featurepipe.features.extraction.store_update import Extraction, StoreUpdate
from featurepipe.features.extraction.updating import update_stores
from featurepipe.features.store import FeatureStore
from featurepipe.features.store.shards import Shard
from featurepipe.files import remove_leftovers, replacing
from featurepipe.manifest import ManifestRows
from featurepipe.progress import SilentCount
from featurepipe.sources import (
    ImageSource,
    is_tar_pattern,
    open_part,
    open_source,
    require_there,
)


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
        # A URL remembers the folder listed last; of many tar files, few are opened at a time.
        self._source = None if is_tar_pattern(job.root) else open_source(job.root)
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
        places_of: dict[tuple[str, ...], list[int]] = {}
        with ManifestRows(self._job.manifest) as images:
            for place in task.files:
                places_of.setdefault(self._ids(images, task, place), []).append(place)
        receipts: dict[int, ShardReceipt] = {}
        for ids, places in places_of.items():
            source = self._source or open_part(self._job.root, ids)
            stamps = source.stamps(ids)
            for place in places:
                if (done := self._unchanged(task, place, ids, stamps)) is not None:
                    receipts[place] = ShardReceipt(None, done)
            if again := [place for place in places if place not in receipts]:
                receipts |= self._make(task, again, source, ids)
        return receipts

    def _path(self, task: ShardTask, place: int) -> Path | None:
        """The shard that is there."""
        file = task.files[place]
        return None if file is None else self._job.stores[place].folder / file

    def _ids(self, images: ManifestRows, task: ShardTask, place: int) -> tuple[str, ...]:
        """Those of a shard's images that the manifest has."""
        path = self._path(task, place)
        if path is None:
            parts = [images.ids(start, stop).to_pylist() for start, stop in task.rows]
            return tuple(chain.from_iterable(parts))
        with FeatureStore.open(path) as store:
            ids = pa.array(store.ids, pa.string())
        there = images.ids_between(ids[0].as_py(), ids[-1].as_py())
        return tuple(ids.filter(pc.is_in(ids, there)).to_pylist())

    def _unchanged(
        self, task: ShardTask, place: int, ids: Sequence[str], stamps: NDArray[np.int64]
    ) -> Extraction | None:
        """What a finished shard holds; None if something of it must be computed."""
        path = self._path(task, place)
        if path is None:
            return None
        with FeatureStore.open(path) as store:
            if len(store.damaged_rows()):
                return None
            update = StoreUpdate(store, ids, stamps)
            if update.stale(retry_refused=self._job.retry_refused, rehash=self._job.rehash):
                return None
            return update.summarise()

    def _make(
        self, task: ShardTask, places: Sequence[int], source: ImageSource, ids: Sequence[str]
    ) -> dict[int, ShardReceipt]:
        with _beside([self._job.stores[place].folder for place in places]) as unfinished:
            for place, path in zip(places, unfinished, strict=True):
                if (there := self._path(task, place)) is not None:
                    shutil.copyfile(there, path)
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
