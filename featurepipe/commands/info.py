"""`featurepipe info`."""

from pathlib import Path
from typing import Any

import click
import cloup

import featurepipe
from featurepipe.commands.options import examples, option, output
from featurepipe.commands.terminal import write_facts


@cloup.command(
    epilog=examples(
        "info .",
        "info runs/xception-bagged-sgd",
        "info features/xception-imagenet-299-avg-rgb.h5 --verify",
        "info . --verify",
        "info . --plot images.png",
    )
)
@cloup.argument("path", type=click.Path(path_type=Path), help="File or folder to describe.")
@cloup.option_group(
    "Checks",
    option("--verify", is_flag=True, help="Check rows, images, splits, runs and heads."),
)
@output(
    option(
        "--plot",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Picture of labels, image sizes and examples, as .jpg or .png.",
    )
)
def info(path: Path, as_json: bool, **options: Any) -> None:
    """Describe a store, split, run, manifest or workspace.

    --verify reads everything, and fails if a row, split or file of a run is damaged or was
    edited, or if an image has changed since. In a workspace it lists all problems. --plot draws
    the images of a workspace or manifest.
    """
    write_facts(featurepipe.info(path, **options), as_json)
