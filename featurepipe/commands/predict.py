"""`featurepipe predict`."""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import cloup

import featurepipe
from featurepipe.commands.options import (
    answers,
    examples,
    option,
    output,
    run,
    spreadsheet_safe,
    weights,
)
from featurepipe.commands.terminal import write, write_json
from featurepipe.errors import ExtractionError, UsageError
from featurepipe.progress import tell

if TYPE_CHECKING:
    import pandas as pd


_MAX_SHOWN = 100
"""Most images without an answer that are named on standard error; the output has all."""


@cloup.command(
    epilog=examples(
        "predict new/",
        'predict "new/*.jpg" --annotate out/ --contact-sheet out/sheet.jpg',
        "predict new/ --html answers.html > answers.csv",
        "predict new/ --explain evidence/",
        "predict photo.jpg --run xception-bagged-sgd --json",
        "predict holiday/ --unrelated --coverage 0.9",
        "predict - < paths.txt",
    )
)
@cloup.argument(
    "images", nargs=-1, required=True, help="Files, folders or patterns; - reads paths, one a line."
)
@cloup.option_group(
    "Model",
    run,
    weights,
)
@answers(
    option(
        "--unrelated",
        is_flag=True,
        help="Treat the images as unrelated; report how many are marked unknown.",
    ),
)
@cloup.option_group(
    "Pictures",
    option(
        "--annotate",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="Save copies of the images with the answers written below.",
    ),
    option(
        "--contact-sheet",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Save one picture of all images and answers, as .jpg or .png.",
    ),
    option(
        "--html",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Save a page of all images with bars of their top classes.",
    ),
    option(
        "--explain",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="Save pictures of where the evidence for each answer lies.",
    ),
)
@output(spreadsheet_safe)
def predict(images: tuple[str, ...], as_json: bool, spreadsheet_safe: bool, **options: Any) -> None:
    """Predict the attributes of images.

    Prints CSV or, with --json, one JSON object per image and line. An image is marked unknown if
    it is unlike the training images or the prediction is unusually uncertain. Without --run,
    the run with the best out-of-fold accuracy on training images is used, among those fitted on
    the present labels and images. If an image is missing or unreadable, the others are predicted,
    and the exit code is 1.
    """
    if as_json and spreadsheet_safe:
        raise UsageError("--spreadsheet-safe only applies to CSV. Remove it, or omit --json.")
    table = featurepipe.predict(list(_paths(images)), **options)
    if as_json:
        from featurepipe.workflows.answering import answer_json

        for image, rows in table.groupby("image", sort=False):
            best, refused = rows.to_dict("records"), rows["refused"].iloc[0]
            write_json(answer_json(str(image), best, refused), indent=None)
    else:
        from featurepipe.reports.csv_text import csv_text

        write(csv_text(table, "%.6g", spreadsheet_safe=spreadsheet_safe))
    _require_answers(table)


def _paths(images: Sequence[str]) -> Iterator[str]:
    """The paths; those of standard input in place of ``-``."""
    for image in images:
        if image != "-":
            yield image
            continue
        lines = sys.stdin.buffer.read().split(b"\n")
        if not any(lines):
            raise UsageError("Standard input has no path. Write one a line, or omit -.")
        yield from (os.fsdecode(line) for line in lines if line)


def _require_answers(answers: "pd.DataFrame") -> None:
    """Name the images without an answer, and stop if there are any."""
    refused = answers[answers["refused"] != ""]
    if refused.empty:
        return
    reasons = zip(refused["image"], refused["refused"], strict=True)
    shown = [f"  {image}: {reason}" for image, reason in reasons]
    n_more = len(shown) - _MAX_SHOWN
    tell(shown[:_MAX_SHOWN] + ([f"  … and {n_more:,} more"] if n_more > 0 else []))
    raise ExtractionError(
        f"No answer for {len(shown):,} of {answers['image'].nunique():,} images (see above). The "
        "others are predicted."
    )
