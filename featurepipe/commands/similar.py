"""`featurepipe similar`."""

from pathlib import Path
from typing import Any

import click
import cloup

import featurepipe
from featurepipe.commands.options import examples, option, output, weights
from featurepipe.commands.terminal import write_similar


@cloup.command(
    epilog=examples(
        "similar photo.jpg",
        "similar photo.jpg --n 19 --contact-sheet similar.jpg",
        "similar black_dress/00000012.jpg --features mobilenet_v2:grey --json",
    )
)
@cloup.argument(
    "images",
    nargs=-1,
    required=True,
    help="Files, folders or patterns, or ids of images of the workspace.",
)
@cloup.option_group(
    "Search",
    option(
        "--n",
        type=click.IntRange(1),
        default=9,
        metavar="N",
        help="Number of neighbours to find.",
    ),
    option(
        "--features",
        metavar="STORE",
        show_default="as audit",
        help="Features to compare images by.",
    ),
    weights,
)
@output(
    option(
        "--contact-sheet",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Picture of the images and their neighbours, as .jpg or .png.",
    )
)
def similar(images: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Find the nearest images that have features.

    Compares each image with all images of the workspace, by the distance of their features,
    scaled to length 1. Images that have no features yet are embedded first, and not kept. Without
    --features, the only store is used, or the one by which audit finds near-duplicates.
    """
    write_similar(featurepipe.similar(images, **options), as_json)
