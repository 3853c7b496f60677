"""Learning curves: what a run keeps of them, and what a person is told."""

import logging
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import pandas as pd

from featurepipe.manifest import Manifest
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.studies.learning_curve import learning_curve
from featurepipe.progress import Progress
from featurepipe.runs.feature_set import FeatureSet
from featurepipe.splits import Split

logger = logging.getLogger(__name__)

CURVE = "curve.csv"


def curve_of(
    manifest: Manifest, feature_set: FeatureSet, split: Split, settings: HeadSettings, n_jobs: int
) -> tuple[dict[str, Any], bytes]:
    """Measure the learning curve of a run on its training rows, and say what it shows.

    Returns
    -------
    facts : dict
        ``curve``, the points, and ``doublings``, each with its ``verdict``, as JSON values.
    table : bytes
        The points as CSV.
    """
    train = split.rows("train")
    ids = split.ids[train]
    with ExitStack() as stack:
        bar: list[Progress] = []

        def advance(n_done: int, n_total: int) -> None:
            if not bar:
                bar.append(stack.enter_context(Progress(n_total, "Learning curve", "fit")))
            bar[0].advance()

        points, doublings = learning_curve(
            feature_set.read(ids),
            manifest.labels(ids),
            split.groups[train],
            settings,
            columns=feature_set.columns,
            n_jobs=n_jobs,
            progress=advance,
        )
    for doubling in doublings:
        logger.info("%s", doubling.in_words())
    rows = [asdict(point) for point in points]
    facts = {
        "curve": rows,
        "doublings": [{**asdict(each), "verdict": each.verdict} for each in doublings],
    }
    return facts, pd.DataFrame(rows).to_csv(index=False, float_format="%.6g").encode()
