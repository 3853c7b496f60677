"""Which run of a table to take, in sentences."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from featurepipe.predictions import ALL
from featurepipe.reports.terminal_text import count, figure, percent
from featurepipe.words import counted, visible

Named = Callable[[str], str]
"""How a name stands in a sentence."""


def run_to_take(rows: pd.DataFrame) -> int | None:
    """Position of the run that `featurepipe.predict` would choose among some.

    Parameters
    ----------
    rows : pandas.DataFrame
        Rows of the board, one a run.

    Returns
    -------
    int or None
        The best selection accuracy; of several such runs the one that predicts fastest.
        None if no run that was fitted on the present labels and images has one.
    """
    choosable = rows["current"] & rows["selection_accuracy"].notna()
    if not choosable.any():
        return None
    order = rows.reset_index(drop=True)[choosable.to_numpy(bool)].sort_values(
        ["selection_accuracy", "predict_ms_per_image", "run"], ascending=[False, True, True]
    )
    return int(order.index[0])


def split_advice(
    rows: pd.DataFrame, attribute: str, named: Named = visible, *, taken: str | None = None
) -> str:
    """Two sentences: which run to take, and which are as accurate.

    Parameters
    ----------
    rows : pandas.DataFrame
        Rows of one split and attribute, the most accurate first.
    attribute : str
    named : callable
    taken : str, optional
        Name of the run to take, if it is not that of `run_to_take`.
    """
    if not rows["current"].any():
        return (
            "All runs of this split were fitted on other labels or images than the present ones. "
            "Fit again to compare heads on these."
        )
    if len(rows) == 1:
        row = rows.iloc[0]
        return (
            f"{named(row['run'])} is the only run: selection accuracy "
            f"{percent(row['selection_accuracy'])}; {_tested(row)}."
        )
    return f"{_take(rows, attribute, named, taken)} {_ties(rows, named)}"


def series_advice(rows: pd.DataFrame, attribute: str, named: Named = visible) -> str:
    """Which run to take by its means over the splits.

    Parameters
    ----------
    rows : pandas.DataFrame
        Summaries of one series and attribute, the most accurate first.
    attribute : str
    named : callable
    """
    return _take(rows, attribute, named, mean="mean ") if rows["current"].sum() > 1 else ""


def _take(
    rows: pd.DataFrame, attribute: str, named: Named, taken: str | None = None, mean: str = ""
) -> str:
    position = run_to_take(rows)
    if position is None:
        return "No run has a selection accuracy to choose by."
    row = rows.iloc[position]
    purpose = "Take" if attribute == ALL else f"For {named(attribute)}, take"
    if taken not in (None, row["run"]):
        row = rows[rows["run"] == taken].iloc[0]
        return (
            f"{purpose} {named(row['run'])}: only it was fitted on all images that the workspace "
            f"has now; {_tested(row)}."
        )
    n_equal = int((rows["selection_accuracy"] == row["selection_accuracy"]).sum()) - 1
    others = f"{counted(n_equal, 'other run')} reach{'es' if n_equal == 1 else ''} it"
    equal = f"; {others} at no lower cost" if n_equal else ""
    return (
        f"{purpose} {named(row['run'])}: it has the best {mean}selection accuracy "
        f"({percent(row['selection_accuracy'])}{equal}); {_tested(row)}."
    )


def _tested(row: pd.Series) -> str:
    if pd.isna(row["accuracy"]):
        return "there are no test images to measure its accuracy on"
    images = f"the {count(row['n_test'])} test images" if row["n_test"] != 1 else "the test image"
    if row["interval"] == "splits":
        images = "the test images, on average"
    low, high = row["accuracy_low"], row["accuracy_high"]
    interval = "" if pd.isna(low) else f" (95 % interval {100 * low:.1f}–{100 * high:.1f} %)"
    return f"it is right on {percent(row['accuracy'])} of {images}{interval}"


def _ties(rows: pd.DataFrame, named: Named) -> str:
    if rows["accuracy"].isna().all():
        return "The runs have no test images in common to compare their accuracy on."
    tied = rows[rows["tied_with_best"].fillna(False).astype(bool)]
    if tied.empty:
        return "Their accuracies were not compared: they answered different images or labels."
    if len(tied) == 1:
        return f"No other run is tied with {named(tied.iloc[0]['run'])} for the best accuracy."
    if len(tied) < len(rows):
        who = f"{len(tied)} of {len(rows)} runs are"
    else:
        who = "Both runs are" if len(tied) == 2 else f"All {len(tied)} runs are"
    ms = tied["predict_ms_per_image"].to_numpy(np.float64)
    if np.isnan(ms).all():
        return f"{who} tied for the best accuracy (=)."
    cheapest = tied.iloc[int(np.nanargmin(ms))]
    return (
        f"{who} tied for the best accuracy (=); the cheapest of them is {named(cheapest['run'])} "
        f"({figure(np.nanmin(ms))} ms/image)."
    )
