"""Runs of one family, fitted alike on the splits of one series -> one summary."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from featurepipe.reports.figures import MEASURED
from featurepipe.reports.intervals import repeats_interval

SPREADS = ("accuracy", "unseen_accuracy", "log_loss")
"""Figures whose standard deviation over the splits has a column, named ``_sd``."""

VARIES = "varies"
"""Stands for words that differ between the splits, as the head that auto chooses."""

_HIGHEST = {"log_loss": np.inf, "unseen_log_loss": np.inf, "brier": 2}


def summarise_series(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over the splits of a series, with intervals and standard deviations.

    Parameters
    ----------
    rows : sequence of mapping
        The board's rows of one attribute, one a split; at least two.

    Returns
    -------
    dict of str to Any
        The same columns. Numbers are means. ``_low`` and ``_high`` are the ends of
        `repeats_interval`; they are missing for held-out combinations, since the splits
        are no sample of combinations. Words that differ between the rows are `VARIES`.
    """
    summary = {name: _mean([row[name] for row in rows]) for name in rows[0]}
    for name in MEASURED:
        figures = np.array([row[name] for row in rows], np.float64)
        low, high = np.nan, np.nan
        if not name.startswith("unseen_"):
            interval = repeats_interval(figures, summary["n_train"], summary["n_test"])
            low, high = np.clip(interval, 0, _HIGHEST.get(name, 1))
        summary |= {f"{name}_low": low, f"{name}_high": high}
        if name in SPREADS:
            summary[f"{name}_sd"] = np.std(figures, ddof=1)
    return summary | {"interval": "splits"}


def _mean(values: Sequence[Any]) -> Any:
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        mean = float(np.mean(values))
        return round(mean) if all(isinstance(value, int) for value in values) else mean
    if all(value == values[0] for value in values):
        return values[0]
    return VARIES if all(isinstance(value, str) for value in values) else None
