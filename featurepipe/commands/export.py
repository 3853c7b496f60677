"""`featurepipe export`."""

from pathlib import Path
from typing import Any

import click
import cloup

import featurepipe
from featurepipe.commands.options import examples, option, output
from featurepipe.commands.terminal import write, write_json


@cloup.command(
    epilog=examples(
        "export xception-imagenet-299-avg-rgb features.npz",
        "export features/xception-imagenet-299-avg-rgb.h5 features.parquet --labels",
    )
)
@cloup.argument(
    "store", nargs=-1, required=True, help="Path of a store, or its name in the workspace."
)
@cloup.argument(
    "target",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write: .npz, .parquet, .csv or .h5.",
)
@cloup.option_group(
    "Data",
    option("--labels", is_flag=True, help="Also write the labels of the images."),
)
@output()
def export(as_json: bool, **options: Any) -> None:
    """Export cached features to .npz, .parquet or .csv, or pack stores into one.

    Parquet and CSV have the columns id, one per attribute with --labels, and the features: in
    Parquet the column features of lists, in CSV f0000, f0001, … Several labels of one image are
    joined by |. Images without features are left out.

    A target .h5 is a store with the images of all stores named, which must have been made with
    the same options.
    """
    exported = featurepipe.export(**options)
    if as_json:
        write_json(exported.as_dict())
    else:
        write(exported.in_words())
