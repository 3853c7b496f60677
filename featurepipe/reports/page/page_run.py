"""PageRun: what a page needs to know of a run, from whatever holds runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from featurepipe.predictions import Predictions


@dataclass(frozen=True)
class PageRun:
    """A run as the page shows it.

    Attributes
    ----------
    name : str
    split : str
        Name of its split.
    is_network : bool
    is_current : bool
        Whether it was fitted on the present labels and images.
    predictions : Predictions
        Test rows, and those of combinations that were held out.
    selection : Predictions
        Training rows, predicted out of fold, calibrated.
    reads : mapping of str to sequence of str
        Names of the blocks that each attribute reads; of a network, ``("pixels",)``.
    uncalibrated, calibrated : mapping of str to mapping
        See `featurepipe.reports.figures.reliability`, of out-of-fold training rows.
    trials : sequence of mapping
        Trials of ``--features auto``: ``attribute``, ``blocks``, ``seen_accuracy``,
        ``unseen_accuracy`` (None if not measured), ``chosen``. Empty for other runs.
    learning_curve : sequence of mapping
        ``n_train``, ``attribute``, ``accuracy``, and ``accuracy_sd``: its standard deviation over
        the draws. Empty if not measured.
    history : pandas.DataFrame or None
        Of the training of a network; see `featurepipe.reports.plots.plot_training`.
    provenance : mapping of str to str
        Words by heading: settings, versions, machine, costs, split, …
    command : str
        The command that makes such a run.
    """

    name: str
    split: str
    is_network: bool
    is_current: bool
    predictions: Predictions
    selection: Predictions
    reads: Mapping[str, Sequence[str]]
    uncalibrated: Mapping[str, Mapping[str, Any]]
    calibrated: Mapping[str, Mapping[str, Any]]
    trials: Sequence[Mapping[str, Any]] = ()
    learning_curve: Sequence[Mapping[str, Any]] = ()
    history: pd.DataFrame | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
