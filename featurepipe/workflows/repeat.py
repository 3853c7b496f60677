"""repeat(): a run -> the same run once more, and whether its numbers are the same."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from featurepipe.errors import RunError
from featurepipe.features.cached import CachedFeatures, open_caches
from featurepipe.manifest import Manifest
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.predictions import Predictions
from featurepipe.provenance import differences, library_versions, machine
from featurepipe.runs.choosing import find_run
from featurepipe.runs.feature_set import FeatureSet
from featurepipe.runs.fitted_on import changed_inputs, kept_caches, kept_split
from featurepipe.runs.run_folder import Run
from featurepipe.splits import Split
from featurepipe.workflows.feature_sets import chosen_feature_set
from featurepipe.workflows.fit import fit_once
from featurepipe.workflows.runs import summary
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)


def repeat(run: str, *, workspace: Path | str = ".", n_jobs: int = -1) -> pd.DataFrame:
    """Fit a run again, exactly as it was fitted, and hold the numbers against its own.

    The split, the settings and the seed are those that the run keeps; features that
    were chosen by trial are chosen again. Nothing is written.

    Parameters
    ----------
    run : str
        Name of the run.
    workspace : Path or str
    n_jobs : int
        Processor cores to use; -1: all.

    Returns
    -------
    pandas.DataFrame
        What `fit` returned of the run, if every number is the same, bit for bit.

    Raises
    ------
    RunError
        If labels or features have changed, or the numbers are others: what differs.
    """
    place = Workspace(workspace)
    with place.writing():
        kept = find_run(place, run)
        if kept.network is not None:
            raise RunError(
                f"Run {run!r} is a trained network, and networks are not trained again by --from. "
                "Give the command that trained it, with --no-resume."
            )
        manifest = Manifest.load(place.manifest)
        settings = _kept_settings(kept)
        split = kept_split(kept)
        caches = kept_caches(kept, open_caches(place.stores(), manifest.ids.tolist()))
        if changed := changed_inputs(kept, split, caches, manifest):
            raise RunError(
                f"Run {kept.folder.name!r} cannot be repeated: {'; '.join(changed)}. Expected "
                "the labels and features that it was fitted on; to fit these, leave out --from."
            )
        feature_set = _kept_feature_set(kept, caches, manifest, split, settings, n_jobs)
        budget = kept.info["memory_bytes"]
        _, _, predictions, selection = fit_once(
            manifest, feature_set, split, settings, n_jobs, budget
        )
    _require_same_numbers(kept, predictions, selection)
    logger.info(
        "Run %s: the same numbers again, bit for bit, for %d images.%s",
        kept.folder.name,
        len(predictions) + len(selection),
        "".join(f" {difference}." for difference in _other_surroundings(kept.info)),
    )
    return summary([kept.info])


def _kept_settings(run: Run) -> HeadSettings:
    try:
        return HeadSettings.of(**run.info["settings"])
    except TypeError as error:
        raise RunError(
            f"Run {run.folder.name!r} has settings of another version of featurepipe ({error}): "
            f"it was fitted by {run.info['versions']['featurepipe']}. Repeat it with that version."
        ) from error


def _kept_feature_set(
    run: Run,
    caches: Sequence[CachedFeatures],
    manifest: Manifest,
    split: Split,
    settings: HeadSettings,
    n_jobs: int,
) -> FeatureSet:
    blocks = {name: tuple(names) for name, names in run.info["features"].items()}
    if not run.info["feature_trials"]:
        return FeatureSet(run.folder.name, tuple(caches), blocks)
    train = split.rows("train")
    ids = split.ids[train]
    feature_set = chosen_feature_set(
        caches,
        ids,
        manifest.labels(ids),
        split.groups[train],
        objective=run.info["objective"],
        seed=settings.seed,
        n_jobs=n_jobs,
    )
    if feature_set.blocks != blocks:
        raise _not_repeated(run, f"auto chose {feature_set.blocks}, not {blocks}")
    return feature_set


def _require_same_numbers(run: Run, predictions: Predictions, selection: Predictions) -> None:
    for now, then in ((predictions, run.predictions), (selection, run.selection)):
        for name, scores in then.scores.items():
            apart = abs(now.scores[name] - scores).max(axis=1, initial=0)
            if apart.any():
                image = str(then.ids[apart.argmax()])
                part = str(then.parts[apart.argmax()])
                raise _not_repeated(
                    run,
                    f"probabilities of {name!r} differ by up to {apart.max():.3g} ({image!r}, a "
                    f"{part} image)",
                )
            if not np.array_equal(now.thresholds[name], then.thresholds[name]):
                raise _not_repeated(run, f"the thresholds of {name!r} are others")
            if not np.array_equal(now.p_values[name], then.p_values[name]):
                raise _not_repeated(run, f"what is unknown of {name!r} differs")


def _not_repeated(run: Run, what: str) -> RunError:
    others = _other_surroundings(run.info)
    why = "; ".join(others) if others else "versions, labels and features are the same"
    return RunError(
        f"Run {run.folder.name!r} was fitted again to other numbers: {what}. Then and now: {why}. "
        "The run was left as it is."
    )


def _other_surroundings(info: dict[str, Any]) -> list[str]:
    """Versions and machine that are not those of the run."""
    now = library_versions(*(name for name in info["versions"] if name != "featurepipe"))
    return differences(
        {**info["versions"], "machine": info["machine"]}, {**now, "machine": machine()}
    )
