"""repeat(): fit a run again, and check that its numbers are the same."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator

from featurepipe.errors import RunError, UsageError
from featurepipe.features.cached import CachedFeatures, open_caches
from featurepipe.manifest import Manifest
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.heads.own_head import OwnHead
from featurepipe.models.studies.hold_outs import OBJECTIVES
from featurepipe.predictions import Predictions
from featurepipe.provenance import differences, library_versions, machine
from featurepipe.runs.changes import changed_labels, some
from featurepipe.runs.choosing import named_run
from featurepipe.runs.feature_set import FeatureSet
from featurepipe.runs.fitted_on import kept_caches, kept_checksums, kept_split
from featurepipe.runs.run_check import split_problems
from featurepipe.runs.run_folder import NewRun, Run
from featurepipe.runs.run_info import HeadRunInfo
from featurepipe.runs.summary import summary
from featurepipe.splits import Split
from featurepipe.workflows.auto_choice import chosen_task
from featurepipe.workflows.fit_task import FitLimits, FitTask, fit_task
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)


def repeat(
    run: str,
    *,
    head: BaseEstimator | None = None,
    workspace: Path | str = ".",
    n_jobs: int = -1,
) -> pd.DataFrame:
    """Fit a run again exactly as it was fitted, and compare the numbers with its own.

    The split, the settings and the seed are those of the run; features that were chosen by
    trials are chosen again. The run is left as it is.

    Parameters
    ----------
    run : str
        Name of a run of heads.
    head : BaseEstimator, optional
        The estimator of a run whose head is one of your own. No estimator that is read from a
        file is ever fitted.
    workspace : Path or str
    n_jobs : int
        Processor cores to use; -1: all.

    Returns
    -------
    pandas.DataFrame
        What `fit` returned for the run, if every number is the same, bit for bit.

    Raises
    ------
    RunError
        If the split, labels or features have changed, or a number differs; says which.
    UnknownNameError
        If there is no run of the name.
    UsageError
        If `head` is missing, or is not the one that the run was fitted with.
    """
    limits = FitLimits(n_jobs)
    home = Workspace(workspace)
    kept = named_run(home, run)
    info = kept.info
    if not isinstance(info, HeadRunInfo):
        raise RunError(
            f"Run {kept.name!r} is a trained network, and only runs of heads can be repeated. "
            "Train it again with the command that trained it, and --no-resume."
        )
    settings = _settings(kept, info, head)
    for problem in split_problems([kept], home):
        raise RunError(f"Run {kept.name!r} cannot be repeated. {problem}")
    with home.writing():
        manifest = Manifest.load(home.manifest)
        split = kept_split(kept)
        caches = kept_caches(info, open_caches(home.stores(), manifest.ids.tolist()))
        if changed := _changed_inputs(kept, split, caches, manifest):
            raise RunError(
                f"Run {kept.name!r} cannot be repeated, because its inputs have changed: "
                f"{'; '.join(changed)}. Use featurepipe fit for the present labels and features."
            )
        limits = FitLimits(n_jobs, info.memory_bytes)
        task = _task(kept, info, settings, caches, manifest, split, limits)
        again = fit_task(task, kept.name)
    _require_same_numbers(kept, again)
    logger.info(
        "Run %s: the same numbers again, bit for bit, for %d images.%s",
        kept.name,
        len(again.predictions) + len(again.selection),
        "".join(f" {difference}." for difference in _changed_software(kept)),
    )
    return summary([kept])


def _settings(run: Run, info: HeadRunInfo, head: BaseEstimator | None) -> HeadSettings:
    """The settings of a run, with the estimator of a head of one's own."""
    own = info.settings.own
    if own is None:
        if head is not None:
            raise UsageError(
                f"Run {run.name!r} has the head {info.head} of featurepipe. Repeat it without head."
            )
        return info.settings
    if head is None:
        raise UsageError(
            f"Run {run.name!r} has a head of one's own, which is not taken from its file. Give it "
            f"in Python: featurepipe.repeat({run.name!r}, head={info.head}(…))."
        )
    given = OwnHead.of(head, info.settings.seed)
    if given.digest != own.digest:
        raise UsageError(
            f"The head {given.parameters} is not that of run {run.name!r}, which is "
            f"{own.parameters}. Give that one."
        )
    return info.settings.with_estimator(given.estimator)


def _changed_inputs(
    run: Run, split: Split, caches: Sequence[CachedFeatures], manifest: Manifest
) -> list[str]:
    """What hinders that a run is fitted again to the same numbers, in words."""
    row_of = {image: row for row, image in enumerate(manifest.ids)}
    gone = sorted(set(split.ids) - set(row_of))
    if gone:
        return [f"{some(gone)}, no longer in the manifest"]
    return [
        *changed_labels(run, manifest.labels(), row_of),
        *_changed_features(run, split, caches),
    ]


def _changed_features(run: Run, split: Split, caches: Sequence[CachedFeatures]) -> Iterator[str]:
    cache_of = {cache.name: cache for cache in caches}
    kept = kept_checksums(run, split)
    for name in kept.columns:
        cache = cache_of.get(name)
        if cache is None:
            yield f"there is no store of the features {name} any more"
            continue
        if missing := cache.missing(split.ids):
            yield f"{cache.path} lacks features: {some(missing)}"
            continue
        same = cache.checksums(split.ids) == kept[name].to_numpy()
        if changed := split.ids[~same].tolist():
            yield f"features in {cache.path} changed: {some(changed)}"


def _task(
    run: Run,
    info: HeadRunInfo,
    settings: HeadSettings,
    caches: Sequence[CachedFeatures],
    manifest: Manifest,
    split: Split,
    limits: FitLimits,
) -> FitTask:
    """The fit that made the run; choices by trials are made again."""
    if not info.feature_trials:
        feature_set = FeatureSet(run.name, tuple(caches), info.features)
        return FitTask(manifest, split, feature_set, settings, limits)
    task = chosen_task(
        caches,
        manifest,
        split,
        settings,
        limits,
        objective=info.objective or OBJECTIVES[0],
        choose_a_head=bool(info.head_trials),
    )
    for then, now in ((info.features, task.feature_set.blocks), (info.head, task.settings.head)):
        if then != now:
            raise _not_repeated(run, f"auto chose {now} instead of {then}")
    return task


def _require_same_numbers(run: Run, again: NewRun) -> None:
    pairs = ((again.predictions, run.predictions), (again.selection, run.selection))
    for now, then in pairs:
        for difference in _differences(now, then):
            raise _not_repeated(run, difference)


def _differences(now: Predictions, then: Predictions) -> Iterator[str]:
    for name, scores in then.scores.items():
        apart = abs(now.scores[name] - scores).max(axis=1, initial=0)
        if apart.any():
            image, part = then.ids[apart.argmax()], then.parts[apart.argmax()]
            yield (
                f"probabilities of {name!r} differ by up to {apart.max():.3g} ({str(image)!r}, a "
                f"{part} image)"
            )
        if not np.array_equal(now.thresholds[name], then.thresholds[name]):
            yield f"the thresholds of {name!r} differ"
        if not (
            np.array_equal(now.p_values[name], then.p_values[name])
            and np.array_equal(now.image_p_values[name], then.image_p_values[name])
        ):
            yield f"the p-values of {name!r} differ"


def _not_repeated(run: Run, difference: str) -> RunError:
    changed = _changed_software(run)
    why = "; ".join(changed) if changed else "versions, labels and features are the same"
    return RunError(
        f"Fitting run {run.name!r} again gave other numbers: {difference}. Then and now: {why}. "
        "The run was left as it is."
    )


def _changed_software(run: Run) -> list[str]:
    """Versions and machine that differ from those of the run."""
    then = run.info.versions
    now = library_versions(*(name for name in then if name != "featurepipe"))
    return differences({**then, "machine": run.info.machine}, {**now, "machine": machine()})
