"""`featurepipe report`."""

from typing import Any

import cloup

import featurepipe
from featurepipe.commands.options import examples, option, output, spreadsheet_safe
from featurepipe.commands.terminal import write_board


@cloup.command(epilog=examples("report", "report --attribute color", "report --json"))
@cloup.option_group(
    "Table",
    option(
        "--attribute",
        metavar="NAME",
        show_default="all attributes together",
        help="Attribute whose figures to show.",
    ),
    option("--full", is_flag=True, help="Show all attributes and figures."),
)
@output(spreadsheet_safe)
def report(as_json: bool, full: bool, attribute: str | None = None, **options: Any) -> None:
    """Compare all runs of the workspace and write leaderboard.csv.

    Runs of one split are compared on the same test images. Intervals are 95 % confidence
    intervals; a run is tied with the best where the test images cannot tell them apart. The CSV
    has all figures of all attributes.
    """
    board = featurepipe.report(**options)
    write_board(board, attribute=attribute, full=full, as_json=as_json)
