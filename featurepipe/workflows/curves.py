"""The learning curves of a run: measured, explained, and kept with the run."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace

import pandas as pd
from threadpoolctl import threadpool_limits

from featurepipe.errors import UnknownNameError, UsageError
from featurepipe.models.studies.combination_curve import CombinationPoint, combination_curve
from featurepipe.models.studies.learning_curve import CurvePoint, learning_curve
from featurepipe.progress import Progress
from featurepipe.runs.run_facts import CombinationPointFacts
from featurepipe.runs.run_folder import NewRun
from featurepipe.workflows.fit_task import FitTask

logger = logging.getLogger(__name__)

CURVES = ("images", "combinations")
CURVE = "curve.csv"
COMBINATION_CURVE = "combination-curve.csv"

_SHOWN_COMBINATIONS = 5


def check_curve(curve: str | None, task: str) -> None:
    """Stop at a ``--curve`` that does not exist or does not fit the task.

    Parameters
    ----------
    curve, task
        See `featurepipe.fit`.

    Raises
    ------
    UnknownNameError
        If there is no such curve.
    UsageError
    """
    if curve is not None and curve not in CURVES:
        raise UnknownNameError("curve", curve, CURVES)
    if curve == "combinations" and task != "per-attribute":
        raise UsageError(
            f"--curve combinations cannot be combined with --task {task}: it fits one head per "
            "attribute. Omit one of them."
        )


# One BLAS thread, so that answers do not depend on the number of cores.
@threadpool_limits.wrap(limits=1)
def with_curve(new: NewRun, task: FitTask, curve: str) -> NewRun:
    """Measure a learning curve of a run on its training images, and say what it shows.

    Parameters
    ----------
    new : NewRun
    task : FitTask
        The task that `new` was fitted by.
    curve : str
        One of `CURVES`.

    Returns
    -------
    NewRun
        The same run with its curve, also as CSV.
    """
    return _with_image_curve(new, task) if curve == "images" else _with_combinations(new, task)


def _with_image_curve(new: NewRun, task: FitTask) -> NewRun:
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
    update = {"curve": tuple(points), "doublings": tuple(doublings)}
    info = new.info.model_copy(update=update)
    return replace(new, info=info, files={**new.files, CURVE: _csv(points)})


def _with_combinations(new: NewRun, task: FitTask) -> NewRun:
    with Progress(None, "Learning curve", "fit") as progress:
        curve = combination_curve(
            task.feature_set.read(task.train_ids),
            task.labels,
            task.groups,
            task.settings,
            columns=task.feature_set.columns,
            n_jobs=task.limits.n_jobs,
            progress=progress.report,
        )
    for point in curve.points:
        if point.share == 1:
            logger.info("%s", point.in_words())
    worst = list(curve.accuracies.items())[:_SHOWN_COMBINATIONS]
    logger.info(
        "Hardest combinations without images of their own: %s.",
        ", ".join(f"{name} ({100 * share:.0f} % right)" for name, share in worst),
    )
    facts = tuple(CombinationPointFacts(**asdict(point)) for point in curve.points)
    info = new.info.model_copy(update={"combination_curve": facts})
    return replace(new, info=info, files={**new.files, COMBINATION_CURVE: _csv(curve.points)})


def _csv(points: Sequence[CurvePoint] | Sequence[CombinationPoint]) -> bytes:
    table = pd.DataFrame([asdict(point) for point in points])
    return table.to_csv(index=False, float_format="%.6g").encode()
