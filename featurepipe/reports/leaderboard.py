"""Runs -> the board."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from featurepipe.files import replacing
from featurepipe.predictions import ALL, Predictions
from featurepipe.reports.evaluation import FIGURES, evaluate

_OF_RUN = ("run", "backbone", "view", "weights", "head", "task")
_BY_ATTRIBUTE = ("backbone", "view", "weights", "n_train", "selection_accuracy")
_COSTS = ("extract_images_per_s", "fit_s", "predict_ms_per_image", "model_bytes")
_KEY = ("run", "attribute")
_COUNTS = ("n_train", "n_test", "n_unseen", "model_bytes")

COLUMNS = (
    *_OF_RUN,
    "attribute",
    "split",
    "n_train",
    "n_test",
    "selection_accuracy",
    *FIGURES[1:],
    *_COSTS,
)


class EvaluatedRun(Protocol):
    """What the board needs of a run."""

    @property
    def info(self) -> Mapping[str, Any]:
        """Facts by column name; those that differ between attributes by attribute."""

    @property
    def predictions(self) -> Predictions:
        """Test rows and those of combinations that were held out."""


def leaderboard(runs: Iterable[EvaluatedRun]) -> pd.DataFrame:
    """One row for each run and attribute, and one for all attributes together.

    Parameters
    ----------
    runs : iterable of EvaluatedRun

    Returns
    -------
    pandas.DataFrame
        With the columns `COLUMNS`, missing where a figure does not apply. Runs
        of one split stand together, those with the most test images wholly
        right first.
    """
    by_run = [(run.info, _rows(run)) for run in runs]
    by_run.sort(key=lambda pair: _place(*pair))
    board = pd.DataFrame([row for _, rows in by_run for row in rows], columns=list(COLUMNS))
    is_figure = ~board.columns.isin([*_OF_RUN, "attribute", "split", *_COUNTS])
    types = dict.fromkeys(board.columns[is_figure], "float64") | dict.fromkeys(_COUNTS, "Int64")
    return board.astype(types)


def write_leaderboard(board: pd.DataFrame, path: Path) -> None:
    """Write the board as CSV, whole or not at all.

    Figures have six significant digits; a cell that does not apply is empty.

    Parameters
    ----------
    board : pandas.DataFrame
    path : Path

    Raises
    ------
    DiskFullError
        If the disk has no room left.
    """
    with replacing(path) as beside:
        board.to_csv(beside, index=False, float_format="%.6g", lineterminator="\n")


def format_leaderboard(board: pd.DataFrame, width: int) -> str:
    """The board for a terminal.

    Parameters
    ----------
    board : pandas.DataFrame
    width : int
        Characters a line. Columns that do not fit follow in further blocks,
        each beginning with run and attribute.

    Returns
    -------
    str
        Without the columns that are empty in every row.
    """
    says_nothing = board.isna().all() | (board.eq(0).all() & (board.columns == "n_unseen"))
    cells = {name: [name, *map(_cell, board[name])] for name in board.columns[~says_nothing]}
    padded = {name: _padded(column, left=name in _KEY) for name, column in cells.items()}
    tables = []
    for block in _blocks(padded, width):
        lines = zip(*(padded[name] for name in (*_KEY, *block)), strict=True)
        tables.append("\n".join(" ".join(line).rstrip() for line in lines))
    return "\n\n".join(tables)


def _rows(run: EvaluatedRun) -> list[dict[str, Any]]:
    info = run.info
    of_run = {name: info.get(name) for name in (*_OF_RUN, "split", *_COSTS)}
    return [
        {
            **of_run,
            **figures,
            **{name: info.get(name, {}).get(figures["attribute"]) for name in _BY_ATTRIBUTE},
        }
        for figures in evaluate(run.predictions)
    ]


def _place(info: Mapping[str, Any], rows: list[dict[str, Any]]) -> tuple[str, float, str]:
    accuracy = next(row["accuracy"] for row in rows if row["attribute"] == ALL)
    return str(info["split"]), np.inf if np.isnan(accuracy) else -accuracy, str(info["run"])


def _cell(value: Any) -> str:
    if pd.isna(value):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _padded(column: list[str], *, left: bool) -> list[str]:
    width = max(map(len, column))
    return [cell.ljust(width) if left else cell.rjust(width) for cell in column]


def _blocks(padded: Mapping[str, list[str]], width: int) -> list[list[str]]:
    """Names of the columns that fit beside the key, block after block."""
    blocks: list[list[str]] = [[]]
    for name in padded:
        if name in _KEY:
            continue
        line = " ".join(padded[each][0] for each in (*_KEY, *blocks[-1], name))
        if blocks[-1] and len(line) > width:
            blocks.append([])
        blocks[-1].append(name)
    return blocks
