"""Runs -> the board."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from featurepipe.files import replacing
from featurepipe.predictions import ALL, Predictions
from featurepipe.reports.attribute_predictions import AttributePredictions
from featurepipe.reports.figures import FIGURES, MEASURED, evaluate
from featurepipe.reports.paired_tests import tied_in_accuracy, tied_in_log_loss
from featurepipe.reports.series import SPREADS, summarise_repeats

_OF_RUN = ("run", "backbone", "view", "weights", "head", "solver", "calibrate", "task")
_BY_ATTRIBUTE = ("backbone", "view", "weights", "n_train", "selection_accuracy")
_COSTS = (
    "extract_images_per_s",
    "fit_s",
    "predict_ms_per_image",
    "model_bytes",
    "n_parameters",
    "epochs",
    "peak_memory_bytes",
    "predict_images_per_s",
)
_KEY = ("run", "attribute")
_COUNTS = (
    "n_train",
    "n_test",
    "n_unseen",
    "model_bytes",
    "n_parameters",
    "epochs",
    "peak_memory_bytes",
)
_TIES: dict[str, Callable[[Sequence[AttributePredictions]], list[bool]]] = {
    "tied_with_best": tied_in_accuracy,
    "log_loss_tied_with_best": tied_in_log_loss,
}
_AFTER = {
    **{f"{name}_high": [f"{name}_sd"] for name in SPREADS},
    "accuracy_high": ["accuracy_sd", "tied_with_best"],
    "log_loss_high": ["log_loss_sd", "log_loss_tied_with_best"],
}

COLUMNS = (
    *_OF_RUN,
    "attribute",
    "split",
    "n_train",
    "n_test",
    "interval",
    "selection_accuracy",
    *(column for figure in FIGURES for column in (figure, *_AFTER.get(figure, ()))),
    *_COSTS,
)
_WORDS = (*_OF_RUN, "attribute", "split", "interval")

# The terminal shows what most is asked for first, and the intervals of these alone.
_FIRST = (
    "accuracy",
    "tied_with_best",
    "log_loss",
    "log_loss_tied_with_best",
    "n_unseen",
    "unseen_accuracy",
    "selection_accuracy",
    "interval",
    "n_train",
    "n_test",
)
_WITH_INTERVAL = ("accuracy", "log_loss", "unseen_accuracy")
_LEFT_OUT = {f"{name}_{end}" for name in MEASURED for end in ("low", "high", "sd")}


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
        right first. Runs of one family, which differ in the repeat of the split
        alone, have further rows under the family's name, with ``splits`` in the
        column ``interval``: see `featurepipe.reports.series`.

        ``n_parameters``, ``epochs`` and ``peak_memory_bytes`` (of training) are those of a
        network trained end to end; heads have none. ``predict_images_per_s`` is
        ``1000 / predict_ms_per_image``.

        ``tied_with_best`` and ``log_loss_tied_with_best`` are for the runs of one
        split that answered the same images: see `featurepipe.reports.paired_tests`.
    """
    runs = list(runs)
    by_run = [_rows(run) for run in runs]
    by_family: dict[Hashable, list[int]] = {}
    for position, run in enumerate(runs):
        by_family.setdefault(run.info.get("family", position), []).append(position)
    summaries = [
        _summary(runs[members[0]].info, [by_run[member] for member in members])
        for members in by_family.values()
        if len(members) > 1
    ]
    _compare(runs, by_run)
    rows = [row for rows in sorted(by_run + summaries, key=_place) for row in rows]
    board = pd.DataFrame(rows, columns=list(COLUMNS))
    types = dict.fromkeys(COLUMNS, "float64") | dict.fromkeys(_COUNTS, "Int64")
    types |= dict.fromkeys(_TIES, "boolean") | dict.fromkeys(_WORDS, "object")
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
    """The board for a terminal, split by split.

    Parameters
    ----------
    board : pandas.DataFrame
    width : int
        Characters a line. Columns that do not fit follow in further blocks,
        each beginning with run and attribute.

    Returns
    -------
    str
        Without the columns that are empty in all of a split's rows; the intervals
        of accuracies and log-loss in their figure's cell, others left out.
    """
    of_splits = board.groupby("split", sort=False, dropna=False)
    return "\n\n".join(
        f"Split {split}\n\n{_format_split(rows, width)}" for split, rows in of_splits
    )


def _format_split(board: pd.DataFrame, width: int) -> str:
    says_nothing = board.isna().all() | (board.eq(0).all() & (board.columns == "n_unseen"))
    last = (*_OF_RUN, "split")
    order = [*_KEY, *_FIRST, *(name for name in COLUMNS if name not in last), *_OF_RUN]
    shown = [name for name in dict.fromkeys(order) if not says_nothing[name]]
    cells = {name: [name, *_cells(board, name)] for name in shown if name not in _LEFT_OUT}
    padded = {name: _padded(column, left=name in _KEY) for name, column in cells.items()}
    tables = []
    for block in _blocks(padded, width):
        lines = zip(*(padded[name] for name in (*_KEY, *block)), strict=True)
        tables.append("\n".join(" ".join(line).rstrip() for line in lines))
    return "\n\n".join(tables)


def _rows(run: EvaluatedRun) -> list[dict[str, Any]]:
    info = run.info
    of_run = {name: info.get(name) for name in (*_OF_RUN, "split", *_COSTS)}
    of_run |= {name: info.get("settings", {}).get(name) for name in ("solver", "calibrate")}
    ms_per_image = info.get("predict_ms_per_image")
    of_run["predict_images_per_s"] = 1000 / ms_per_image if ms_per_image else None
    by_attribute = {name: info.get(name, {}) for name in _BY_ATTRIBUTE}
    return [
        {
            **of_run,
            **figures,
            **{name: of.get(figures["attribute"], np.nan) for name, of in by_attribute.items()},
        }
        for figures in evaluate(run.predictions)
    ]


def _summary(
    info: Mapping[str, Any], of_runs: Sequence[Sequence[Mapping[str, Any]]]
) -> list[dict[str, Any]]:
    names = {"run": info["family"], "split": f"{info['series']} ({len(of_runs)} splits)"}
    return [summarise_repeats(rows) | names for rows in zip(*of_runs, strict=True)]


def _compare(runs: Sequence[EvaluatedRun], by_run: Sequence[list[dict[str, Any]]]) -> None:
    """Add to the rows which of them are tied with the best."""
    comparable: dict[Hashable, list[tuple[dict[str, Any], AttributePredictions]]] = {}
    for run, rows in zip(runs, by_run, strict=True):
        test = run.predictions.select("test")
        for row in rows:
            answers = AttributePredictions.of(test, row["attribute"])
            key = row["split"], row["attribute"], _question(answers.predictions)
            comparable.setdefault(key, []).append((row, answers))
    for entries in comparable.values():
        rows, of_runs = zip(*entries, strict=True)
        if len(rows) > 1 and len(of_runs[0]):
            for name, tied in _TIES.items():
                for row, is_tied in zip(rows, tied(of_runs), strict=True):
                    row[name] = is_tied


def _question(predictions: Predictions) -> Hashable:
    """What was asked: the images and their true labels."""
    truth = [
        (name, each.classes, each.indicator.tobytes()) for name, each in predictions.labels.items()
    ]
    return predictions.ids.tobytes(), tuple(truth)


def _place(rows: Sequence[Mapping[str, Any]]) -> tuple[str, float, str]:
    accuracy = next(row["accuracy"] for row in rows if row["attribute"] == ALL)
    worst_last = np.inf if np.isnan(accuracy) else -accuracy
    return str(rows[0]["split"]), worst_last, str(rows[0]["run"])


def _cells(board: pd.DataFrame, name: str) -> list[str]:
    cells = [_cell(value) for value in board[name]]
    if name not in _WITH_INTERVAL:
        return cells
    lows, highs = board[f"{name}_low"], board[f"{name}_high"]
    return [
        cell if pd.isna(low) else f"{figure:.3f} [{low:.3f}, {high:.3f}]"
        for cell, figure, low, high in zip(cells, board[name], lows, highs, strict=True)
    ]


def _cell(value: Any) -> str:
    if pd.isna(value):
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
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
