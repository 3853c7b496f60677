"""Simulate what lost nodes and slow ones cost an extraction, by the size of a shard.

    python benchmarks/scale_failures.py [--images 100000000] [--workers 200]

The queue of tasks is featurepipe's own; only time, work and failures are simulated. Nodes live an
exponentially distributed time and are replaced; one in so many is slower than the others. Loss is
worker time that a cluster without failures, overhead and waiting would not have needed.
"""

import heapq
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import click
import numpy as np
from measuring import table_head, table_row

from featurepipe.cluster.task_queue import Attempt, TaskQueue

_HEADINGS = [
    "images a shard",
    "shards",
    "hours",
    "loss",
    "of it waiting for the end",
    "begun again",
    "failed",
]


@dataclass(frozen=True)
class Cluster:
    """What is simulated.

    Attributes
    ----------
    n_workers : int
    images_per_s : float
        Of a worker.
    overhead_s : float
        Seconds that a shard costs beside its images.
    hours_between_losses : float
        Mean lifetime of a node.
    replaced_after_s : float
        Until another node is there and has loaded its network.
    slow_share, slow_factor : float
        Share of the nodes that take so many times as long.
    """

    n_workers: int
    images_per_s: float
    overhead_s: float
    hours_between_losses: float
    replaced_after_s: float
    slow_share: float
    slow_factor: float


@dataclass(frozen=True)
class Simulated:
    """What an extraction took.

    Attributes
    ----------
    seconds : float
    idle_s : float
        Worker seconds after the last shard had been given out, in which a worker had nothing to do.
    n_again, n_failed : int
    """

    seconds: float
    idle_s: float
    n_again: int
    n_failed: int


class Simulation:
    """One extraction in simulated time.

    Parameters
    ----------
    cluster : Cluster
    sizes : list of int
        Images of each shard.
    rng : numpy.random.Generator
    """

    def __init__(self, cluster: Cluster, sizes: list[int], rng: np.random.Generator) -> None:
        self._cluster, self._sizes, self._rng = cluster, sizes, rng
        self._queue = TaskQueue([f"Shard {number}" for number in range(len(sizes))], sizes)
        # Seconds, a number that breaks ties, node, and the attempt that ends or None.
        self._events: list[tuple[float, int, int, Attempt | None]] = []
        self._numbers = iter(range(2**62))
        self._lost_at: dict[int, float] = {}
        self._slowness: dict[int, float] = {}
        self._idle: dict[int, float] = {}

    def run(self) -> Simulated:
        """Let it run to its end."""
        for _ in range(self._cluster.n_workers):
            self._start_node(0.0)
        now, idle_s = 0.0, 0.0
        while self._queue.open:
            now, _, node, attempt = heapq.heappop(self._events)
            if attempt is not None and now >= self._lost_at[node]:
                self._queue.fail(attempt, "its worker died")
                self._start_node(now + self._cluster.replaced_after_s)
            elif attempt is not None:
                self._queue.finish(attempt, now)
                self._idle[node] = now
            elif node in self._lost_at:
                self._idle.setdefault(node, now)
            for waiting, since in list(self._idle.items()):
                if not self._give(waiting, now):
                    break
                idle_s += now - since
        idle_s += sum(now - since for since in self._idle.values())
        outcome = self._queue.outcome
        return Simulated(now, idle_s, outcome.n_again, len(outcome.failed))

    def _start_node(self, now: float) -> None:
        node = next(self._numbers)
        self._lost_at[node] = now + self._rng.exponential(self._cluster.hours_between_losses * 3600)
        is_slow = self._rng.random() < self._cluster.slow_share
        self._slowness[node] = self._cluster.slow_factor if is_slow else 1.0
        self._at(now, node, None)

    def _give(self, node: int, now: float) -> bool:
        """Whether a node was given a task."""
        attempt = self._queue.begin(str(node), now)
        if attempt is None:
            # Ask again later: what runs now may be slow then.
            self._at(now + 5, node, None)
            return False
        del self._idle[node]
        images_s = self._sizes[attempt.task] / self._cluster.images_per_s
        takes_s = images_s * self._slowness[node] * self._rng.lognormal(0, 0.05)
        ends = now + takes_s + self._cluster.overhead_s
        self._at(min(ends, max(self._lost_at[node], now)), node, attempt)
        return True

    def _at(self, when: float, node: int, attempt: Attempt | None) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), node, attempt))


def simulate(cluster: Cluster, n_images: int, n_per_shard: int, seed: int) -> Simulated:
    """One extraction of so many images."""
    sizes = [n_per_shard] * (n_images // n_per_shard)
    return Simulation(cluster, sizes, np.random.default_rng(seed)).run()


@click.command(help=__doc__.splitlines()[0])
@click.option("--images", "n_images", default=100_000_000, show_default=True)
@click.option("--workers", default=200, show_default=True)
@click.option("--images-per-s", default=100.0, show_default=True, help="Of a worker.")
@click.option("--overhead", default=0.2, show_default=True, help="Seconds a shard costs.")
@click.option("--hours-between-losses", default=20.0, show_default=True, help="Of a node.")
@click.option("--replaced-after", default=180.0, show_default=True, help="Seconds.")
@click.option("--slow-share", default=0.02, show_default=True, help="Share of the nodes.")
@click.option("--slow-factor", default=3.0, show_default=True, help="How much slower they are.")
@click.option("--shard-sizes", default="1000,10000,100000,500000", show_default=True)
@click.option("--repeats", default=5, show_default=True, help="Medians are shown.")
def failures(
    n_images: int,
    workers: int,
    images_per_s: float,
    overhead: float,
    hours_between_losses: float,
    replaced_after: float,
    slow_share: float,
    slow_factor: float,
    shard_sizes: str,
    repeats: int,
) -> None:
    """Simulate, and print a table."""
    logging.getLogger("featurepipe").setLevel(logging.ERROR)
    cluster = Cluster(
        workers,
        images_per_s,
        overhead,
        hours_between_losses,
        replaced_after,
        slow_share,
        slow_factor,
    )
    click.echo(f"{n_images:,} images at {images_per_s:g} images/s on {workers} workers\n")
    click.echo(table_head(_HEADINGS))
    for size in map(int, shard_sizes.split(",")):
        for cells in _rows(cluster, n_images, size, repeats):
            click.echo(table_row(cells))


def _rows(cluster: Cluster, n_images: int, size: int, repeats: int) -> Iterator[list[str]]:
    runs = [simulate(cluster, n_images, size, seed) for seed in range(repeats)]
    hours, idle_h, again, failed = (
        float(np.median(values))
        for values in zip(
            *((run.seconds / 3600, run.idle_s / 3600, run.n_again, run.n_failed) for run in runs),
            strict=True,
        )
    )
    needed = n_images / cluster.images_per_s / 3600
    hired = hours * cluster.n_workers
    yield [
        f"{size:,}",
        f"{n_images // size:,}",
        f"{hours:.2f}",
        f"{(hired - needed) / needed:.1%}",
        f"{idle_h / needed:.1%}",
        f"{again:,.0f}",
        f"{failed:.0f}",
    ]


if __name__ == "__main__":
    failures()
