"""The board as tables of a page: one a split or series, with intervals drawn on one scale."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup

from featurepipe.predictions import ALL
from featurepipe.reports.board_advice import run_to_take, series_advice
from featurepipe.reports.board_columns import feature_notes, features_text
from featurepipe.reports.page.isolated_names import named, sentence
from featurepipe.reports.page.svg import Scale, line, text
from featurepipe.reports.terminal_board import split_title
from featurepipe.reports.terminal_text import MISSING, duration, figure, percent

_WIDTH_PX, _LINE_PX, _TICK_PX = 150, 16, 42
_LEAST_RANGE = 0.04
_NOTE_WIDTH = 400
NETWORK = "none: network on pixels"
EVERY = "all together"
"""Stands for all attributes together in the board."""


@dataclass(frozen=True)
class BoardCell:
    """What a cell shows, and the number that sorts it; None where there is none."""

    text: str
    value: float | None
    drawing: str = ""


@dataclass(frozen=True)
class BoardRow:
    """A row of the board.

    Attributes
    ----------
    run, attribute, features, head : str
    is_taken, is_current : bool
    standing : str
        ``"best"``, ``"tied"``, ``"less accurate"``, or empty if it was not compared.
    cells : dict of str to BoardCell
        By column.
    """

    run: str
    attribute: str
    features: str
    head: str
    is_taken: bool
    is_current: bool
    standing: str
    cells: dict[str, BoardCell]


@dataclass(frozen=True)
class BoardTable:
    """The rows of one split or series.

    Attributes
    ----------
    split, title : str
    is_series : bool
    advice : Markup
        Of a series; empty for a split.
    notes : list of str
        What the first runs read.
    columns : dict of str to str
        Headings of the columns of numbers.
    axis : Markup
        The scale that the intervals are drawn on.
    low, high : str
        Its ends.
    rows : list of BoardRow
    n_runs : int
    """

    split: str
    title: str
    is_series: bool
    advice: Markup
    notes: list[str]
    columns: dict[str, str]
    axis: Markup
    low: str
    high: str
    rows: list[BoardRow]
    n_runs: int


def board_tables(board: pd.DataFrame, first: str, taken: str | None) -> list[BoardTable]:
    """All tables, that of one split first.

    Parameters
    ----------
    board : pandas.DataFrame
        What `featurepipe.reports.board.leaderboard` returns.
    first : str
        Name of the split.
    taken : str or None
        The run of this split to take; None: that of `run_to_take`.
    """
    by_split = {str(name): rows for name, rows in board.groupby("split", sort=False)}
    names = sorted(by_split, key=lambda name: (name != first, not _is_series(by_split[name])))
    return [_table(by_split[name], taken if name == first else None) for name in names]


def is_network(row: pd.Series) -> bool:
    """Whether a row of the board is that of a trained network.

    Parameters
    ----------
    row : pandas.Series
    """
    return bool(pd.notna(row["n_parameters"]))


def ranked(rows: pd.DataFrame, attribute: str = ALL) -> pd.DataFrame:
    """Rows of one attribute, the most accurate first.

    Parameters
    ----------
    rows : pandas.DataFrame
        Rows of one split or series.
    attribute : str
    """
    return _by_accuracy(rows[rows["attribute"] == attribute])


def _by_accuracy(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.sort_values("accuracy", ascending=False, kind="stable", ignore_index=True)


def _is_series(rows: pd.DataFrame) -> bool:
    return bool(rows["interval"].iloc[0] == "splits")


def _table(rows: pd.DataFrame, taken: str | None) -> BoardTable:
    together, is_series = ranked(rows), _is_series(rows)
    if taken is None and (position := run_to_take(together)) is not None:
        taken = str(together.iloc[position]["run"])
    attributes = rows.loc[rows["attribute"] != ALL, "attribute"].unique()
    has_unseen = bool(rows["unseen_accuracy"].notna().any())
    scale = _scale(rows)
    shown = [
        row
        for run in together["run"]
        for row in _rows_of(rows[rows["run"] == run], only_together=len(attributes) < 2)
    ]
    best = {
        name: _best_tied(rows[rows["attribute"] == name]) for name in rows["attribute"].unique()
    }
    columns = {
        "accuracy": "Accuracy (95\N{NO-BREAK SPACE}%\N{NO-BREAK SPACE}CI)",
        **(
            {"unseen": "On held-out combinations (95\N{NO-BREAK SPACE}%\N{NO-BREAK SPACE}CI)"}
            if has_unseen
            else {}
        ),
        "selection": "Selection accuracy",
        "log_loss": "Log-loss",
        "fit": "Time to fit",
        "ms": "ms per image",
    }
    return BoardTable(
        split=str(rows["split"].iloc[0]),
        title=split_title(together, ALL),
        is_series=is_series,
        advice=sentence(series_advice(together, ALL, named) if is_series else ""),
        notes=feature_notes(
            rows, together[together["run"].map(_has_various(rows))], ALL, _NOTE_WIDTH
        ),
        columns=columns,
        axis=_axis(scale),
        low=percent(scale.low),
        high=percent(scale.high),
        rows=[_row(row, scale, taken, best, has_unseen) for row in shown],
        n_runs=len(together),
    )


def _has_various(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Whether the attributes of each run read different features."""
    of_attributes = rows[rows["attribute"] != ALL]
    reads = of_attributes[["backbone", "view", "weights"]].astype(str).agg(" ".join, axis=1)
    return reads.groupby(of_attributes["run"]).nunique() > 1


def _rows_of(rows: pd.DataFrame, *, only_together: bool) -> Sequence[pd.Series]:
    """Rows of a run: all attributes together first; with one attribute, both say the same."""
    together = [row for _, row in rows[rows["attribute"] == ALL].iterrows()]
    return together + [
        row for _, row in rows.iterrows() if row["attribute"] != ALL and not only_together
    ]


def _row(
    row: pd.Series,
    scale: Scale,
    taken: str | None,
    best: dict[str, str | None],
    has_unseen: bool,
) -> BoardRow:
    cells = {
        "accuracy": _share(row, "accuracy", scale, "seen"),
        "unseen": _share(row, "unseen_accuracy", scale, "unseen"),
        "selection": _plain(percent(row["selection_accuracy"]), row["selection_accuracy"]),
        "log_loss": _plain(_with_deviation(figure(row["log_loss"]), row), row["log_loss"]),
        "fit": _plain(duration(row["fit_s"]), row["fit_s"]),
        "ms": _plain(figure(row["predict_ms_per_image"]), row["predict_ms_per_image"]),
    }
    if not has_unseen:
        del cells["unseen"]
    attribute = str(row["attribute"])
    return BoardRow(
        run=str(row["run"]),
        attribute=EVERY if attribute == ALL else attribute,
        features=NETWORK if is_network(row) else features_text(row),
        head=str(row["head"]),
        is_taken=row["run"] == taken,
        is_current=bool(row["current"]),
        standing=_standing(row, best[attribute]),
        cells=cells,
    )


def _best_tied(rows: pd.DataFrame) -> str | None:
    """The most accurate of the runs that were compared."""
    compared = rows[rows["tied_with_best"].fillna(False).astype(bool)]
    return None if compared.empty else str(_by_accuracy(compared).iloc[0]["run"])


def _standing(row: pd.Series, best: str | None) -> str:
    if row["tied_with_best"] is pd.NA or pd.isna(row["tied_with_best"]):
        return ""
    if row["run"] == best:
        return "best"
    return "tied" if row["tied_with_best"] else "less accurate"


def _share(row: pd.Series, name: str, scale: Scale, css: str) -> BoardCell:
    value, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
    if pd.isna(value):
        return BoardCell(MISSING, None)
    deviation = row.get(f"{name}_sd", np.nan)
    said = percent(value)
    if pd.notna(deviation):
        said = f"{said} ± {100 * deviation:.1f} %"
    if pd.notna(low):
        said = f"{said} ({100 * low:.1f}–{100 * high:.1f})"
    return BoardCell(said, float(value), _whisker(value, low, high, scale, css))


def _with_deviation(said: str, row: pd.Series) -> str:
    deviation = row["log_loss_sd"]
    return said if pd.isna(deviation) else f"{said} ± {figure(deviation)}"


def _plain(said: str, value: float) -> BoardCell:
    return BoardCell(said, None if pd.isna(value) else float(value))


def _scale(rows: pd.DataFrame) -> Scale:
    names = [f"{name}{end}" for name in ("accuracy", "unseen_accuracy")
             for end in ("", "_low", "_high")]  # fmt: skip
    values = rows[names].to_numpy(np.float64)
    values = values[~np.isnan(values)]
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    margin = max(0.04 * (high - low), (_LEAST_RANGE - (high - low)) / 2, 0.002)
    return Scale(max(low - margin, 0.0), min(high + margin, 1.0), 5, _WIDTH_PX - 5)


def _axis(scale: Scale) -> Markup:
    """The scale of the intervals, above them."""
    places = [
        (scale(value), value)
        for value in scale.ticks(4)
        if _TICK_PX / 2 <= scale(value) <= _WIDTH_PX - _TICK_PX / 2
    ]
    if len(places) > 1 and places[1][0] - places[0][0] < _TICK_PX:
        places = places[::2]
    ticks = [
        text(x, 11, f"{100 * value:g} %", anchor="middle", css="quiet")
        + line([(x, 14), (x, 18)], css="axis")
        for x, value in places
    ]
    return Markup(
        '<svg width="{w}" height="18" viewBox="0 0 {w} 18" aria-hidden="true">{}</svg>'
    ).format(Markup().join(ticks), w=_WIDTH_PX)


def _whisker(value: float, low: float, high: float, scale: Scale, css: str) -> Markup:
    y = _LINE_PX / 2
    ends = (
        Markup('<path d="M{} {y}H{}"/>').format(scale(low), scale(high), y=y)
        if pd.notna(low)
        else Markup()
    )
    # The text beside says the same.
    return Markup(
        '<svg class="interval {}" width="{w}" height="{h}" viewBox="0 0 {w} {h}" '
        'aria-hidden="true">{}<circle cx="{}" cy="{}" r="4"/></svg>'
    ).format(css, ends, scale(value), y, w=_WIDTH_PX, h=_LINE_PX)
