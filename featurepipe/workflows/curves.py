"""The learning curve of a run: measured, explained, and kept with the run."""

import logging
from dataclasses import asdict, replace

import pandas as pd

from featurepipe.models.studies.learning_curve import learning_curve
from featurepipe.progress import Progress
from featurepipe.runs.run_folder import NewRun
from featurepipe.workflows.fit_task import FitTask

logger = logging.getLogger(__name__)

CURVE = "curve.csv"


def with_curve(new: NewRun, task: FitTask) -> NewRun:
    """Measure the learning curve of a run on its training images, and say what it shows.

    Parameters
    ----------
    new : NewRun
    task : FitTask
        The task that `new` was fitted by.

    Returns
    -------
    NewRun
        The same run with its curve, also as CSV.
    """
    with Progress(None, "Learning curve", "fit") as progress:
        points, doublings = learning_curve(
            task.feature_set.read(task.train_ids),
            task.labels,
            task.groups,
            task.settings,
            columns=task.feature_set.columns,
            n_jobs=task.limits.n_jobs,
            progress=progress.report,
        )
    for doubling in doublings:
        logger.info("%s", doubling.in_words())
    table = pd.DataFrame([asdict(point) for point in points])
    csv = table.to_csv(index=False, float_format="%.6g").encode()
    update = {"curve": tuple(points), "doublings": tuple(doublings)}
    info = new.info.model_copy(update=update)
    return replace(new, info=info, files={**new.files, CURVE: csv})
