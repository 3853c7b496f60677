"""`featurepipe fit`: heads on features, or networks on images."""

from collections.abc import Callable
from typing import Any

import click

import featurepipe
from featurepipe.cli.options import (
    Names,
    Pairs,
    common,
    is_given,
    label_options,
    refuse_given,
    refuse_options_beside,
)
from featurepipe.cli.printing import print_table

OF_HEADS = (
    "head", "solver", "features", "objective", "variance_threshold", "tune", "allow_partial",
    "curve", "n_jobs", "memory",
)  # fmt: skip
OF_NETWORKS = (
    "weights", "size_px", "epochs", "batch_size", "learning_rate", "schedule", "augment",
    "unfreeze", "branches", "loss_weights", "class_weight", "positive_pairs", "precision",
    "resume",
)  # fmt: skip


def _networks(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of `fit --network`; a test holds that these are all that `featurepipe.train` has."""
    for option in reversed(
        (
            click.option("--network", metavar="finetune|fashionnet|smallervggnet|resnet50|pair",
                         help="Train this network on the images themselves, instead of a head."),
            click.option("--weights", metavar="imagenet|random|PATH",
                         help="Networks: weights to begin from  [default: those that the features "
                         "of the backbone were made with]"),
            click.option("--size", "size_px", type=click.IntRange(8), metavar="PX",
                         help="Networks: side of the pictures  [default: the network's own]"),
            click.option("--epochs", type=click.IntRange(1),
                         help="Networks: epochs of each stage, at most  [default: the recipe's]"),
            click.option("--batch-size", type=click.IntRange(2),
                         help="Networks: images at once  [default: the recipe's]"),
            click.option("--learning-rate", type=click.FloatRange(0, min_open=True),
                         help="Networks: of every stage, at its beginning  [default: the "
                         "recipe's]"),
            click.option("--schedule", type=click.Choice(["constant", "decay", "cosine",
                                                          "plateau"]),
                         help="Networks: how the learning rate falls  [default: the recipe's]"),
            click.option("--augment/--no-augment", default=None,
                         help="Networks: change images at random  [default: the recipe's]"),
            click.option("--unfreeze", type=click.IntRange(1), metavar="BLOCKS",
                         help="finetune, pair: train so many of the backbone's last blocks, after "
                         "the top  [default: 2]"),
            click.option("--branches", type=Pairs(str), metavar="ATTRIBUTE=grey|rgb,…",
                         help="fashionnet: what the branch of an attribute is shown  [default: rgb "
                         "for color and colour, grey for others]"),
            click.option("--loss-weights", type=Pairs(float), metavar="ATTRIBUTE=WEIGHT,…",
                         help="Networks: how much each attribute's loss counts  [default: 1]"),
            click.option("--class-weight", type=click.Choice(["none", "balanced"]),
                         default="none", show_default=True,
                         help="Networks: balanced lets rare classes count as much as others."),
            click.option("--positive-pairs", type=click.FloatRange(0, 1), metavar="SHARE",
                         help="pair: share of the pairs that show the same  [default: 0.5]"),
            click.option("--precision",
                         type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
                         default="auto", show_default=True,
                         help="Networks: in which layers compute; auto: half precision on a GPU "
                         "that runs it."),
            click.option("--resume/--no-resume", default=True, show_default=True,
                         help="Networks: go on from where the same training was ended, and leave "
                         "one that is complete as it is."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


@click.command()
@click.option(
    "--backbone",
    type=Names(),
    default=(),
    show_default="all with features",
    help="Backbones to fit heads on; each gives a run of its own.",
)
@click.option(
    "--head",
    default="bagged-sgd",
    show_default=True,
    metavar="bagged-sgd|logistic|knn",
    help="The classical head.",
)
@click.option(
    "--solver",
    type=click.Choice(["minibatch", "sklearn"]),
    show_default="minibatch for bagged-sgd",
    help="sklearn: bagged SGD literally by scikit-learn, which takes far longer.",
)
@click.option(
    "--task",
    type=click.Choice(["per-attribute", "multi-label", "joint"]),
    default="per-attribute",
    show_default=True,
    help="One head an attribute, one OneVsRest head over all labels, or one head over the "
    "combinations of classes.",
)
@click.option(
    "--features",
    metavar="auto|[ATTRIBUTE=]STORE[+STORE],…",
    help="What heads read: the same for all attributes, or for each; auto finds out on training "
    "images which stores and pairs tell an attribute even in combinations never trained. A store "
    "is BACKBONE:VIEW, or its file's name  [default: each store gives a run]",
)
@click.option(
    "--objective",
    type=click.Choice(["balanced", "unseen", "seen"]),
    show_default="balanced",
    help="What auto looks for: accuracy on combinations not trained, on those trained, or the "
    "mean of both.",
)
@click.option(
    "--calibrate",
    type=click.Choice(["auto", "sigmoid", "isotonic", "temperature", "none"]),
    default="auto",
    show_default=True,
    help="How scores become probabilities; fitted on training rows only. auto: temperature for "
    "exclusive classes, sigmoid for labels of sets.",
)
@click.option(
    "--thresholds",
    metavar="f1|precision=SHARE|recall=SHARE",
    help="Of several labels an image: give each above the threshold that is best for this, on "
    "training images out of fold  [default: 0.5]",
)
@click.option(
    "--variance-threshold",
    show_default="1%",
    metavar="N%|VARIANCE",
    help="Drop features below this share of the mean variance, or this variance.",
)
@click.option(
    "--tune",
    is_flag=True,
    help="Choose bagged SGD's penalty, the variance threshold and how features are scaled for each "
    "head, on folds of its training images.",
)
@click.option("--test-size", type=float, help="Share of the images to test on  [default: 0.2]")
@click.option(
    "--hold-out",
    multiple=True,
    metavar="COMBINATION",
    help="Combination, such as black_dress, that training never sees; repeatable.",
)
@click.option(
    "--hold-out-each",
    is_flag=True,
    help="Hold out in turn every combination whose classes occur in others too; each gives a "
    "split and its runs.",
)
@click.option(
    "--group-duplicates",
    is_flag=True,
    help="Keep images that are nearly the same (cropped, resized, compressed copies) on one side.",
)
@click.option(
    "--allow-partial",
    is_flag=True,
    help="Leave out images whose features are not finished, instead of refusing to fit.",
)
@click.option(
    "--curve",
    is_flag=True,
    help="Also fit on an eighth, a quarter and half of the training images, and say whether more "
    "of them would help: curve.csv in the run's folder. Takes about 15 times as long.",
)
@click.option("--repeats", type=click.IntRange(1), help="Number of random splits  [default: 1]")
@click.option(
    "--jobs",
    "n_jobs",
    type=int,
    default=-1,
    show_default="all cores",
    help="Processor cores to use.",
)
@click.option(
    "--from",
    "repeated_run",
    metavar="RUN",
    help="Fit this run again exactly as it was, and say whether its numbers are the same. "
    "Nothing is written.",
)
@click.option(
    "--memory",
    metavar="SIZE",
    help="What fitting may take, such as 4GB; where that does not hold the features, bagged SGD "
    "reads them in chunks  [default: no bound]",
)
@_networks
@label_options
@common
def fit(as_json: bool, repeated_run: str | None, network: str | None, **options: Any) -> None:
    """Fit heads on the cached features, or train networks on the images.

    Each backbone gives a run. With --network the images are decoded once, a part
    of the training images chooses the epoch to keep, and a training that was
    ended goes on where it was.

    --test-size, --hold-out, --hold-out-each, --repeats, --group,
    --group-duplicates and --seed make a split of the images, or find the same
    one again; without them the first split serves. --labels and --attributes
    relabel the images; nothing is extracted again.

    \b
    Examples:
      featurepipe fit --head bagged-sgd
      featurepipe fit --head bagged-sgd --task multi-label
      featurepipe fit --head bagged-sgd --solver sklearn
      featurepipe fit --head logistic --backbone resnet50
      featurepipe fit --hold-out black_dress
      featurepipe fit --features auto --hold-out black_dress
      featurepipe fit --features category=xception:grey,color=hsv-histogram+xception:shuffle
      featurepipe fit --hold-out-each
      featurepipe fit --group-duplicates
      featurepipe fit --memory 4GB
      featurepipe fit --labels relabelled.csv --repeats 5
      featurepipe fit --curve
      featurepipe fit --from xception-bagged-sgd-1a2b3c
      featurepipe fit --network finetune --backbone mobilenet_v2
      featurepipe fit --network fashionnet --epochs 20 --hold-out black_dress
      featurepipe fit --network smallervggnet --task per-attribute --no-augment
    """
    if repeated_run is not None:
        why = ": a run is repeated exactly as it was fitted"
        refuse_options_beside("--from", ("workspace", "n_jobs", "as_json", "quiet"), why)
        where, n_jobs = options["workspace"], options["n_jobs"]
        table = featurepipe.repeat(repeated_run, workspace=where, n_jobs=n_jobs)
        print_table(table, as_json)
        return
    # A seed that was given asks for a split; the default does not.
    if not is_given("seed"):
        options["seed"] = None
    of_heads = {name: options.pop(name) for name in OF_HEADS}
    of_networks = {name: options.pop(name) for name in OF_NETWORKS}
    if network is None:
        refuse_given(OF_NETWORKS, "is for networks: add --network, or leave it out.")
        print_table(featurepipe.fit(**options, **of_heads), as_json)
        return
    refuse_given(OF_HEADS, f"is for heads, and --network {network} reads images. Leave it out.")
    if not is_given("task"):
        options["task"] = None
    print_table(featurepipe.train(network, **options, **of_networks), as_json)
