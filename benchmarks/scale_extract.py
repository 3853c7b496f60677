"""Measure images per second of a cluster of two nodes with one core each, against one process.

Both run on the same two cores of this machine: each node is bound to a core of its own. Commands
alternate. `extraction` is what featurepipe counts itself, without loading the backbone;
`command` is the whole command.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from measuring import describe_machine, table_head, table_row

_PORT = 6399


@contextmanager
def two_nodes(cores: tuple[int, int]) -> Iterator[str]:
    """A cluster of two nodes, each bound to one core; yields its address."""
    ray = str(Path(sys.executable).with_name("ray"))
    address = f"127.0.0.1:{_PORT}"
    options = ["--num-cpus", "1", "--object-store-memory", "100000000", "--disable-usage-stats"]
    head = ["--head", "--port", str(_PORT), "--include-dashboard", "false"]
    try:
        for core, place in zip(cores, (head, ["--address", address]), strict=True):
            subprocess.run(
                ["taskset", "-c", str(core), ray, "start", *place, *options],
                check=True,
                capture_output=True,
            )
        yield address
    finally:
        subprocess.run([ray, "stop", "--force"], check=True, capture_output=True)


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
    first, second, *_ = sorted(os.sched_getaffinity(0))
    given = [source, "--backbone", backbone, "--weights", weights, "--precision", "float32"]
    # The first run converts the backbone.
    extraction(*given)
    took: dict[str, list[dict[str, float]]] = {"local": [], "ray": []}
    for _ in range(runs):
        took["local"].append(extraction(*given))
        with two_nodes((first, second)) as address:
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
