"""Every figure of some runs, in blocks that fit a terminal."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from featurepipe.reports.figures import MEASURED
from featurepipe.reports.terminal_text import (
    Column,
    aligned,
    byte_size,
    count,
    duration,
    figure,
    fitted,
    paragraph,
    percent,
    percent_with_interval,
    table_text,
    table_width,
)
from featurepipe.words import visible

_MIN_HEADER = 10
_KEY = ("run", "attribute", "split")
_OF_RUN = (
    "current",
    "weights",
    "head",
    "solver",
    "calibrate",
    "task",
    "extract_images_per_s",
    "fit_s",
    "predict_ms_per_image",
    "predict_images_per_s",
    "model_bytes",
    "n_parameters",
    "epochs",
    "peak_memory_bytes",
)
_ENDS = {f"{name}_{end}" for name in MEASURED for end in ("low", "high")}
_HEADERS = {
    "extract_images_per_s": "extracted images/s",
    "fit_s": "fit",
    "predict_ms_per_image": "ms/image",
    "predict_images_per_s": "images/s",
    "model_bytes": "model",
    "n_parameters": "parameters",
    "peak_memory_bytes": "peak memory",
    "n_train": "training images",
    "n_test": "test images",
    "n_unseen": "unseen images",
    "map": "mAP",
    "ece": "ECE",
}
_FORMATS: dict[str, Callable[[Any], str]] = {
    "fit_s": duration,
    "model_bytes": byte_size,
    "peak_memory_bytes": byte_size,
    "epochs": count,
    "answered": percent,
    "unseen_answered": percent,
    "accuracy_sd": percent,
    "unseen_accuracy_sd": percent,
}


def full_table(rows: pd.DataFrame, width: int, *, is_terminal: bool = False) -> str:
    """Every figure of a split's runs: a line a run, then a line for each of its attributes.

    Parameters
    ----------
    rows : pandas.DataFrame
        Rows of the board, those of one run together and `all` last.
    width : int
        Characters a line. Columns that do not fit follow in further blocks.
    is_terminal : bool
        Whether escape sequences may be used.

    Returns
    -------
    str
        Columns without a value are left out. Those with one value in all rows are listed
        above the blocks. The ends of intervals stand beside accuracy, unseen accuracy and
        log-loss; `leaderboard.csv` has all of them.
    """
    of_runs = rows[~rows["run"].duplicated(keep="last")].reset_index(drop=True)
    names = [
        name for name in map(str, rows) if name not in {*_KEY, *_ENDS} and rows[name].notna().any()
    ]
    constant = [
        name
        for name in names
        if len(rows) > 1 and rows[name].notna().all() and rows[name].nunique() == 1
    ]
    varying = [name for name in names if name not in constant]
    blocks = [
        *_blocks(_run_key(of_runs), of_runs, [n for n in varying if n in _OF_RUN], width),
        *_blocks(_attribute_key(rows), rows, [n for n in varying if n not in _OF_RUN], width),
    ]
    texts = [table_text(fitted(block, width), is_terminal=is_terminal) for block in blocks]
    if constant:
        values = ", ".join(f"{_header(name)} {_cell(rows.iloc[0], name)}" for name in constant)
        texts.insert(0, paragraph(f"The same in all rows: {values}.", width))
    return "\n\n".join(texts)


def _run_key(of_runs: pd.DataFrame) -> list[Column]:
    numbers = [str(number) for number in range(1, len(of_runs) + 1)]
    return [Column("#", numbers), Column("run", of_runs["run"].map(visible).tolist(), True)]


def _attribute_key(rows: pd.DataFrame) -> list[Column]:
    is_first = ~rows["run"].duplicated()
    numbers = is_first.cumsum().astype(str).where(is_first, "")
    return [
        Column("#", numbers.tolist()),
        Column("attribute", rows["attribute"].map(visible).tolist(), True),
    ]


def _blocks(
    key: Sequence[Column], rows: pd.DataFrame, names: Sequence[str], width: int
) -> Iterator[list[Column]]:
    """Columns that fit side by side; each block begins with those of the key."""
    block = list(key)
    for column in (_column(rows, name) for name in names):
        if len(block) > len(key) and table_width([*block, column]) > width:
            yield block
            # The number tells which run it is; its name stands in the first block.
            block = list(key) if key[-1].header != "run" else [key[0]]
        block.append(column)
    yield block


def _column(rows: pd.DataFrame, name: str) -> Column:
    cells = [_cell(row, name) for _, row in rows.iterrows()]
    is_name = rows[name].dtype == object
    width = max(_MIN_HEADER, *map(len, cells))
    return Column(
        paragraph(_header(name), width), cells if is_name else aligned(cells), is_name=is_name
    )


def _header(name: str) -> str:
    return _HEADERS.get(name, name.replace("_", " "))


def _cell(row: pd.Series, name: str) -> str:
    value = row[name]
    if pd.isna(value):
        return ""
    if name in _FORMATS:
        return _FORMATS[name](value)
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if name.startswith("n_"):
        return count(value)
    if name in ("accuracy", "unseen_accuracy"):
        return percent_with_interval(value, row[f"{name}_low"], row[f"{name}_high"])
    if name == "log_loss":
        low, high = row["log_loss_low"], row["log_loss_high"]
        return figure(value) + ("" if pd.isna(low) else f" ({figure(low)}–{figure(high)})")
    return percent(value) if name.endswith("accuracy") else figure(value)
