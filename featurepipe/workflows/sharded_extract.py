"""Extraction into stores of shards, by the workers of a cluster or by this process alone."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from featurepipe.cluster.alone import Alone
from featurepipe.cluster.connecting import Node, connected
from featurepipe.cluster.crew import Crew
from featurepipe.cluster.task_queue import Outcome
from featurepipe.errors import ExtractionError, StoreMismatchError
from featurepipe.features.extraction.recipe import Recipe
from featurepipe.features.extraction.shard_job import (
    ShardJob,
    ShardReceipt,
    ShardTask,
    WantedStore,
)
from featurepipe.features.extraction.shard_plan import plan_tasks
from featurepipe.features.extraction.shard_worker import ShardWorker
from featurepipe.features.extraction.sharded_store import ShardedStore
from featurepipe.features.extraction.store_update import Extraction
from featurepipe.features.store.stages import STAGES, StageTimes
from featurepipe.manifest import ManifestRows
from featurepipe.progress import Progress, tell
from featurepipe.provenance import differences
from featurepipe.words import counted
from featurepipe.workflows.cluster_options import ClusterOptions, EmbeddingOptions
from featurepipe.workflows.same_features import SameFeatures
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)

Receipts = dict[int, ShardReceipt]
Workers = Alone[ShardTask, Receipts] | Crew[ShardTask, Receipts]


@contextmanager
def sharded_extraction(
    space: Workspace,
    root: str,
    recipes: Mapping[Path, Recipe],
    embedding: EmbeddingOptions,
    cluster: ClusterOptions,
) -> Iterator[Callable[[], list[Extraction]]]:
    """Get workers ready to bring stores of shards up to date; nothing is computed yet.

    Parameters
    ----------
    space : Workspace
        Locked.
    root : str
        What reads the images; their manifest is saved before the work begins.
    recipes : mapping of Path to Recipe
        What makes the rows of each store, by its folder; all decode alike.
    embedding : EmbeddingOptions
    cluster : ClusterOptions

    Yields
    ------
    callable
        Does the work, and returns what was done to each store.

    Raises
    ------
    ClusterError
        If the cluster cannot be reached, or a node cannot do the work.
    StoreMismatchError
        If a store was made with other options, or nodes compute different features.
    FeaturepipeError
        If the images or a network cannot be used; see `featurepipe.errors`.
    """
    stores = [_look(folder, recipe, embedding) for folder, recipe in recipes.items()]
    with space.token() as token:
        job = ShardJob(
            root=root,
            manifest=space.manifest.absolute(),
            token=token,
            stores=tuple(
                _wanted(store, recipe, embedding)
                for store, recipe in zip(stores, recipes.values(), strict=True)
            ),
            batch_size=embedding.batch_size,
            retry_refused=embedding.retry_refused,
            rehash=embedding.rehash,
        )
        same = SameFeatures(stores, list(recipes.values()))
        make_worker = partial(ShardWorker, job)
        if cluster.executor == "local":
            alone: Workers = Alone(make_worker, same.accept)
            alone.prepare()
            yield partial(_work, alone, stores, space.manifest, cluster)
            return
        with (
            connected(cluster.ray_address),
            Crew(make_worker, same.accept, cluster.gpus_per_worker) as crew,
        ):
            logger.info("Loading the networks on all nodes …")
            crew.prepare()
            yield partial(_work, crew, stores, space.manifest, cluster)


def _look(folder: Path, recipe: Recipe, embedding: EmbeddingOptions) -> ShardedStore:
    store = ShardedStore.look(folder)
    if store.key is not None:
        key = recipe.settled(embedding.precision, store.key.precision).key
        if differing := differences(store.key.as_dict(), key.as_dict()):
            raise StoreMismatchError(
                f"{folder} was made with other options: {'; '.join(differing)}. Give the same "
                "options, or another --workspace."
            )
    tell(f"{folder}: {file} is made again, since {what}." for file, what in store.damage.items())
    return store


def _wanted(store: ShardedStore, recipe: Recipe, embedding: EmbeddingOptions) -> WantedStore:
    weights = recipe.network.weights.source
    return WantedStore(
        folder=store.folder.absolute(),
        key=recipe.key,
        weights=str(Path(weights).absolute()) if Path(weights).exists() else weights,
        engine=embedding.engine,
        precision=embedding.precision,
        kept=store.key.precision if store.key else None,
    )


@dataclass
class _Tally:
    """What was done to one store, summed over its shards."""

    n_images: int = 0
    n_embedded: int = 0
    n_unchanged: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    stages: StageTimes = field(default_factory=StageTimes)

    def add(self, done: Extraction) -> None:
        self.n_images += done.n_images
        self.n_embedded += done.n_embedded
        self.n_unchanged += done.n_unchanged
        self.refused |= done.refused
        self.unread |= done.unread
        both = (getattr(self.stages, name) + getattr(done.stages, name) for name in STAGES)
        self.stages = StageTimes(*both)

    def extraction(self, store: Path, seconds: float) -> Extraction:
        return Extraction(
            store=store,
            n_images=self.n_images,
            n_embedded=self.n_embedded,
            n_unchanged=self.n_unchanged,
            refused=self.refused,
            unread=self.unread,
            images_per_s=self.n_embedded / seconds,
            stages=self.stages,
        )


def _work(
    crew: Workers,
    stores: Sequence[ShardedStore],
    manifest: Path,
    cluster: ClusterOptions,
) -> list[Extraction]:
    with ManifestRows(manifest) as images:
        n_images = len(images)
        tasks = plan_tasks(stores, images, cluster.shard_size)
    for store in stores:
        store.folder.mkdir(parents=True, exist_ok=True)
        store.remove_leftovers()
    tallies = [_Tally() for _ in stores]
    units = [task.n_images * len(task.files) for task in tasks]
    n_units = 0
    cluster.tell("planned", shards=len(tasks), images=n_images)
    started = time.monotonic()

    def finished(number: int, node: Node, receipts: Receipts) -> None:
        nonlocal n_units
        task = tasks[number]
        for place, receipt in receipts.items():
            if receipt.shard is not None:
                stores[place].add(task.files[place], receipt.shard)
            tallies[place].add(receipt.extraction)
        n_units += units[number]
        cluster.tell(
            "shard",
            shard=task.number,
            node=node.title,
            images=task.n_images,
            embedded=sum(receipt.extraction.n_embedded for receipt in receipts.values()),
            refused=sum(len(receipt.extraction.refused) for receipt in receipts.values()),
        )

    title = f"extracting {counted(tasks, 'shard')}"
    with Progress(sum(units), title, "image") as bar:

        def progress(n_in_progress: int, outcome: Outcome, n_workers: int) -> None:
            n_refused = sum(len(tally.refused) for tally in tallies)
            bar.note(f"{n_workers} workers, {n_refused} refused, {outcome.n_again} run again")
            bar.report(n_units + n_in_progress, sum(units))

        try:
            outcome = crew.work(tasks, finished, progress)
        finally:
            for store in stores:
                store.save()
    for store in stores:
        store.remove_leftovers()
    seconds = time.monotonic() - started
    done = [
        tally.extraction(store.folder, seconds)
        for tally, store in zip(tallies, stores, strict=True)
    ]
    if cluster.executor == "ray":
        _tell_summary(done, outcome, seconds, cluster)
    _require_all(outcome, tasks)
    return done


def _tell_summary(
    done: Sequence[Extraction], outcome: Outcome, seconds: float, cluster: ClusterOptions
) -> None:
    n_images = sum(one.n_embedded for one in done)
    # Workers are hired for the whole time, whatever they do.
    hours = outcome.n_workers * seconds / 3600
    values: dict[str, object] = {
        "images": n_images,
        "seconds": seconds,
        "images_per_s": n_images / seconds,
        "workers": outcome.n_workers,
        "run_again": outcome.n_again,
        "failed": len(outcome.failed),
        "worker_hours": hours,
    }
    cost = ""
    if cluster.price_per_hour is not None and n_images:
        per_million = hours * cluster.price_per_hour / n_images * 1e6
        values["cost_per_million_images"] = per_million
        cost = f"; a million images cost {per_million:.3g} at {cluster.price_per_hour:g} an hour"
    cluster.tell("summary", **values)
    logger.info(
        "%d images in %.0f s on %d workers (%.1f images/s, %.3g worker hours); %d shards run "
        "again, %d failed%s.",
        n_images,
        seconds,
        outcome.n_workers,
        n_images / seconds,
        hours,
        outcome.n_again,
        len(outcome.failed),
        cost,
    )


def _require_all(outcome: Outcome, tasks: Sequence[ShardTask]) -> None:
    if not outcome.failed:
        return
    first, reason = next(iter(outcome.failed.items()))
    raise ExtractionError(
        f"{len(outcome.failed)} of {counted(tasks, 'shard')} failed, such as "
        f"{tasks[first].number}: {reason.rstrip('.')}. Finished shards are kept; run the same "
        "command again for the rest."
    )
