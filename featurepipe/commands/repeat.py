"""`featurepipe repeat`."""

from typing import Any

import cloup

import featurepipe
from featurepipe.commands.options import examples, jobs, output
from featurepipe.commands.terminal import write_runs


@cloup.command(epilog=examples("repeat xception-bagged-sgd"))
@cloup.argument("run", help="Name of a run of featurepipe fit.")
@cloup.option_group("Computation", jobs)
@output()
def repeat(run: str, as_json: bool, **options: Any) -> None:
    """Fit a run again and check that its numbers are the same.

    The split, the settings and the seed are those of the run. Nothing is written; if a number
    differs, the command fails and names what has changed since.
    """
    write_runs(featurepipe.repeat(run, **options), as_json)
