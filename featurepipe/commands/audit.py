"""`featurepipe audit`."""

from typing import TYPE_CHECKING, Any

import cloup

import featurepipe
from featurepipe.commands.options import examples, output, run
from featurepipe.commands.terminal import records, write, write_json

if TYPE_CHECKING:
    import pandas as pd


@cloup.command(epilog=examples("audit", "audit --run xception-bagged-sgd --json"))
@cloup.option_group("Model", run)
@output()
def audit(as_json: bool, **options: Any) -> None:
    """Find likely label errors, outliers and duplicates, and write audit.csv.

    Labels of training images are checked by heads that were fitted without them; outliers and
    duplicates are found by their features. Nothing is changed: look at the images, correct the
    labels and fit again.
    """
    findings = featurepipe.audit(**options)
    if as_json:
        write_json(records(findings))
    else:
        write(_in_words(findings))


def _in_words(findings: "pd.DataFrame") -> str:
    lines = []
    for finding, count in findings["finding"].value_counts(sort=False).items():
        lines.append(f"{count} {finding}{'' if count == 1 else 's'}, such as:")
        first = findings[findings["finding"] == finding].head(3)
        lines += [f"  {row['image']}: {row['reason']}" for _, row in first.iterrows()]
    return "\n".join(lines) or "Found nothing suspicious."
