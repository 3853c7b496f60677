"""report(): runs -> leaderboard.csv."""

import logging
from pathlib import Path

import pandas as pd

from featurepipe.reports.board import leaderboard, write_leaderboard
from featurepipe.runs.choosing import all_runs, outdated_runs
from featurepipe.runs.run_check import split_problems
from featurepipe.words import counted, examples
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)


def report(*, workspace: Path | str = ".", spreadsheet_safe: bool = False) -> pd.DataFrame:
    """Put every run of a workspace on one board, and write it to leaderboard.csv.

    Runs that are damaged are left out, and splits that have changed are named, by a warning each.
    Another names the runs that were fitted on other labels or images than the present ones, whose
    rows say False under ``current``.

    Parameters
    ----------
    workspace : Path or str
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
    outdated = outdated_runs(runs, home)
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
    return board
