"""`featurepipe export`."""

from pathlib import Path
from typing import Any

import click
import cloup

import featurepipe
from featurepipe.commands.options import examples, option, output, weights
from featurepipe.commands.terminal import write, write_json


@cloup.command(
    epilog=examples(
        "export xception-imagenet-299-avg-rgb features.npz",
        "export features/xception-imagenet-299-avg-rgb.h5 features.parquet --labels",
        "export xception-logistic model.onnx --page page",
    )
)
@cloup.argument("store", nargs=-1, required=True, help="Store by path or name, or name of a run.")
@cloup.argument(
    "target",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write: .npz, .parquet, .csv or .h5; for a run, .onnx or .xml.",
)
@cloup.option_group(
    "Data",
    option("--labels", is_flag=True, help="Also write the labels of the images."),
)
@cloup.option_group(
    "Model",
    weights,
    option(
        "--page",
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="For a run: also write a web page that runs it.",
    ),
)
@output()
def export(as_json: bool, **options: Any) -> None:
    """Export cached features, pack stores into one, or export a run as a model.

    Parquet and CSV have the columns id, one per attribute with --labels, and the features: in
    Parquet the column features of lists, in CSV f0000, f0001, … Several labels of one image are
    joined by |. Images without features are left out.

    A target .h5 is a store with the images of all stores named, which must have been made with
    the same options.

    A target .onnx, or .xml for OpenVINO, is a run from pixels to answers. It is compared with the
    run on the test images at once; featurepipe check repeats that anywhere. Beside it are a model
    card and a program that runs it.
    """
    exported = featurepipe.export(**options)
    if as_json:
        write_json(exported.as_dict())
    else:
        write(exported.in_words())
