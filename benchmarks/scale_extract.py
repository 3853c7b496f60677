"""Measure images per second of a cluster of two nodes with one core each, against one process.

Both run on the same two cores of this machine: the worker of each node is bound to a core of
its own. Commands alternate. `extraction` is what featurepipe counts itself, without loading the
backbone; `command` is the whole command.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click
from measuring import describe_machine, table_head, table_row
from ray.cluster_utils import Cluster


@contextmanager
def two_nodes() -> Iterator[str]:
    """A cluster of two nodes of one core each; yields its address."""
    cluster = Cluster()
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=100_000_000, include_dashboard=False)
        cluster.wait_for_nodes()
        yield cluster.address
    finally:
        cluster.shutdown()


def extraction(*arguments: str) -> dict[str, float]:
    """Run `featurepipe extract` in a new workspace; images per second of extraction and command."""
    with tempfile.TemporaryDirectory() as space:
        started = time.perf_counter()
        done = subprocess.run(
            [
                *(sys.executable, "-m", "featurepipe", "extract", *arguments),
                *("--workspace", space, "--json", "--quiet"),
            ],
            check=True,
            stdout=subprocess.PIPE,
        )
        took_s = time.perf_counter() - started
    (store,) = json.loads(done.stdout)
    return {
        "extraction": store["images_per_s"],
        "command": store["n_embedded"] / took_s,
    }


@click.command(help=__doc__.splitlines()[0])
@click.argument("source", type=click.Path(exists=True))
@click.option("--backbone", default="mobilenet_v2", show_default=True)
@click.option("--weights", default="random", show_default=True)
@click.option("--runs", default=3, show_default=True, help="Runs of each; medians are shown.")
@click.option("--shard-size", default=500, show_default=True, help="Images of a shard.")
def extract(source: str, backbone: str, weights: str, runs: int, shard_size: int) -> None:
    """Measure, and print a table."""
    click.echo(describe_machine())
    given = [source, "--backbone", backbone, "--weights", weights, "--precision", "float32"]
    # The first run converts the backbone.
    extraction(*given)
    took: dict[str, list[dict[str, float]]] = {"local": [], "ray": []}
    for _ in range(runs):
        took["local"].append(extraction(*given))
        with two_nodes() as address:
            took["ray"].append(
                extraction(
                    *given,
                    *("--executor", "ray", "--ray-address", address),
                    *("--shard-size", str(shard_size)),
                )
            )
    click.echo(table_head(["images/s", "local", "two nodes", "ratio"]))
    for what in ("extraction", "command"):
        local, ray = (statistics.median(run[what] for run in took[name]) for name in took)
        click.echo(table_row([what, f"{local:.1f}", f"{ray:.1f}", f"{ray / local:.2f}"]))


if __name__ == "__main__":
    extract()
