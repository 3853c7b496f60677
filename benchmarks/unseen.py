"""Measure how often all attributes are right in combinations that were never trained.

    python benchmarks/unseen.py WORKSPACE --ordinary mobilenet_v2
    python benchmarks/unseen.py WORKSPACE --draws 5 --held-out 16 --group photo

The stores of the workspace should hold several views. Each combination whose classes also occur in
others is held out in turn, or with `--draws`, random ones together: with the ordinary features of
one backbone (one head per attribute, one over all labels, one over the combinations), and with
`--features auto`, which also chooses the head. No choice sees an image of a held-out combination.
Then the same is fitted without holding anything out.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
from measuring import describe_machine, table_head, table_row

import featurepipe
from featurepipe.manifest import Manifest
from featurepipe.reports.figures import accuracies
from featurepipe.runs.run_folder import load_run
from featurepipe.workspace import Workspace

ORDINARY_TASKS = ("per-attribute", "multi-label", "joint")


def accuracies_of(workspace: Path, fitted: pd.DataFrame, part: str) -> pd.DataFrame:
    """Accuracy of each attribute and of all together; one row per run."""
    folders = [Workspace(workspace).run(name) for name in fitted["run"].unique()]
    return pd.DataFrame([accuracies(load_run(path).predictions.select(part)) for path in folders])


def row(title: str, held_out: pd.DataFrame, beside: pd.DataFrame, seen: pd.DataFrame) -> str:
    """One row of the table: means over the splits, and accuracy on ordinary test rows."""
    unseen = [f"{held_out[name].mean():.3f}" for name in held_out]
    spread = f"{held_out['all'].min():.2f} to {held_out['all'].max():.2f}"
    cells = [title, *unseen, spread, f"{beside['all'].mean():.3f}"]
    return table_row([*cells, *(f"{seen[name].mean():.3f}" for name in seen)])


def fits(ordinary: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is compared: a title, and options of `featurepipe.fit`."""
    for task in ORDINARY_TASKS:
        yield f"{ordinary}, bagged SGD, {task}", {"features": ordinary, "task": task}
    yield f"{ordinary}, logistic", {"features": ordinary, "head": "logistic"}
    yield "auto, bagged SGD", {"features": "auto", "head": "bagged-sgd"}
    yield "auto", {"features": "auto"}


def fit_held_out(
    workspace: Path, options: dict[str, Any], draws: int, held_out: int, group: str | None
) -> pd.DataFrame:
    """Fit with each combination held out in turn, or with random ones, by seeds from 0."""
    if not draws:
        return featurepipe.fit(**options, workspace=workspace, hold_out_each=True, group=group)
    manifest = Manifest.load(Workspace(workspace).manifest)
    names = sorted(set(manifest.combinations()))
    drawn = [np.random.default_rng(seed).choice(names, held_out, False) for seed in range(draws)]
    return pd.concat(
        featurepipe.fit(**options, workspace=workspace, hold_out=sorted(each), group=group)
        for each in drawn
    )


@click.command(help=__doc__.splitlines()[0])
@click.argument("workspace", type=click.Path(exists=True, path_type=Path))
@click.option("--ordinary", default="mobilenet_v2", show_default=True, help="Ordinary features.")
@click.option("--draws", default=0, help="Number of random draws; 0: each combination in turn.")
@click.option("--held-out", default=16, show_default=True, help="Combinations a draw.")
@click.option("--group", help="Column of groups.")
def main(workspace: Path, ordinary: str, draws: int, held_out: int, group: str | None) -> None:
    """Measure, and print a table."""
    click.echo(describe_machine())
    lines = []
    for title, options in fits(ordinary):
        unseen = fit_held_out(workspace, options, draws, held_out, group)
        seen = featurepipe.fit(**options, workspace=workspace, repeats=1, group=group)
        accuracies = accuracies_of(workspace, unseen, "unseen")
        seen_with = accuracies_of(workspace, unseen, "test")
        lines.append(row(title, accuracies, seen_with, accuracies_of(workspace, seen, "test")))
        click.echo(lines[-1], err=True)
    names = list(accuracies)
    click.echo(f"{unseen['split'].nunique()} splits with combinations held out")
    header = ["fit", *(f"unseen {name}" for name in names), "lowest to highest all"]
    header += ["seen all, same splits", *(f"seen {name}, nothing held out" for name in names)]
    click.echo(table_head(header))
    click.echo("\n".join(lines))


if __name__ == "__main__":
    main()
