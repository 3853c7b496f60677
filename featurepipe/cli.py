"""The command line: parse, call one workflow, turn errors into exit codes.

Nothing heavy is imported here: each command imports its workflow when it runs.
"""

import functools
import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

import featurepipe
from featurepipe.errors import FeaturepipeError, UsageError

if TYPE_CHECKING:
    import pandas as pd

_LOGGER = logging.getLogger("featurepipe")
_OF_HEADS = (
    "head", "solver", "features", "objective", "variance_threshold", "tune", "allow_partial",
    "curve", "n_jobs", "memory",
)  # fmt: skip
_OF_NETWORKS = (
    "weights", "size_px", "epochs", "batch_size", "learning_rate", "schedule", "augment",
    "unfreeze", "branches", "loss_weights", "class_weight", "positive_pairs", "precision",
    "resume",
)  # fmt: skip
_STOPPED = "{}. What was done stays done; run the same command again to go on from there."


class _Names(click.ParamType):
    """Comma-separated names."""

    name = "NAME,…"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        return tuple(part.strip() for part in value.split(",") if part.strip())


class _Pairs(click.ParamType):
    """Comma-separated values by name."""

    name = "NAME=VALUE,…"

    def __init__(self, value: type) -> None:
        self._value = value

    def convert(self, value: Any, param: Any, ctx: Any) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        pairs = [part.partition("=") for part in value.split(",")]
        try:
            return {name.strip(): self._value(text.strip()) for name, _, text in pairs}
        except ValueError:
            self.fail(f"{value!r} cannot be read. Expected {param.metavar}.", param, ctx)


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of every command."""
    for option in reversed(
        (
            click.option(
                "--workspace",
                type=click.Path(file_okay=False, path_type=Path),
                default=Path(),
                show_default="the current folder",
                help="Folder of the manifest, stores, splits, runs and reports.",
            ),
            click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
                         help="Seed of everything random."),
            click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs."),
            click.option("--quiet", is_flag=True, help="Say nothing but warnings and errors."),
        )
    ):  # fmt: skip
        command = option(command)

    @functools.wraps(command)
    def with_talk(*, quiet: bool, **options: Any) -> Any:
        _talk_to_stderr(logging.WARNING if quiet else logging.INFO)
        return command(**options)

    return with_talk


def _labels(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say what the labels are."""
    for option in reversed(
        (
            click.option("--attributes", type=_Names(), default=(),
                         help="What the parts of the folder names, or which columns of the table, "
                         "say of an image: color,category for folders like black_dress/."),
            click.option("--labels", metavar="TABLE",
                         help="CSV or Parquet table with a path column and one column an "
                         "attribute (or columns attribute=class of 0 and 1)."),
            click.option("--group", metavar="COLUMN",
                         help="Column of the table whose rows of one value never part between "
                         "train and test."),
            click.option("--label-separator", show_default="|",
                         help="What parts several labels in one cell of the table."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


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
            click.option("--branches", type=_Pairs(str), metavar="ATTRIBUTE=grey|rgb,…",
                         help="fashionnet: what the branch of an attribute is shown  [default: rgb "
                         "for color and colour, grey for others]"),
            click.option("--loss-weights", type=_Pairs(float), metavar="ATTRIBUTE=WEIGHT,…",
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


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: featurepipe extract FOLDER --backbone xception",
)
@click.version_option(featurepipe.__version__, prog_name="featurepipe")
def cli() -> None:
    """Tell how far frozen ImageNet features plus a classical head get you.

    \b
    featurepipe extract dataset/ --backbone xception   images -> cached features
    featurepipe fit --head bagged-sgd                  features -> fitted heads
    featurepipe report                                 runs -> leaderboard.csv
    featurepipe predict new/*.jpg --top 5              images -> classes
    """


@cli.command()
@click.argument("source", required=False)
@click.option(
    "--backbone",
    type=_Names(),
    default="xception",
    show_default=True,
    help="One or more backbones; see --list-backbones. hsv_histogram sees colours only and "
    "needs no network.",
)
@click.option("--list-backbones", is_flag=True, help="List every backbone and stop.")
@click.option(
    "--weights",
    default="imagenet",
    show_default=True,
    metavar="imagenet|random|PATH",
    help="Weights; PATH is .h5, .weights.h5 or .keras.",
)
@click.option(
    "--pooling",
    default="avg",
    show_default=True,
    metavar="avg|max|LAYER",
    help="How the last feature map becomes one row; or a layer's own output.",
)
@click.option(
    "--view",
    type=_Names(),
    default="rgb",
    show_default=True,
    metavar="rgb|grey|shuffle|flip,…",
    help="What of the image the backbone is shown: as it is, without colour, without shape, or "
    "with its mirror image. Each gives a store.",
)
@click.option(
    "--size",
    "size_px",
    type=click.IntRange(1),
    metavar="PX",
    help="Side of the picture shown to the backbone  [default: the backbone's own]",
)
@click.option(
    "--engine",
    type=click.Choice(["auto", "openvino", "keras"]),
    default="auto",
    show_default=True,
    help="What runs the backbone: Keras on a GPU, else OpenVINO.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="auto: what the hardware runs natively, where it keeps the features.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    show_default="what suits the engine and the memory",
    help="Images embedded, and committed, at once.",
)
@click.option(
    "--fast-decode",
    is_flag=True,
    help="Decode large JPEGs at a reduced size. It moves features: they get a store of their own.",
)
@click.option(
    "--rehash",
    is_flag=True,
    help="Read every image again, and do not go by size and modification time.",
)
@click.option("--retry-refused", is_flag=True, help="Try refused images again.")
@click.option("--strict", is_flag=True, help="Fail if any image is refused.")
@_labels
@_common
def extract(list_backbones: bool, as_json: bool, **options: Any) -> None:
    """Run backbones over the images below SOURCE and cache their features.

    SOURCE is a folder (its sub-folders are the labels), a CSV or Parquet table,
    a tar file in WebDataset layout (or a folder of such), or a URL of one of
    these (s3://, gs://, https://, whatever fsspec knows). It is remembered: the
    next time only what is new or changed is extracted. With no source
    remembered, the current folder serves.

    \b
    Examples:
      featurepipe extract dataset/ --backbone xception
      featurepipe extract dataset/ --attributes color,category
      featurepipe extract images/ --labels labels.csv --group patient
      featurepipe extract shards/ --backbone resnet50
      featurepipe extract s3://bucket/images --backbone resnet50
      featurepipe extract --backbone resnet50,inception_v3
      featurepipe extract --backbone mobilenet_v2 --weights mine.weights.h5 --view rgb,grey
    """
    if list_backbones:
        _list_backbones(as_json)
        return
    done = featurepipe.extract(**options)
    if as_json:
        _print_json([extraction.as_dict() for extraction in done])
        return
    for extraction in done:
        click.echo(extraction.in_words())


@cli.command()
@click.option(
    "--backbone",
    type=_Names(),
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
@_labels
@_common
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
        _refuse_options_beside("--from", ("workspace", "n_jobs", "as_json", "quiet"), why)
        where, n_jobs = options["workspace"], options["n_jobs"]
        table = featurepipe.repeat(repeated_run, workspace=where, n_jobs=n_jobs)
        _print_table(table, as_json)
        return
    # A seed that was given asks for a split; the default does not.
    if not _is_given("seed"):
        options["seed"] = None
    of_heads = {name: options.pop(name) for name in _OF_HEADS}
    of_networks = {name: options.pop(name) for name in _OF_NETWORKS}
    if network is None:
        _refuse_given(_OF_NETWORKS, "is for networks: add --network, or leave it out.")
        _print_table(featurepipe.fit(**options, **of_heads), as_json)
        return
    _refuse_given(_OF_HEADS, f"is for heads, and --network {network} reads images. Leave it out.")
    if not _is_given("task"):
        options["task"] = ""
    _print_table(featurepipe.train(network, **options, **of_networks), as_json)


@cli.command()
@_common
def report(as_json: bool, workspace: Path, seed: int) -> None:
    """Put every run of the workspace on one board: leaderboard.csv.

    One row per run and attribute, and one for `all` (every attribute right).
    Intervals are of 95 %: over images or groups of them or, where repeated splits
    are summarised, over splits. `tied_with_best` says where the data cannot tell a
    run from the best of its split. An empty cell does not apply.

    \b
    Examples:
      featurepipe report
      featurepipe report --json
    """
    from featurepipe.reports.leaderboard import format_leaderboard

    board = featurepipe.report(workspace=workspace)
    if as_json:
        _print_json(_records(board))
    else:
        click.echo(format_leaderboard(board, shutil.get_terminal_size((120, 24)).columns))


@cli.command()
@click.argument("images", nargs=-1, required=True)
@click.option(
    "--run",
    metavar="NAME",
    help="Run to predict with  [default: the best selection_accuracy over all attributes]",
)
@click.option(
    "--top",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Classes to give for each attribute.",
)
@click.option(
    "--weights",
    multiple=True,
    metavar="[BACKBONE=]PATH",
    help="Where the run's weights are now; repeatable.",
)
@click.option(
    "--coverage",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.95,
    show_default=True,
    help="Share of images like those trained on that shall have an answer; what is less like them "
    "is marked unknown. 1: answer everything.",
)
@click.option(
    "--foreign",
    is_flag=True,
    help="IMAGES show nothing that the run knows: say how many are marked unknown, and how well "
    "they are told from test images.",
)
@click.option(
    "--same",
    is_flag=True,
    help="IMAGES are two: how probable it is that they show the same, by a run of --network pair.",
)
@click.option(
    "--annotate",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Save copies of the images there with their classes written on.",
)
@_common
def predict(images: tuple[str, ...], as_json: bool, same: bool, **options: Any) -> None:
    """Predict the attributes of IMAGES: files, folders or patterns.

    Prints CSV (image, attribute, rank, class, probability, given, unknown,
    refused) or, with --json, one JSON object a line and image. `given` marks the
    answer: the most probable class, or of several labels those above their
    thresholds; none where `unknown` says that the image is unlike those trained
    on, or the head in doubt, as few training images are.

    \b
    Examples:
      featurepipe predict new/
      featurepipe predict "new/*.jpg" --top 5 --annotate out/
      featurepipe predict photo.jpg --run xception-bagged-sgd-1a2b3c --json
      featurepipe predict holiday/ --foreign --coverage 0.9
      featurepipe predict --same one.jpg other.jpg
    """
    if same:
        _refuse_options_beside("--same", ("images", "run", "workspace", "as_json", "quiet"))
        _print_same(images, as_json, options["workspace"], options["run"])
        return
    answers = featurepipe.predict(images, **options)
    if not as_json:
        click.echo(answers.to_csv(index=False, float_format="%.6g"), nl=False)
        return
    for image, rows in answers.groupby("image", sort=False):
        click.echo(json.dumps(_answer(str(image), rows), ensure_ascii=False))


@cli.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--verify", is_flag=True, help="Check every row's checksum and image.")
@_common
def info(path: Path, verify: bool, as_json: bool, workspace: Path, seed: int) -> None:
    """Say in words what a store, split, run, manifest or workspace is.

    \b
    Examples:
      featurepipe info .
      featurepipe info features/xception-imagenet-299-avg-rgb.h5 --verify
      featurepipe info runs/xception-bagged-sgd-1a2b3c
    """
    from featurepipe import descriptions

    facts = descriptions.describe(path, verify=verify, workspace=workspace)
    if as_json:
        _print_json(facts)
        return
    for name, value in facts.items():
        click.echo(f"{name + ':':<18} {value}")


@cli.command()
@click.argument("store")
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--labels", is_flag=True, help="Write the labels of the images too.")
@_common
def export(as_json: bool, seed: int, **options: Any) -> None:
    """Write the features of STORE to TARGET: .npz, .parquet or .csv.

    STORE is a path, or the name of one of the workspace's stores. Only images
    with features are written. Parquet and CSV have the columns id, one for each
    attribute with --labels, and f0000, f0001, …; several classes of one image
    are joined by |.

    \b
    Examples:
      featurepipe export xception-imagenet-299-avg-rgb features.npz
      featurepipe export features/xception-imagenet-299-avg-rgb.h5 features.parquet --labels
    """
    exported = featurepipe.export(**options)
    if as_json:
        _print_json(exported.as_dict())
    else:
        click.echo(exported.in_words())


@cli.command()
@click.option(
    "--run", metavar="NAME", help="Run whose heads judge the labels  [default: as for predict]"
)
@_common
def audit(as_json: bool, workspace: Path, run: str | None, seed: int) -> None:
    """Look for wrong labels, outliers and duplicates: audit.csv.

    Labels of training images are judged by heads that were fitted without them;
    outliers and near-duplicates are found by features. Nothing is changed: look
    at the images, correct the labels, and fit again.

    \b
    Examples:
      featurepipe audit
      featurepipe audit --run xception-bagged-sgd-1a2b3c --json
    """
    table = featurepipe.audit(workspace=workspace, run=run)
    if as_json:
        _print_json(_records(table))
        return
    counts = table["finding"].value_counts(sort=False)
    for finding, count in counts.items():
        click.echo(f"{count} {finding}{'' if count == 1 else 's'}, such as:")
        for _, row in table[table["finding"] == finding].head(3).iterrows():
            click.echo(f"  {row['image']}: {row['reason']}")
    if table.empty:
        click.echo("Nothing odd was found.")


@cli.command()
@click.argument("store")
@_common
def repair(as_json: bool, seed: int, **options: Any) -> None:
    """Keep the sound rows of STORE and mark the rest pending.

    STORE is a path, or the name of one of the workspace's stores. Rows that do
    not fit their checksum or their image any more are pending afterwards: the
    same `featurepipe extract` again embeds them. If rows were given up, the file
    as it was is kept beside as STORE.damaged.

    \b
    Examples:
      featurepipe repair xception-imagenet-299-avg-rgb
      featurepipe repair features/xception-imagenet-299-avg-rgb.h5
    """
    repaired = featurepipe.repair(**options)
    if as_json:
        _print_json(repaired.as_dict())
    else:
        click.echo(repaired.in_words())


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    arguments : sequence of str, optional
        Default: those of the process.

    Returns
    -------
    int
        0 success, 1 a `FeaturepipeError` in one line on stderr, 2 usage, 130 Ctrl-C,
        143 SIGTERM.
    """
    try:
        cli.main(args=arguments, prog_name="featurepipe", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        was_terminated = isinstance(error.__cause__ or error, _Terminated)
        click.echo(f"\n{_STOPPED.format('Ended' if was_terminated else 'Interrupted')}", err=True)
        return 143 if was_terminated else 130
    except FeaturepipeError as error:
        click.echo(f"featurepipe: {error}", err=True)
        return 1
    except BrokenPipeError:
        # Whoever read the results has seen enough; nothing may be flushed to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        click.echo(f"featurepipe: {error.strerror or error}{where}", err=True)
        return 1
    finally:
        _LOGGER.handlers.clear()
    return 0


def main() -> NoReturn:
    """Entry point of the ``featurepipe`` command."""
    signal.signal(signal.SIGTERM, _terminate)
    code = run()
    if code:
        # Threads that wait for a source without an answer would hold the process for minutes.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(0)


class _Terminated(KeyboardInterrupt):
    """The operating system or a scheduler asks the process to end."""


def _terminate(*_: object) -> NoReturn:
    raise _Terminated


def _talk_to_stderr(level: int) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    _LOGGER.handlers = [handler]
    _LOGGER.setLevel(level)


def _is_given(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source is not click.core.ParameterSource.DEFAULT


def _refuse_given(names: Sequence[str], why: str) -> None:
    for param in click.get_current_context().command.params:
        if param.name in names and _is_given(param.name):
            raise UsageError(f"{param.opts[0]} {why}")


def _refuse_options_beside(option: str, allowed: Sequence[str], why: str = "") -> None:
    context = click.get_current_context()
    for param in context.command.params:
        if _is_given(param.name or "") and param.name not in allowed and option not in param.opts:
            raise UsageError(
                f"{option} and {param.opts[0]} contradict each other{why}. Leave {param.opts[0]} "
                f"out, or {option}."
            )


def _list_backbones(as_json: bool) -> None:
    from dataclasses import asdict

    from featurepipe.features.backbones import BACKBONES

    if as_json:
        _print_json([asdict(spec) for spec in BACKBONES.values()])
        return
    click.echo(f"{'backbone':<24}{'size px':>8}{'features':>10}  {'preprocessing':<15}licence")
    for spec in BACKBONES.values():
        click.echo(
            f"{spec.name:<24}{spec.size_px:>8}{spec.n_features:>10}  "
            f"{spec.preprocessing:<15}{spec.licence}"
        )


def _print_table(table: "pd.DataFrame", as_json: bool) -> None:
    if as_json:
        _print_json(_records(table))
    else:
        click.echo(table.to_string(index=False, na_rep="", float_format="{:.4g}".format))


def _records(table: "pd.DataFrame") -> list[dict[str, Any]]:
    return json.loads(table.to_json(orient="records", double_precision=15))


def _print_same(images: Sequence[str], as_json: bool, workspace: Path, run: str | None) -> None:
    if len(images) != 2:
        raise UsageError(f"--same compares 2 images, and {len(images)} were given.")
    first, second = images
    probability = featurepipe.verify(first, second, workspace=workspace, run=run)
    if as_json:
        click.echo(json.dumps({"image": first, "other_image": second, "same": probability}))
    else:
        click.echo(f"image,other_image,same\n{first},{second},{probability:.6g}")


def _answer(image: str, rows: "pd.DataFrame") -> dict[str, Any]:
    reason = rows["refused"].iloc[0]
    if reason:
        return {"image": image, "refused": reason}
    attributes = {
        str(attribute): [
            {"class": name, "probability": probability, "given": given, "unknown": unknown}
            for name, probability, given, unknown in zip(
                best["class"], best["probability"], best["given"], best["unknown"], strict=True
            )
        ]
        for attribute, best in rows.groupby("attribute", sort=False)
    }
    return {"image": image, "attributes": attributes}


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))
