"""The columns of one split's table on the terminal."""

import pandas as pd

from featurepipe.predictions import ALL
from featurepipe.reports.series import VARIES
from featurepipe.reports.terminal_text import (
    Column,
    aligned,
    count,
    duration,
    figure,
    listed,
    percent,
    percent_with_interval,
    table_width,
)
from featurepipe.words import counted, visible

COSTS = ("log-loss", "fit", "ms/image")
"""Columns that a narrow terminal has no room for, the most important first."""

OLD = " (old)"
"""Beside the names of runs that were fitted on other labels or images than the present ones."""

_ALWAYS = ("#", "run", "accuracy", "=")
_BESIDE_SHORTENED_NAMES = ("unseen", "harmonic", *COSTS)
_BESIDE_WHOLE_NAMES = ("selection", "features", "head")
_NAMES = ("run", "features", "head")
_HEADERS = {"accuracy": "accuracy (95 % CI)", "=": "", "harmonic": "harmonic mean"}
_MIN_NAME = 24
_MAX_NOTES = 3
_NOTE_WIDTH = 80

Columns = dict[str, Column]


def board_columns(rows: pd.DataFrame) -> Columns:
    """Every column that the table could have, from left to right.

    Parameters
    ----------
    rows : pandas.DataFrame
        Rows of one split and attribute, the most accurate first.

    Returns
    -------
    dict of str to Column
        By name; without those that say nothing.
    """
    cells = {
        "#": [count(rank) for rank in rows["accuracy"].rank(method="min", ascending=False)],
        "run": [
            visible(name) + ("" if is_current else OLD)
            for name, is_current in zip(rows["run"], rows["current"], strict=True)
        ],
        "features": [visible(features_text(row)) for _, row in rows.iterrows()],
        "head": [visible(name) for name in rows["head"]],
        "accuracy": _accuracies(rows),
        "=": _tied_marks(rows),
        "unseen": _with_deviations(rows, "unseen_accuracy"),
        "harmonic": aligned(percent(share) for share in rows["unseen_harmonic_mean"]),
        "selection": aligned(percent(share) for share in rows["selection_accuracy"]),
        "log-loss": _with_deviations(rows, "log_loss"),
        "fit": aligned(duration(seconds) for seconds in rows["fit_s"]),
        "ms/image": aligned(figure(ms) for ms in rows["predict_ms_per_image"]),
    }
    if not any(cells["="]):
        del cells["="]
    if rows["unseen_accuracy"].isna().all():
        del cells["unseen"], cells["harmonic"]
    return {
        name: Column(_HEADERS.get(name, name), column, is_name=name in _NAMES)
        for name, column in cells.items()
    }


def columns_that_fit(columns: Columns, width: int) -> Columns:
    """The columns to show, the most important first as long as there is room.

    Parameters
    ----------
    columns : dict of str to Column
    width : int
        For those that most people need, names of runs may be shortened.
    """
    chosen = set(_ALWAYS)
    for name in (*_BESIDE_SHORTENED_NAMES, *_BESIDE_WHOLE_NAMES):
        tried = [column for other, column in columns.items() if other in {*chosen, name}]
        spare = 0
        if name in _BESIDE_SHORTENED_NAMES:
            spare = max(0, columns["run"].width - _MIN_NAME)
        if table_width(tried) - spare <= width:
            chosen.add(name)
    return {name: column for name, column in columns.items() if name in chosen}


def feature_notes(
    rows: pd.DataFrame, ranked: pd.DataFrame, attribute: str, width: int = _NOTE_WIDTH
) -> list[str]:
    """Which features the runs read whose names do not say it.

    Parameters
    ----------
    rows : pandas.DataFrame
        All rows of a split.
    ranked : pandas.DataFrame
        Those of the attribute that is shown, the most accurate first.
    attribute : str
    width : int
        Characters for what a run reads.

    Returns
    -------
    list of str
        A sentence for each of the first runs, and how many more there are.
    """
    notes = []
    for _, run in ranked.iterrows():
        features = features_text(run)
        names = features.replace("+", ":").split(":")
        if features == "pixels" or all(name in run["run"] for name in names):
            continue
        of_run = rows[(rows["run"] == run["run"]) & (rows["attribute"] != ALL)]
        by_attribute = [
            f"{features_text(row)} for {row['attribute']}" for _, row in of_run.iterrows()
        ]
        reads = by_attribute if attribute == ALL else [features]
        notes.append(f"{visible(run['run'])} reads {listed(reads, width)}.")
    n_left = len(notes) - _MAX_NOTES
    more = [f"{counted(n_left, 'more run')} choose features in this way."] if n_left > 0 else []
    return notes[:_MAX_NOTES] + more


def features_text(row: pd.Series) -> str:
    """Backbones and views, such as ``"hsv_histogram+mobilenet_v2:grey"``; rgb goes unsaid.

    Parameters
    ----------
    row : pandas.Series
        A row of the board.
    """
    if not row["backbone"] or pd.isna(row["backbone"]):
        return "pixels"
    if VARIES in (row["backbone"], row["view"]):
        return "different stores"
    backbones, views = str(row["backbone"]).split("+"), str(row["view"]).split("+")
    if len(backbones) != len(views):
        return f"{row['backbone']}:{row['view']}"
    return "+".join(
        backbone if view == "rgb" else f"{backbone}:{view}"
        for backbone, view in zip(backbones, views, strict=True)
    )


def _accuracies(rows: pd.DataFrame) -> list[str]:
    cells = []
    for _, row in rows.iterrows():
        cell = percent_with_interval(row["accuracy"], row["accuracy_low"], row["accuracy_high"])
        cells.append(_with_deviation(cell, row["accuracy_sd"]))
    return aligned(cells)


def _with_deviations(rows: pd.DataFrame, name: str) -> list[str]:
    cells = []
    for value, deviation in zip(rows[name], rows[f"{name}_sd"], strict=True):
        if name == "log_loss":
            cell = figure(value) + ("" if pd.isna(deviation) else f" ± {figure(deviation)}")
        else:
            cell = _with_deviation(percent(value), deviation)
        cells.append(cell)
    return aligned(cells)


def _with_deviation(cell: str, deviation: float) -> str:
    return cell if pd.isna(deviation) else cell.replace(" %", f" ± {100 * deviation:.1f} %", 1)


def _tied_marks(rows: pd.DataFrame) -> list[str]:
    tied = [is_tied is not pd.NA and bool(is_tied) for is_tied in rows["tied_with_best"]]
    # The best run alone is tied with nothing.
    return ["=" if is_tied and sum(tied) > 1 else "" for is_tied in tied]
