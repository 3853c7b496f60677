"""`featurepipe same`."""

import csv
import io
from typing import Any

import cloup

import featurepipe
from featurepipe.commands.options import examples, option, output
from featurepipe.commands.terminal import write, write_json


@cloup.command(epilog=examples("same one.jpg other.jpg", "same one.jpg other.jpg --json"))
@cloup.argument("image", help="Image file.")
@cloup.argument("other", help="Image file to compare it with.")
@cloup.option_group(
    "Model",
    option("--run", metavar="RUN", show_default="the best", help="Run of featurepipe train pair."),
)
@output()
def same(image: str, other: str, as_json: bool, **options: Any) -> None:
    """Estimate the probability that two images have the same labels.

    It needs a run that was trained to compare images: featurepipe train pair. Without --run, the
    most accurate of these is used.
    """
    probability = featurepipe.same(image, other, **options)
    if as_json:
        write_json({"image": image, "other_image": other, "same": probability}, indent=None)
        return
    lines = io.StringIO()
    table = csv.writer(lines, lineterminator="\n")
    table.writerows([["image", "other_image", "same"], [image, other, f"{probability:.6g}"]])
    write(lines.getvalue())
