"""Measure networks and heads on unseen combinations, each held out in turn.

    python benchmarks/networks.py WORKSPACE --epochs 20 [--picture black_dress.jpg]

The workspace should hold features in several views for `--features auto` to choose from.
FashionNet and SmallerVGGNet are trained with each combination held out in turn, and bagged SGD
is fitted with `--features auto` on the same splits. You can stop the command at any time:
complete runs are kept, and it continues where it was. A picture is predicted by the runs that
hold nothing out.
"""

from pathlib import Path

import click
import pandas as pd
from measuring import table_head, table_row

import featurepipe
from featurepipe.reports.figures import accuracies
from featurepipe.runs.run_folder import Run, load_run
from featurepipe.workspace import Workspace


def runs_of(workspace: Path, method: str, epochs: int, **split: object) -> list[Run]:
    """The runs of one method; complete networks are not trained again."""
    if method == "bagged-sgd, auto":
        table = featurepipe.fit(features="auto", workspace=workspace, **split)
    else:
        table = featurepipe.train(method, epochs=epochs, workspace=workspace, **split)
    names = list(dict.fromkeys(table["run"]))
    return [load_run(Workspace(workspace).run(name)) for name in names]


def row(method: str, run: Run, part: str) -> dict[str, object]:
    """Accuracies of a run on its test or unseen images."""
    answers = run.predictions.select(part)
    held_out = "+".join(run.info.split.settings.hold_out) or "none"
    return {
        "method": method,
        "held out": held_out,
        "images": len(answers),
        **accuracies(answers),
        "fit, s": run.info.costs.fit_s,
    }


def answer(workspace: Path, method: str, run: Run, picture: Path) -> str:
    """What a run answers for a picture, in words."""
    table = featurepipe.predict([picture], run=run.name, workspace=workspace, coverage=1)
    said = [f"{r['attribute']} {r['class']} {r['probability']:.2f}" for _, r in table.iterrows()]
    return f"{picture.name} by {method} trained on all combinations: {', '.join(said)}"


@click.command(help=__doc__.splitlines()[0])
@click.argument("workspace", type=click.Path(exists=True, path_type=Path))
@click.option("--epochs", default=20, show_default=True, help="Epochs of each network.")
@click.option(
    "--picture",
    "pictures",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Picture to predict with the runs that hold nothing out; repeatable.",
)
@click.option(
    "--method",
    "methods",
    multiple=True,
    default=("bagged-sgd, auto", "fashionnet", "smallervggnet"),
    show_default=True,
    help="Network, or `bagged-sgd, auto`; repeatable.",
)
def main(
    workspace: Path, epochs: int, pictures: tuple[Path, ...], methods: tuple[str, ...]
) -> None:
    """Measure, and print a table."""
    rows, answers = [], []
    for method in methods:
        seen = runs_of(workspace, method, epochs, repeats=1)
        held_out = runs_of(workspace, method, epochs, hold_out_each=True)
        rows += [row(method, run, "unseen") for run in held_out]
        rows += [row(method, run, "test") for run in seen]
        answers += [answer(workspace, method, run, file) for file in pictures for run in seen]
        click.echo(pd.DataFrame(rows).round(3).to_string(index=False), err=True)
    table = pd.DataFrame(rows).round(3)
    click.echo("\n".join([table_head(table.columns), *map(table_row, table.to_numpy().tolist())]))
    click.echo("\n".join(answers))


if __name__ == "__main__":
    main()
