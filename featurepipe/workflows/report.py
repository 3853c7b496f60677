"""report(): runs -> leaderboard.csv and report.html."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd

from featurepipe.errors import FeaturepipeError, UnknownNameError
from featurepipe.predictions import ALL
from featurepipe.reports.board import leaderboard, write_leaderboard
from featurepipe.reports.page.rendering import write_page
from featurepipe.reports.page.report_page import report_page
from featurepipe.reports.terminal_text import byte_size
from featurepipe.runs.changes import Present
from featurepipe.runs.choosing import all_runs, best_of_present, outdated_runs
from featurepipe.runs.run_check import split_problems
from featurepipe.runs.run_folder import Run
from featurepipe.runs.run_info import read_run_info
from featurepipe.words import counted, examples
from featurepipe.workflows.page_facts import page_data, page_run, thumbnails
from featurepipe.workflows.page_features import PageFeatures
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)


def report(
    *, workspace: Path | str = ".", html: bool = True, spreadsheet_safe: bool = False
) -> pd.DataFrame:
    """Put every run of a workspace on one board: leaderboard.csv, and a page about it.

    Runs that are damaged are left out, and splits that have changed are named, by a warning each.
    Another names the runs that were fitted on other labels or images than the present ones, whose
    rows say False under ``current``.

    Parameters
    ----------
    workspace : Path or str
    html : bool
        Whether to write report.html: one file that needs no other and makes no request.
    spreadsheet_safe : bool
        Whether to put an apostrophe before each text in leaderboard.csv that a spreadsheet would
        take for a formula.

    Returns
    -------
    pandas.DataFrame
        One row for each run and attribute, and for ``all``; see
        `featurepipe.reports.board.COLUMNS`.

    Raises
    ------
    WorkspaceError
        If there is no run yet, or none can be read.
    """
    home = Workspace(workspace)
    runs = all_runs(home)
    for problem in split_problems(runs, home):
        logger.warning("%s", problem)
    present = Present.if_known(home)
    outdated = outdated_runs(runs, present)
    if outdated:
        first, changed = next(iter(outdated.items()))
        logger.warning(
            "%s of %s fitted on other labels or images than the present ones (%s). Since %s was: "
            "%s. Fit again.",
            len(outdated),
            f"{counted(runs, 'run')} {'was' if len(outdated) == 1 else 'were'}",
            examples(list(outdated)),
            first,
            "; ".join(changed),
        )
    board = leaderboard(runs, outdated)
    write_leaderboard(board, home.leaderboard, spreadsheet_safe=spreadsheet_safe)
    logger.info("Wrote %s: %d runs.", home.leaderboard, len(runs))
    if html:
        write_page(_page(home, runs, board, present, outdated), home.page)
        size = byte_size(home.page.stat().st_size)
        logger.info("Wrote %s: %s. Open it in a browser.", home.page, size)
    return board


def require_attribute(attribute: str, workspace: Path | str) -> None:
    """Stop unless a run of a workspace has an attribute; nothing is written.

    Parameters
    ----------
    attribute : str
        Or ``"all"``.
    workspace : Path or str

    Raises
    ------
    UnknownNameError
    """
    known: dict[str, None] = {}
    for folder in Workspace(workspace).runs():
        # `report` itself says what is wrong with a run.
        with suppress(FeaturepipeError):
            known |= dict.fromkeys(read_run_info(folder).attributes)
    if known and attribute not in {*known, ALL}:
        raise UnknownNameError("attribute", attribute, [ALL, *known])


def _page(
    home: Workspace,
    runs: Sequence[Run],
    board: pd.DataFrame,
    present: Present | None,
    outdated: Mapping[str, list[str]],
) -> str:
    fitting = [run for run in runs if run.name not in outdated]
    if present is not None and fitting:
        taken, _ = best_of_present(fitting, present)
        split, name = taken.info.split.name, taken.name
    else:
        split, name = min(runs, key=lambda run: run.info.split.number).info.split.name, None
    of_answer = next((run for run in runs if run.name == name), None)
    features = None if of_answer is None else PageFeatures.of(of_answer, home)
    return report_page(
        board,
        [page_run(run, outdated.get(run.name, [])) for run in runs],
        page_data(runs, present),
        title=home.root.absolute().name,
        split=split,
        taken=name,
        thumbnails=thumbnails(present),
        maps=[] if features is None else features.maps(),
        find_nearest=None if features is None else features.nearest,
    )
