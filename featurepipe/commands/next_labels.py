"""`featurepipe next`."""

from pathlib import Path
from typing import Any

import click
import cloup

import featurepipe
from featurepipe.commands.options import examples, option, output, run, weights
from featurepipe.commands.terminal import write_next


@cloup.command(
    name="next",
    epilog=examples(
        "next --n 50 --contact-sheet sheet.jpg",
        "next new/ --n 20 --run mobilenet_v2-logistic",
    ),
)
@cloup.argument(
    "pool",
    nargs=-1,
    help="Files, folders or patterns; default: the workspace's unlabelled images.",
)
@cloup.option_group("Model", run, weights)
@cloup.option_group(
    "Choice",
    option(
        "--n", type=click.IntRange(1), default=50, metavar="N", help="Number of images to choose."
    ),
)
@output(
    option(
        "--contact-sheet",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Picture of the chosen images, as .jpg or .png.",
    )
)
def next_labels(as_json: bool, **options: Any) -> None:
    """Choose the images to label next, and write next.csv.

    Chooses images that the run is unsure of, each like many others and unlike those already
    chosen. Correct the suggested classes in next.csv and give it back: featurepipe fit --labels
    next.csv. In Python, the function is featurepipe.next_labels.
    """
    write_next(featurepipe.next_labels(**options), as_json)
