"""The table that `fit`, `train` and `repeat` return."""

from collections.abc import Sequence

import pandas as pd

from featurepipe.predictions import ALL
from featurepipe.runs.run_folder import Run


def summary(runs: Sequence[Run]) -> pd.DataFrame:
    """One row for each run and attribute, and for ``"all"``, without any test figure.

    Parameters
    ----------
    runs : sequence of Run
    """
    return pd.DataFrame(
        [
            {
                "run": run.name,
                "backbone": run.info.backbone[attribute],
                "view": run.info.view[attribute],
                "split": run.info.split.name,
                "attribute": attribute,
                "n_train": run.info.n_train[attribute],
                "selection_accuracy": run.info.selection_accuracy[attribute],
                "fit_s": run.info.costs.fit_s,
            }
            for run in runs
            for attribute in [*run.info.attributes, ALL]
        ]
    )
