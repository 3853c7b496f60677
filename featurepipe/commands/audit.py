"""`featurepipe audit`."""

from typing import Any

import cloup

import featurepipe
from featurepipe.commands.options import examples, memory, output, run, spreadsheet_safe
from featurepipe.commands.terminal import write_findings


@cloup.command(epilog=examples("audit", "audit --run xception-bagged-sgd --json"))
@cloup.option_group("Model", run)
@cloup.option_group("Computation", memory)
@output(spreadsheet_safe)
def audit(as_json: bool, **options: Any) -> None:
    """Find likely label errors, outliers and duplicates, and write audit.csv.

    Labels of training images are checked by heads that were fitted without them; outliers and
    duplicates are found by their features. Nothing is changed: look at the images, correct the
    labels and fit again.
    """
    write_findings(featurepipe.audit(**options), as_json)
