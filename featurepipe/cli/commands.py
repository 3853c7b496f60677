"""Every command but `fit`, which has a room of its own."""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import featurepipe
from featurepipe.cli.fitting import fit
from featurepipe.cli.options import Names, common, label_options, refuse_options_beside
from featurepipe.cli.printing import print_json, records
from featurepipe.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd


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
    type=Names(),
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
    type=Names(),
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
@label_options
@common
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
        print_json([extraction.as_dict() for extraction in done])
        return
    for extraction in done:
        click.echo(extraction.in_words())


cli.add_command(fit)


@cli.command()
@common
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
    from featurepipe.reports.terminal_board import board_text

    board = featurepipe.report(workspace=workspace)
    if as_json:
        print_json(records(board))
    else:
        width = shutil.get_terminal_size((100, 24)).columns
        click.echo(board_text(board, width, is_terminal=sys.stdout.isatty()))


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
@common
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
        refuse_options_beside("--same", ("images", "run", "workspace", "as_json", "quiet"))
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
@common
def info(path: Path, verify: bool, as_json: bool, workspace: Path, seed: int) -> None:
    """Say in words what a store, split, run, manifest or workspace is.

    \b
    Examples:
      featurepipe info .
      featurepipe info features/xception-imagenet-299-avg-rgb.h5 --verify
      featurepipe info runs/xception-bagged-sgd-1a2b3c
    """
    from featurepipe.reports.info_text import info_text

    facts = featurepipe.info(path, verify=verify, workspace=workspace)
    if as_json:
        print_json(facts)
    else:
        click.echo(info_text(facts, shutil.get_terminal_size((100, 24)).columns))


@cli.command()
@click.argument("store")
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--labels", is_flag=True, help="Write the labels of the images too.")
@common
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
        print_json(exported.as_dict())
    else:
        click.echo(exported.in_words())


@cli.command()
@click.option(
    "--run", metavar="NAME", help="Run whose heads judge the labels  [default: as for predict]"
)
@common
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
        print_json(records(table))
        return
    from featurepipe.reports.audit_text import audit_text

    width = shutil.get_terminal_size((100, 24)).columns
    click.echo(audit_text(table, width, is_terminal=sys.stdout.isatty()))


@cli.command()
@click.argument("store")
@common
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
        print_json(repaired.as_dict())
    else:
        click.echo(repaired.in_words())


def _list_backbones(as_json: bool) -> None:
    from dataclasses import asdict

    from featurepipe.features.backbones import BACKBONES

    if as_json:
        print_json([asdict(spec) for spec in BACKBONES.values()])
        return
    click.echo(f"{'backbone':<24}{'size px':>8}{'features':>10}  {'preprocessing':<15}licence")
    for spec in BACKBONES.values():
        click.echo(
            f"{spec.name:<24}{spec.size_px:>8}{spec.n_features:>10}  "
            f"{spec.preprocessing:<15}{spec.licence}"
        )


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
