"""Measure time and memory of fit and report on drawn stores of many rows.

    python benchmarks/scale_fit.py [--rows 100000,1000000] [--folder DIR]

Each store has float16 features, and rows that lie class by class, as those of class folders do. The
images do not exist. `fit` and `report` run as commands of their own; the peak is the largest
resident memory of the command, as the system counts it. The bare read is one pass over all rows of
the store, in order, with their checks. Each command runs once.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from measuring import DRAWN_BY, describe_machine, drawn_key, seconds, table_head, table_row

from featurepipe.features.store import FeatureStore
from featurepipe.manifest.labelling import Labelling
from featurepipe.manifest.manifest import new_manifest
from featurepipe.models.heads.row_passes import choose_passes
from featurepipe.runs.run_info import read_run_info
from featurepipe.workspace import Workspace

STORE = "drawn"
_BATCH = 1000
_HEADINGS = ["rows", "command", "peak, MB", "elapsed, s", "busy, s", "busy, µs a row"]
# Variances, scale, and the rows that each fold holds out.
_OTHER_PASSES = 3


@dataclass(frozen=True)
class Measured:
    """What one command took."""

    peak_bytes: int
    seconds: float
    busy_s: float


def draw_workspace(folder: Path, n_rows: int, n_features: int, n_classes: int) -> Workspace:
    """Write a manifest and a store with the features of images that do not exist."""
    home = Workspace(folder)
    codes = np.arange(n_rows) * n_classes // n_rows
    ids = [f"class_{code:03}/{row:08}.jpg" for row, code in enumerate(codes)]
    new_manifest(ids, str(folder), str(folder), None, Labelling(), {}, []).save(home.manifest)
    _draw_store(home.store(STORE), ids, codes, n_features)
    return home


def _draw_store(path: Path, ids: Sequence[str], codes: np.ndarray, n_features: int) -> None:
    probe = np.zeros((1, n_features), np.float32)
    FeatureStore.create(path, ids=ids, key=drawn_key("float16"), made_by=DRAWN_BY, probe=probe)
    rng = np.random.default_rng(0)
    common = rng.gamma(1, 0.4, n_features)
    means = (common + rng.normal(0, 0.05, (codes.max() + 1, n_features))).astype(np.float32)
    mixing = rng.normal(0, 0.1, (32, n_features)).astype(np.float32)
    with FeatureStore.open(path, writable=True) as store:
        for start in range(0, len(ids), _BATCH):
            rows = np.arange(start, min(start + _BATCH, len(ids)))
            X = means[codes[rows]]
            X += rng.standard_normal((len(rows), len(mixing)), np.float32) @ mixing
            X += 0.5 * rng.standard_normal(X.shape, np.float32)
            np.maximum(X, 0, out=X)
            digests = np.zeros((len(rows), 32), np.uint8)
            digests[:, :8] = rows.astype(np.uint64)[:, None].view(np.uint8)
            stamps = np.zeros(len(rows), np.int64)
            store.write_done(rows, X.astype(store.dtype), digests, stamps, stamps)


def measure_command(*arguments: str) -> Measured:
    """Run a command of featurepipe; its memory and time."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "featurepipe", *arguments], stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise click.ClickException(f"featurepipe {' '.join(arguments)} failed")
    elapsed = time.perf_counter() - started
    return Measured(1024 * used.ru_maxrss, elapsed, used.ru_utime + used.ru_stime)


def read_all(path: Path) -> None:
    """Read all rows of a store, some at a time, and check them."""
    with FeatureStore.open(path) as store:
        for start in range(0, len(store), _BATCH):
            store.features(np.arange(start, min(start + _BATCH, len(store))))


def measure(folder: Path, n_rows: int, n_features: int, n_classes: int, memory: str) -> None:
    """Draw a workspace, and print a row for each command, and what fitting it means."""
    home = draw_workspace(folder, n_rows, n_features, n_classes)
    where = ("--workspace", str(folder))
    commands = {
        "fit": ("fit", "--head", "bagged-sgd", "--memory", memory, *where),
        "report --no-html": ("report", "--no-html", *where),
        "report": ("report", *where),
    }
    for name, arguments in commands.items():
        took = measure_command(*arguments)
        click.echo(
            table_row(
                [
                    f"{n_rows:,}",
                    name,
                    f"{took.peak_bytes / 1e6:,.0f}",
                    f"{took.seconds:.0f}",
                    f"{took.busy_s:.0f}",
                    f"{1e6 * took.busy_s / n_rows:.0f}",
                ]
            )
        )
    info = read_run_info(next(iter(home.runs())))
    n_passes = choose_passes(info.n_train["all"]) + _OTHER_PASSES
    read_s = seconds(lambda: read_all(home.store(STORE)))
    click.echo(
        f"\n{n_rows:,} rows: selection accuracy {info.selection_accuracy['all']:.4f}; fitting took "
        f"{info.costs.fit_s:.0f} s in {n_passes} passes over {info.n_train['all']:,} rows, "
        f"{info.costs.fit_s / (n_passes * read_s * info.n_train['all'] / n_rows):.1f} times their "
        f"bare read ({read_s:.1f} s for all rows)\n"
    )


@click.command(help=__doc__.splitlines()[0])
@click.option("--rows", default="100000,1000000", show_default=True, help="Rows of each store.")
@click.option("--features", "n_features", default=2048, show_default=True, help="Features a row.")
@click.option("--classes", "n_classes", default=100, show_default=True, help="Number of classes.")
@click.option("--memory", default="2GB", show_default=True, help="As of featurepipe fit.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to draw the stores.")
def main(rows: str, n_features: int, n_classes: int, memory: str, folder: Path | None) -> None:
    """Measure, and print tables."""
    click.echo(describe_machine())
    for n_rows in map(int, rows.split(",")):
        click.echo(table_head(_HEADINGS))
        with tempfile.TemporaryDirectory(dir=folder) as place:
            measure(Path(place), n_rows, n_features, n_classes, memory)


if __name__ == "__main__":
    main()
