"""`featurepipe predict`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import cloup

import featurepipe
from featurepipe.commands.options import Names, examples, option, output, run, spreadsheet_safe
from featurepipe.commands.terminal import write, write_json
from featurepipe.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd


@cloup.command(
    epilog=examples(
        "predict new/",
        'predict "new/*.jpg" --top 5 --annotate out/',
        "predict photo.jpg --run xception-bagged-sgd --json",
        "predict holiday/ --unrelated --coverage 0.9",
    )
)
@cloup.argument("images", nargs=-1, required=True, help="Files, folders or patterns.")
@cloup.option_group(
    "Model",
    run,
    option(
        "--weights",
        type=Names(),
        metavar="[BACKBONE=]PATH,…",
        help="Current files of the backbone weights, if they were moved.",
    ),
)
@cloup.option_group(
    "Answers",
    option(
        "--top",
        type=click.IntRange(1),
        metavar="N",
        default=1,
        help="Number of classes to print for each attribute.",
    ),
    option(
        "--coverage",
        type=click.FloatRange(0, 1, min_open=True),
        default=0.95,
        metavar="SHARE",
        help="Target share of familiar images that get an answer.",
    ),
    option(
        "--coverage-per",
        type=click.Choice(["image", "attribute"]),
        default="image",
        help="Whether this share is answered for all attributes, or for each.",
    ),
    option(
        "--unrelated",
        is_flag=True,
        help="Treat the images as unrelated; report how many are marked unknown.",
    ),
    option(
        "--annotate",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="Save copies of the images with their classes written on.",
    ),
)
@output(spreadsheet_safe)
def predict(images: tuple[str, ...], as_json: bool, spreadsheet_safe: bool, **options: Any) -> None:
    """Predict the attributes of images.

    Prints CSV or, with --json, one JSON object per image and line. An image is marked unknown if
    it is unlike the training images or the prediction is unusually uncertain. Without --run,
    the run with the best out-of-fold accuracy on training images is used.
    """
    if as_json and spreadsheet_safe:
        raise UsageError("--spreadsheet-safe only applies to CSV. Remove it, or omit --json.")
    answers = featurepipe.predict(images, **options)
    if not as_json:
        from featurepipe.reports.csv_text import csv_text

        write(csv_text(answers, "%.6g", spreadsheet_safe=spreadsheet_safe))
        return
    for image, rows in answers.groupby("image", sort=False):
        write_json(_answer(str(image), rows), indent=None)


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
