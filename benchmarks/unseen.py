"""How often every attribute is right in combinations that were never trained.

    python benchmarks/unseen.py WORKSPACE --ordinary mobilenet_v2 --head bagged-sgd

In the workspace, whose stores should hold several views, every combination whose classes occur
in others too is held out in turn, by `featurepipe fit --hold-out-each`: with ordinary features
(those of one backbone that is shown the images as they are), with one head an attribute, over
all labels and over combinations, and with `--features auto`. Nothing of a held-out combination
is seen by any choice. Then the same without holding out.
"""

from pathlib import Path

import click
import numpy as np
import pandas as pd

import featurepipe
from featurepipe.reports.figures import accuracies
from featurepipe.runs.run_folder import load_run
from featurepipe.workspace import Workspace

ORDINARY_TASKS = ("per-attribute", "multi-label", "joint")


def accuracies_of(workspace: Path, fitted: pd.DataFrame, part: str) -> pd.DataFrame:
    """Accuracy of each attribute and of all; one row a run."""
    folders = [Workspace(workspace).run(name) for name in fitted["run"].unique()]
    return pd.DataFrame([accuracies(load_run(path).predictions.select(part)) for path in folders])


def row(title: str, held_out: pd.DataFrame, seen: pd.DataFrame) -> str:
    """A line of the table: means over the combinations, and accuracy on ordinary test rows."""
    unseen = [f"{held_out[name].mean():.3f}" for name in held_out]
    spread = f"{held_out['all'].min():.2f} to {held_out['all'].max():.2f}"
    return " | ".join(
        ["", title, *unseen, spread, *(f"{seen[name].mean():.3f}" for name in seen), ""]
    ).strip()


@click.command(help=__doc__.splitlines()[0])
@click.argument("workspace", type=click.Path(exists=True, path_type=Path))
@click.option("--ordinary", default="mobilenet_v2", show_default=True)
@click.option("--head", default="bagged-sgd", show_default=True)
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
    click.echo(f"| {' | '.join([*header, *(f'seen {name}' for name in names)])} |")
    click.echo("|" + " --- |" * (len(header) + len(names)))
    click.echo("\n".join(lines))


if __name__ == "__main__":
    main()
