"""The board, and the end of a fit, as short tables for a terminal."""

from collections.abc import Iterator, Sequence

import pandas as pd

from featurepipe.errors import UnknownNameError
from featurepipe.predictions import ALL
from featurepipe.reports.board_advice import run_to_take, series_advice, split_advice
from featurepipe.reports.board_columns import (
    COSTS,
    OLD,
    Columns,
    board_columns,
    columns_that_fit,
    feature_notes,
)
from featurepipe.reports.full_board import full_table
from featurepipe.reports.terminal_text import (
    GAP,
    MIN_WIDTH,
    MISSING,
    Column,
    aligned,
    count,
    duration,
    fitted,
    heading,
    listed,
    paragraph,
    percent,
    table_text,
    table_width,
)
from featurepipe.words import counted, visible

_MAX_SPLITS = 5
_MAX_ATTRIBUTES = 4


def board_text(
    board: pd.DataFrame,
    width: int = 100,
    *,
    attribute: str | None = None,
    full: bool = False,
    is_terminal: bool = False,
) -> str:
    """The board as short tables, one a split, and which run to take.

    Parameters
    ----------
    board : pandas.DataFrame
        What `featurepipe.reports.board.leaderboard` returns.
    width : int
        Characters a line, at least 60.
    attribute : str, optional
        The attribute to show; default: all of them together.
    full : bool
        Show every figure, and every attribute unless one is given.
    is_terminal : bool
        Whether escape sequences may be used.

    Returns
    -------
    str
        One line a run, ranked by accuracy on test images. The run to take has the best
        selection accuracy, as in `featurepipe.predict`. Runs over repeated splits are
        summarised in tables of their own. Unless `full` is set, at most five splits are
        shown: those with the most runs.

    Raises
    ------
    UnknownNameError
        If no run has the attribute.
    """
    width = max(width, MIN_WIDTH)
    attributes = board["attribute"].unique().tolist()
    if attribute is not None and attribute not in attributes:
        raise UnknownNameError("attribute", attribute, attributes)
    if attribute is not None:
        having = board["split"].isin(board.loc[board["attribute"] == attribute, "split"])
        board = board[having]
    is_series = board["interval"] == "splits"
    tables = [*_by_split(board[is_series]), *_by_split(board[~is_series])]
    if not tables:
        return "The board has no runs."
    if full:
        return _full_text(tables, width, attribute, is_terminal)
    return _short_text(tables, width, attribute or ALL, is_terminal)


def runs_table(summary: pd.DataFrame, width: int = 100, *, is_terminal: bool = False) -> str:
    """What `fit` and `train` made, and what to do next.

    Parameters
    ----------
    summary : pandas.DataFrame
        What `featurepipe.fit` or `featurepipe.train` returns.
    width : int
        Characters a line, at least 60.
    is_terminal : bool
        Whether escape sequences may be used.

    Returns
    -------
    str
        One line a run. Up to four attributes have a column each, if there is room.
    """
    width = max(width, MIN_WIDTH)
    together = summary[summary["attribute"] == ALL].reset_index(drop=True)
    attributes = [name for name in summary["attribute"].unique() if name != ALL]
    columns = {
        "run": _name_column("run", together["run"]),
        "split": _name_column("split", together["split"]),
        "images": Column("training\nimages", aligned(together["n_train"].map(count))),
        "all": _selection_column("selection\naccuracy", together, summary, ALL),
        "fit": Column("fit", aligned(together["fit_s"].map(duration))),
    }
    if together["split"].nunique() == 1:
        del columns["split"]
    fit = columns.pop("fit")
    by_attribute = {
        name: _selection_column(visible(name), together, summary, name) for name in attributes
    }
    several = 1 < len(attributes) <= _MAX_ATTRIBUTES
    if several and table_width([*columns.values(), *by_attribute.values(), fit]) <= width:
        columns |= by_attribute
    shown = fitted([*columns.values(), fit], width)
    right = "with every attribute right" if len(attributes) > 1 else "that are right"
    explanation = (
        f"Selection accuracy is the share of training images {right}, each predicted by a "
        "model that was not fitted on it. Compare the runs on test images: featurepipe report"
    )
    return f"{table_text(shown, is_terminal=is_terminal)}\n\n{paragraph(explanation, width)}"


def _short_text(tables: list[pd.DataFrame], width: int, attribute: str, is_terminal: bool) -> str:
    shown, n_left = _most_important(tables)
    sections, columns = zip(
        *(_section(rows, width, attribute, is_terminal) for rows in shown), strict=True
    )
    more = [f"{counted(n_left, 'more split')}: add --full."] if n_left else []
    legend = _legend(columns, pd.concat(shown), attribute, width)
    return "\n\n".join([*sections, *more, legend])


def _full_text(
    tables: list[pd.DataFrame], width: int, attribute: str | None, is_terminal: bool
) -> str:
    sections = []
    for rows in tables:
        if attribute is not None:
            rows = rows[rows["attribute"] == attribute]
        sections += [
            heading(split_title(rows, attribute or ALL), width, is_terminal=is_terminal),
            full_table(rows, width, is_terminal=is_terminal),
        ]
    return "\n\n".join(sections)


def _by_split(board: pd.DataFrame) -> Iterator[pd.DataFrame]:
    for _, rows in board.groupby("split", sort=False, dropna=False):
        yield rows


def _most_important(tables: list[pd.DataFrame]) -> tuple[list[pd.DataFrame], int]:
    """All series and the splits with the most runs, and how many splits are left."""
    splits = [position for position, rows in enumerate(tables) if not _is_series(rows)]
    by_size = sorted(splits, key=lambda position: -tables[position]["run"].nunique())
    left = set(by_size[_MAX_SPLITS:])
    return [rows for position, rows in enumerate(tables) if position not in left], len(left)


def _is_series(rows: pd.DataFrame) -> bool:
    return bool(rows["interval"].iloc[0] == "splits")


def _section(
    rows: pd.DataFrame, width: int, attribute: str, is_terminal: bool
) -> tuple[str, Columns]:
    """One split's title, table and advice; and the columns that are shown."""
    ranked = rows[rows["attribute"] == attribute].sort_values(
        "accuracy", ascending=False, kind="stable", ignore_index=True
    )
    columns = columns_that_fit(board_columns(ranked), width)
    taken = run_to_take(ranked)
    table = table_text(
        fitted(list(columns.values()), width),
        is_terminal=is_terminal,
        bold_rows=() if taken is None or len(ranked) == 1 else (taken,),
    )
    advice = series_advice if _is_series(rows) else split_advice
    notes = [advice(ranked, attribute)]
    if "features" not in columns:
        notes += feature_notes(rows, ranked, attribute)
    text = "\n".join(paragraph(note, width) for note in notes if note)
    title = heading(split_title(ranked, attribute), width, is_terminal=is_terminal)
    return "\n\n".join(filter(None, (title, table, text))), columns


def split_title(rows: pd.DataFrame, attribute: str) -> str:
    """What a table compares: its split or series, and how many images there are.

    Parameters
    ----------
    rows : pandas.DataFrame
        Rows of one split or series.
    attribute : str
        That of the rows.
    """
    name = visible(rows["split"].iloc[0])
    of_attribute = "" if attribute == ALL else f", {visible(attribute)}"
    if _is_series(rows):
        return f"Series {name}{of_attribute}: mean ± standard deviation over the splits"
    images = [_counts(rows["n_train"], "training image"), _counts(rows["n_test"], "test image")]
    if (rows["n_unseen"] > 0).any():
        images.append(f"{_counts(rows['n_unseen'], 'image')} of held-out combinations")
    return f"Split {name}{of_attribute}: {', '.join(images)}"


def _counts(numbers: pd.Series, what: str) -> str:
    low, high = numbers.min(), numbers.max()
    if pd.isna(low):
        return f"{MISSING} {what}s"
    return counted(low, what) if low == high else f"{low:,} to {counted(high, what)}"


def _name_column(header: str, names: "pd.Series[str]") -> Column:
    return Column(header, [visible(str(name)) for name in names], is_name=True)


def _selection_column(
    header: str, together: pd.DataFrame, summary: pd.DataFrame, attribute: str
) -> Column:
    rows = summary[summary["attribute"] == attribute].set_index("run")["selection_accuracy"]
    return Column(header, aligned(together["run"].map(rows).map(percent)))


def _legend(tables: Sequence[Columns], rows: pd.DataFrame, attribute: str, width: int) -> str:
    lines = {
        "accuracy": _what_is_right(rows, attribute),
        "=": "not significantly less accurate than the best run on the same test images and labels",
        "unseen": "accuracy on held-out combinations, which training never sees",
        "harmonic": "harmonic mean of accuracy and unseen: high only if both are",
        "selection": "accuracy on training images, each predicted by a model that was not fitted "
        "on it; `predict` takes the run where it is best",
        "log-loss": "mean negative logarithm of the true class's probability; lower is better",
        "ms/image": "feature extraction and prediction",
        OLD.strip(): "fitted on other labels or images than the present ones; `predict` takes such "
        "a run only by --run",
    }
    columns = {name for table in tables for name in table} | {"selection"}
    if not rows["current"].all():
        columns.add(OLD.strip())
    shown = [name for name in lines if name in columns]
    label_width = max(map(len, shown)) + GAP
    missing = [name for name in COSTS if any(name not in table for table in tables)]
    wider = f"A wider terminal also shows {', '.join(missing)}. " if missing else ""
    more = f"{wider}More: --attribute NAME, --full, and every figure in leaderboard.csv."
    return "\n".join(
        [
            *(paragraph(lines[name], width, f"{name:<{label_width}}") for name in shown),
            "",
            paragraph(more, width),
        ]
    )


def _what_is_right(rows: pd.DataFrame, attribute: str) -> str:
    of_attributes = rows[rows["attribute"] != ALL]
    names = [visible(name) for name in of_attributes["attribute"].unique()]
    sets = of_attributes.loc[of_attributes["subset_accuracy"].notna(), "attribute"].unique()
    if attribute != ALL:
        what = f"whose {visible(attribute)} is right"
    elif len(names) == 1:
        what = f"whose {names[0]} is right"
    else:
        what = f"with every attribute right ({listed(names, 40)})"
    whole = "; of a set of labels, all must be right" if len(sets) else ""
    return f"share of test images {what}{whole}"
