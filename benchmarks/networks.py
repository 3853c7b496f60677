"""Networks and heads on combinations of classes that were never trained, each held out in turn.

    python benchmarks/networks.py WORKSPACE --epochs 20 [--picture black_dress.jpg]

The workspace should hold features in several views, among which `--features auto` chooses.
FashionNet and SmallerVGGNet are trained for so many epochs, each combination held out in turn;
bagged SGD is fitted with `--features auto` on the same splits. A run that is complete is left as
it is: the command may be ended at any time and goes on where it was. A picture is answered by
the runs of the split that holds nothing out.
"""

from pathlib import Path

import click
import pandas as pd

import featurepipe
from featurepipe.reports.figures import accuracies
from featurepipe.runs.run_folder import Run, load_run
from featurepipe.workspace import Workspace


def runs_of(workspace: Path, method: str, epochs: int, **split: object) -> list[Run]:
    """The runs of one method; those of networks that are complete are not trained again."""
    if method == "bagged-sgd, auto":
        table = featurepipe.fit(features="auto", workspace=workspace, **split)
    else:
        table = featurepipe.train(method, epochs=epochs, workspace=workspace, **split)
    names = list(dict.fromkeys(table["run"]))
    return [load_run(Workspace(workspace).run(name)) for name in names]


def row(method: str, run: Run, part: str) -> dict[str, object]:
    """Accuracies of a run on the images of one part."""
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
    """What a run says of a picture."""
    table = featurepipe.predict([picture], run=run.name, workspace=workspace, coverage=1)
    said = [f"{r['attribute']} {r['class']} {r['probability']:.2f}" for _, r in table.iterrows()]
    return f"{picture.name} by {method} trained on all combinations: {', '.join(said)}"


@click.command(help=__doc__.splitlines()[0])
@click.argument("workspace", type=click.Path(exists=True, path_type=Path))
@click.option("--epochs", default=20, show_default=True)
@click.option("--picture", "pictures", multiple=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--method",
    "methods",
    multiple=True,
    default=("bagged-sgd, auto", "fashionnet", "smallervggnet"),
    show_default=True,
)
def main(
    workspace: Path, epochs: int, pictures: tuple[Path, ...], methods: tuple[str, ...]
) -> None:
    """Measure, and print a table."""
    rows, said = [], []
    for method in methods:
        seen = runs_of(workspace, method, epochs, repeats=1)
        held_out = runs_of(workspace, method, epochs, hold_out_each=True)
        rows += [row(method, run, "unseen") for run in held_out]
        rows += [row(method, run, "test") for run in seen]
        said += [answer(workspace, method, run, each) for each in pictures for run in seen]
        click.echo(pd.DataFrame(rows).round(3).to_string(index=False), err=True)
    table = pd.DataFrame(rows).round(3)
    for cells in [table.columns, ["---"] * table.shape[1], *table.to_numpy().tolist()]:
        click.echo(f"| {' | '.join(map(str, cells))} |")
    click.echo("\n".join(said))


if __name__ == "__main__":
    main()
