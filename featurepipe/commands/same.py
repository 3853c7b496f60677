"""`featurepipe same`."""

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
    # Imported late: pandas is slow to import.
    import pandas as pd

    from featurepipe.reports.csv_text import csv_text

    # As objects, since names of files need not be text.
    table = pd.DataFrame([[image, other]], columns=["image", "other_image"], dtype=object)
    write(csv_text(table.assign(same=probability), "%.6g"))
