"""`featurepipe report`."""

from typing import Any

import cloup

import featurepipe
from featurepipe.commands.options import examples, option, output, spreadsheet_safe
from featurepipe.commands.terminal import write_board


@cloup.command(
    epilog=examples("report", "report --attribute color", "report --no-html", "report --json")
)
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
@output(
    option(
        "--no-html",
        "html",
        is_flag=True,
        flag_value=False,
        default=True,
        show_default=False,
        help="Omit report.html.",
    ),
    spreadsheet_safe,
)
def report(as_json: bool, full: bool, attribute: str | None = None, **options: Any) -> None:
    """Compare all runs of the workspace: a table, leaderboard.csv and report.html.

    Runs of one split are compared on the same test images. Intervals are 95 % confidence
    intervals; a run is tied with the best where the test images cannot tell them apart. The CSV
    has all figures of all attributes. The page has the answer, the data, the board and its
    pictures in one file, which needs no network.
    """
    if attribute is not None:
        from featurepipe.workflows.report import require_attribute

        require_attribute(attribute, options.get("workspace", "."))
    board = featurepipe.report(**options)
    write_board(board, attribute=attribute, full=full, as_json=as_json)
