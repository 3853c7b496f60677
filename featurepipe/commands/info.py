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
    )
)
@cloup.argument("path", type=click.Path(path_type=Path), help="File or folder to describe.")
@cloup.option_group(
    "Checks",
    option("--verify", is_flag=True, help="Check each row's checksum and image."),
)
@output()
def info(path: Path, as_json: bool, **options: Any) -> None:
    """Describe a store, split, run, manifest or workspace.

    --verify reads a whole store and all its images, and fails if a row is damaged or its image
    has changed since.
    """
    write_facts(featurepipe.info(path, **options), as_json)
