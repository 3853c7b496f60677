"""report(): runs -> leaderboard.csv."""

import logging
from pathlib import Path

import pandas as pd

from featurepipe.errors import WorkspaceError
from featurepipe.reports.board import leaderboard, write_leaderboard
from featurepipe.runs.run_folder import load_run
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)


def report(*, workspace: Path | str = ".") -> pd.DataFrame:
    """Put every run of a workspace on one board and write it to leaderboard.csv.

    Parameters
    ----------
    workspace : Path or str

    Returns
    -------
    pandas.DataFrame
        One row per run and attribute, and one for ``all``; see
        `featurepipe.reports.board.COLUMNS`.

    Raises
    ------
    WorkspaceError
        If there is no run yet.
    RunError
        If a run is damaged.
    """
    place = Workspace(workspace)
    runs = [load_run(folder) for folder in place.runs()]
    if not runs:
        raise WorkspaceError(
            f"The workspace {place.root} holds no run yet. Make one: featurepipe fit"
        )
    board = leaderboard(runs)
    write_leaderboard(board, place.leaderboard)
    logger.info("Wrote %s: %d runs.", place.leaderboard, len(runs))
    return board
