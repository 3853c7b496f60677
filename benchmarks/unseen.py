"""Measure how often all attributes are right in combinations that were never trained.

    python benchmarks/unseen.py WORKSPACE --ordinary mobilenet_v2 --head bagged-sgd

The stores of the workspace should hold several views. `featurepipe fit --hold-out-each` holds out
each combination whose classes also occur in others: with the ordinary features of one backbone
(one head per attribute, one over all labels, one over the combinations), and with
`--features auto`. No choice sees an image of the held-out combination. Then the same is fitted
without holding anything out.
"""

from pathlib import Path

import click
import numpy as np
import pandas as pd
from measuring import table_head, table_row

import featurepipe
from featurepipe.reports.figures import accuracies
from featurepipe.runs.run_folder import load_run
from featurepipe.workspace import Workspace

ORDINARY_TASKS = ("per-attribute", "multi-label", "joint")


def accuracies_of(workspace: Path, fitted: pd.DataFrame, part: str) -> pd.DataFrame:
    """Accuracy of each attribute and of all together; one row per run."""
    folders = [Workspace(workspace).run(name) for name in fitted["run"].unique()]
    return pd.DataFrame([accuracies(load_run(path).predictions.select(part)) for path in folders])


def row(title: str, held_out: pd.DataFrame, seen: pd.DataFrame) -> str:
    """One row of the table: means over the combinations, and accuracy on ordinary test rows."""
    unseen = [f"{held_out[name].mean():.3f}" for name in held_out]
    spread = f"{held_out['all'].min():.2f} to {held_out['all'].max():.2f}"
    return table_row([title, *unseen, spread, *(f"{seen[name].mean():.3f}" for name in seen)])


@click.command(help=__doc__.splitlines()[0])
@click.argument("workspace", type=click.Path(exists=True, path_type=Path))
@click.option("--ordinary", default="mobilenet_v2", show_default=True, help="Ordinary features.")
@click.option("--head", default="bagged-sgd", show_default=True, help="Head to fit.")
def main(workspace: Path, ordinary: str, head: str) -> None:
    """Measure, and print a table."""
    choices = [(f"{ordinary}, {task}", ordinary, task) for task in ORDINARY_TASKS]
    choices.append(("auto", "auto", "per-attribute"))
    lines = []
    for title, features, task in choices:
        options = {"head": head, "features": features, "task": task, "workspace": workspace}
        held_out = featurepipe.fit(**options, hold_out_each=True)
        seen = featurepipe.fit(**options, repeats=1)
        lines.append(
            row(
                title,
                accuracies_of(workspace, held_out, "unseen"),
                accuracies_of(workspace, seen, "test"),
            )
        )
        click.echo(lines[-1], err=True)
    attributes = list(np.unique(held_out["attribute"]))
    click.echo(f"{held_out['split'].nunique()} combinations, each held out in turn; {attributes}")
    names = list(accuracies_of(workspace, seen, "test"))
    header = ["features", *(f"unseen {name}" for name in names), "of one combination"]
    click.echo(table_head([*header, *(f"seen {name}" for name in names)]))
    click.echo("\n".join(lines))


if __name__ == "__main__":
    main()
