"""`featurepipe fit`."""

from typing import Any

import click
import cloup

import featurepipe
from featurepipe.commands.options import (
    Names,
    calibrate,
    cluster,
    data,
    examples,
    jobs,
    memory,
    option,
    output,
    seed,
    split,
    thresholds,
)
from featurepipe.commands.terminal import write_runs


@cloup.command(
    epilog=examples(
        "fit --head logistic --backbone resnet50",
        "fit --hold-out black_dress --features auto",
        "fit --features category=xception:grey,color=hsv_histogram+xception:shuffle",
        "fit --labels relabelled.csv --repeats 5",
    )
)
@data(
    option(
        "--allow-partial",
        is_flag=True,
        help="Leave out images that have no features yet.",
    )
)
@split
@cloup.option_group(
    "Model",
    option(
        "--backbone",
        type=Names(),
        show_default="all with features",
        help="Backbones whose features to use.",
    ),
    option(
        "--features",
        metavar="auto|[ATTRIBUTE=]STORE[+STORE],…",
        show_default="one run per store",
        help="Features of one run, or auto to choose them.",
    ),
    option(
        "--objective",
        type=click.Choice(["balanced", "unseen", "seen"]),
        show_default="balanced",
        help="What auto maximises: accuracy on seen or unseen combinations, or both.",
    ),
    option(
        "--head",
        metavar="bagged-sgd|logistic|svm|knn",
        show_default="bagged-sgd; auto features choose",
        help="Classifier on the features.",
    ),
    option(
        "--solver",
        type=click.Choice(["minibatch", "sklearn"]),
        show_default="minibatch",
        help="Solver of bagged-sgd; sklearn is far slower.",
    ),
    option(
        "--task",
        type=click.Choice(["per-attribute", "multi-label", "joint"]),
        default="per-attribute",
        help="One head per attribute, one for all labels, or one for combinations.",
    ),
)
@cloup.option_group(
    "Training",
    calibrate,
    thresholds,
    option(
        "--variance-threshold",
        metavar="N%|VARIANCE",
        show_default="1%",
        help="Minimum variance of a feature; N% is of the mean.",
    ),
    option(
        "--tune",
        is_flag=True,
        help="Tune penalty, variance threshold and scaling by cross-validation.",
    ),
    option(
        "--curve",
        type=click.Choice(["images", "combinations"]),
        help="Also fit a learning curve over numbers of images or combinations.",
    ),
)
@cloup.option_group("Computation", jobs, memory)
@cluster()
@output(seed)
def fit(as_json: bool, **options: Any) -> None:
    """Fit heads on cached features.

    Each backbone and view gives a run of its own; --features combines several in one. Split
    options make a new split or find the same one again; without them the first split is used.
    --labels and --attributes relabel the images without a new extraction.
    """
    write_runs(featurepipe.fit(**options), as_json)
