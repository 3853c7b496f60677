"""Extraction into stores of shards, by the workers of a cluster or by this process alone."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from uuid import uuid4

from featurepipe.cluster.alone import Alone
from featurepipe.cluster.connecting import Node, connected, require_executor
from featurepipe.cluster.crew import Crew, Outcome
from featurepipe.errors import ExtractionError, StoreMismatchError, UsageError
from featurepipe.features.engines import probes
from featurepipe.features.extraction.recipe import Recipe
from featurepipe.features.extraction.shard_worker import (
    ShardJob,
    ShardReceipt,
    ShardTask,
    ShardWorker,
    WantedStore,
    WorkerFacts,
)
from featurepipe.features.extraction.sharded_store import ShardedStore, plan_tasks
from featurepipe.features.extraction.store_update import Extraction
from featurepipe.features.store.stages import STAGES, StageTimes
from featurepipe.manifest import Manifest
from featurepipe.progress import Progress, tell
from featurepipe.provenance import differences
from featurepipe.sources import is_tar_pattern
from featurepipe.words import counted, examples
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)

N_PER_SHARD = 10_000

Event = dict[str, object]


@dataclass(frozen=True)
class ClusterOptions:
    """Where shards are made; see `featurepipe.extract`.

    Attributes
    ----------
    executor : {"local", "ray"}
    ray_address : str or None
    gpus_per_worker : float
    shard_size : int
        Images of a shard, at most.
    price_per_hour : float or None
        Of one worker.
    on_event : callable or None
        Called with what happens: a dict with ``event`` and its values.
    """

    executor: str = "local"
    ray_address: str | None = None
    gpus_per_worker: float = 1.0
    shard_size: int = N_PER_SHARD
    price_per_hour: float | None = None
    on_event: Callable[[Event], None] | None = None

    def require_possible(self) -> None:
        """Stop at options that cannot be used.

        Raises
        ------
        UsageError
        """
        require_executor(self.executor, self.ray_address)
        if self.shard_size < 1 or self.gpus_per_worker <= 0:
            raise UsageError("--shard-size and --gpus-per-worker must be above 0.")
        if self.executor == "local" and self.price_per_hour is not None:
            raise UsageError("--price-per-hour requires --executor ray. Add it, or omit the price.")

    def tell(self, event: str, **values: object) -> None:
        """Report an event, if anyone listens."""
        if self.on_event is not None:
            self.on_event({"event": event, **values})


@dataclass(frozen=True)
class EmbeddingOptions:
    """How images are embedded; see `featurepipe.extract`.

    Attributes
    ----------
    engine, precision : str
    batch_size : int or None
    retry_refused, rehash : bool
    """

    engine: str
    precision: str
    batch_size: int | None
    retry_refused: bool
    rehash: bool


@contextmanager
def sharded_extraction(
    space: Workspace,
    manifest: Manifest,
    recipes: Mapping[Path, Recipe],
    embedding: EmbeddingOptions,
    cluster: ClusterOptions,
) -> Iterator[Callable[[], list[Extraction]]]:
    """Get workers ready to bring stores of shards up to date; nothing is computed yet.

    Parameters
    ----------
    space : Workspace
        Locked.
    manifest : Manifest
        Saved before the work begins.
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
    with _token(space) as token:
        job = ShardJob(
            root=manifest.root,
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
        facts = _SameFacts(stores, list(recipes.values()))
        make_worker = partial(ShardWorker, job)
        if cluster.executor == "local":
            crew: (
                Alone[ShardTask, dict[int, ShardReceipt]] | Crew[ShardTask, dict[int, ShardReceipt]]
            ) = Alone(make_worker, facts.accept)
            with crew:
                crew.prepare()
                yield partial(_work, crew, stores, manifest, cluster)
            return
        with (
            connected(cluster.ray_address),
            Crew(make_worker, facts.accept, cluster.gpus_per_worker) as crew,
        ):
            logger.info("Loading the networks on all nodes …")
            crew.prepare()
            yield partial(_work, crew, stores, manifest, cluster)


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


@contextmanager
def _token(space: Workspace) -> Iterator[Path]:
    """A file by which workers see whether they see the workspace."""
    path = space.root.absolute() / f".token-{uuid4().hex}"
    path.touch()
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


class _SameFacts:
    """Accepts workers that compute what the stores hold, or else what the first worker computes."""

    def __init__(self, stores: Sequence[ShardedStore], recipes: Sequence[Recipe]) -> None:
        self._stores, self._recipes = stores, recipes
        self._first: Node | None = None
        self._precisions: tuple[str, ...] = ()

    def accept(self, node: Node, facts: WorkerFacts) -> str:
        """Why a worker cannot be used; empty if it can."""
        if self._first is None:
            self._first, self._precisions = node, facts.precisions
        if facts.precisions != self._precisions:
            return (
                f"it would compute in {examples(facts.precisions)}, and node {self._first.title} "
                f"in {examples(self._precisions)}. Say which: --precision float32"
            )
        for store, recipe, precision, probe in zip(
            self._stores, self._recipes, facts.precisions, facts.probes, strict=True
        ):
            if store.probe is None:
                store.probe = probe
                store.key = replace(recipe, precision=precision).key
            distance, allowed = (
                probes.distance(probe, store.probe, precision),
                probes.tolerance(precision),
            )
            if not distance <= allowed:
                return (
                    f"it computes other features than {store.folder.name} holds (distance "
                    f"{distance:.1e} on generated pictures, at most {allowed:.0e} is allowed). "
                    "Install the same versions of its libraries there"
                )
        return ""


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
    crew: Alone[ShardTask, dict[int, ShardReceipt]] | Crew[ShardTask, dict[int, ShardReceipt]],
    stores: Sequence[ShardedStore],
    manifest: Manifest,
    cluster: ClusterOptions,
) -> list[Extraction]:
    by_tar = is_tar_pattern(manifest.root)
    tasks = plan_tasks(stores, manifest.ids, cluster.shard_size, by_tar=by_tar)
    for store in stores:
        store.folder.mkdir(parents=True, exist_ok=True)
        store.remove_leftovers()
    tallies = [_Tally() for _ in stores]
    units = [task.n_images * len(task.existing) for task in tasks]
    n_units = 0
    cluster.tell("planned", shards=len(tasks), images=len(manifest))
    started = time.monotonic()

    def finished(number: int, node: Node, receipts: dict[int, ShardReceipt]) -> str:
        nonlocal n_units
        task = tasks[number]
        for place, receipt in receipts.items():
            if receipt.shard is not None:
                stores[place].add(task.existing[place], receipt.shard)
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
        return ""

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
