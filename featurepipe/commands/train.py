"""`featurepipe train`."""

from typing import Any

import click
import cloup

import featurepipe
from featurepipe.commands.options import (
    Names,
    Pairs,
    calibrate,
    cluster,
    data,
    examples,
    option,
    output,
    seed,
    split,
    thresholds,
)
from featurepipe.commands.terminal import write_runs


@cloup.command(
    epilog=examples(
        "train finetune --backbone mobilenet_v2",
        "train fashionnet --epochs 20 --hold-out black_dress",
        "train smallervggnet --task per-attribute --no-augment",
    )
)
@cloup.argument("network", help="finetune, fashionnet, smallervggnet, resnet50 or pair.")
@data()
@split
@cloup.option_group(
    "Network",
    option(
        "--backbone",
        type=Names(),
        show_default="the cached one",
        help="finetune, pair: backbones to start from, one run each.",
    ),
    option(
        "--weights",
        metavar="imagenet|random|PATH",
        show_default="as cached",
        help="finetune, pair: initial weights.",
    ),
    option(
        "--size",
        "size_px",
        type=click.IntRange(8),
        metavar="PX",
        show_default="the network's own",
        help="Side of the input images.",
    ),
    option(
        "--task",
        type=click.Choice(["per-attribute", "multi-label"]),
        show_default="the network's own",
        help="A softmax per attribute, or a sigmoid per label.",
    ),
    option(
        "--unfreeze",
        type=click.IntRange(1),
        metavar="BLOCKS",
        show_default="2",
        help="finetune, pair: number of final blocks to train.",
    ),
    option(
        "--branches",
        type=Pairs(str),
        metavar="ATTRIBUTE=grey|rgb,…",
        show_default="rgb for color, else grey",
        help="fashionnet: input of each attribute's branch.",
    ),
    option(
        "--positive-pairs",
        type=click.FloatRange(0, 1),
        metavar="SHARE",
        show_default="0.5",
        help="pair: share of image pairs with the same labels.",
    ),
)
@cloup.option_group(
    "Training",
    option(
        "--epochs",
        type=click.IntRange(1),
        metavar="N",
        show_default="the recipe's",
        help="Maximum number of epochs of each stage.",
    ),
    option(
        "--batch-size",
        type=click.IntRange(2),
        metavar="N",
        show_default="the recipe's",
        help="Images per batch.",
    ),
    option(
        "--learning-rate",
        type=click.FloatRange(0, min_open=True),
        metavar="RATE",
        show_default="the recipe's",
        help="Initial learning rate of every stage.",
    ),
    option(
        "--schedule",
        type=click.Choice(["constant", "decay", "cosine", "plateau"]),
        show_default="the recipe's",
        help="Schedule of the learning rate.",
    ),
    option(
        "--augment/--no-augment",
        default=None,
        show_default="the recipe's",
        help="Augment training images at random.",
    ),
    option(
        "--loss-weights",
        type=Pairs(float),
        metavar="ATTRIBUTE=WEIGHT,…",
        show_default="1 each",
        help="Weight of each attribute's loss.",
    ),
    option(
        "--class-weight",
        type=click.Choice(["none", "balanced"]),
        default="none",
        help="balanced: rare classes count as much as frequent ones.",
    ),
    option(
        "--precision",
        type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
        default="auto",
        help="Training precision; auto uses half precision where the GPU supports it.",
    ),
    option(
        "--resume/--no-resume",
        default=True,
        help="Continue an interrupted training; keep a finished one.",
    ),
    calibrate,
    thresholds,
)
@cluster()
@output(seed)
def train(network: str, as_json: bool, **options: Any) -> None:
    """Train a network end to end on the images.

    finetune and pair start from a pretrained backbone, the others from random weights. Some
    training images are set aside for validation and select the best epoch. The same command
    continues an interrupted training.
    """
    from featurepipe.models.networks.recipes import find_network

    # Refused here, before Keras is imported.
    find_network(network)
    write_runs(featurepipe.train(network, **options), as_json)
