"""``--features auto``: features for each attribute, and a head, chosen by trials."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from featurepipe.features.cached import CachedFeatures
from featurepipe.manifest import Manifest
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.heads.registry import default_solver
from featurepipe.models.studies.feature_choice import (
    Trial,
    choose_features,
    indistinguishable_classes,
    ordinary_block,
    sample_rows,
)
from featurepipe.models.studies.head_choice import HeadTrial, choose_head
from featurepipe.progress import Progress
from featurepipe.runs.feature_set import FeatureSet
from featurepipe.splits import Split
from featurepipe.workflows.feature_sets import AUTO, used_caches
from featurepipe.workflows.fit_task import FitLimits, FitTask

logger = logging.getLogger(__name__)

_SHOWN_TRIALS = 5
_AIMS = {
    "balanced": "the best mean of both",
    "unseen": "the best unseen accuracy",
    "seen": "the best seen accuracy",
}


def chosen_task(
    caches: Sequence[CachedFeatures],
    manifest: Manifest,
    split: Split,
    settings: HeadSettings,
    limits: FitLimits,
    *,
    objective: str,
    choose_a_head: bool,
) -> FitTask:
    """Choose features for each attribute, and a head, by trials on training images.

    Parameters
    ----------
    caches : sequence of CachedFeatures
        The candidates.
    manifest : Manifest
    split : Split
    settings : HeadSettings
        Its head is the one to fit, unless one is chosen.
    limits : FitLimits
    objective : str
        See `featurepipe.models.studies.feature_choice.choose_features`.
    choose_a_head : bool
        Whether to choose one of `featurepipe.models.studies.head_choice.HEADS`.
    """
    train = split.rows("train")
    ids, groups = split.ids[train], split.groups[train]
    labels = manifest.labels(ids)
    for sentence in indistinguishable_classes(labels):
        logger.warning("%s", sentence)
    rows = sample_rows(labels, settings.seed)
    ids, groups = ids[rows], groups[rows]
    labels = {name: truth.take(rows) for name, truth in labels.items()}
    with Progress(None, "Choosing features", "trial") as progress:
        trials = choose_features(
            {cache.name: cache.read(ids) for cache in caches},
            labels,
            groups,
            objective=objective,
            seed=settings.seed,
            n_jobs=limits.n_jobs,
            progress=progress.report,
        )
    _tell_features(trials, objective, len(rows))
    blocks = {trial.attribute: trial.blocks for trial in trials if trial.chosen}
    feature_set = FeatureSet(
        AUTO, used_caches(caches, blocks), blocks, tuple(trials), objective, tuple(caches)
    )
    head_trials: list[HeadTrial] = []
    if choose_a_head:
        with Progress(None, "Choosing a head", "trial") as progress:
            head_trials = choose_head(
                feature_set.read(ids),
                labels,
                groups,
                settings,
                feature_set.columns,
                objective=objective,
                n_jobs=limits.n_jobs,
                progress=progress.report,
            )
        _tell_heads(head_trials)
        (head,) = (trial.head for trial in head_trials if trial.chosen)
        settings = replace(settings, head=head, solver=default_solver(head))
    return FitTask(manifest, split, feature_set, settings, limits, tuple(head_trials))


def _tell_features(trials: Sequence[Trial], objective: str, n_rows: int) -> None:
    width = max(len(_in_words(trial)) for trial in trials)
    logger.info(
        "Tried on %d training images; seen: ordinary folds, unseen: combinations held out. "
        "Chosen: %s; within one standard error of the best, the fewest stores.",
        n_rows,
        _AIMS[objective],
    )
    logger.info("%-*s   seen  unseen", width, "")
    for attribute in dict.fromkeys(trial.attribute for trial in trials):
        candidates = [trial for trial in trials if trial.attribute == attribute]
        for rank, trial in enumerate(candidates):
            if rank < _SHOWN_TRIALS or trial.chosen:
                mark = "  chosen" if trial.chosen else ""
                logger.info("%-*s  %s%s", width, _in_words(trial), _accuracies(trial), mark)
    ordinary = ordinary_block(trials)
    kept = [t.attribute for t in trials if t.chosen and t.blocks == (ordinary,)]
    if kept and objective == "balanced":
        logger.info(
            "%s: %s stays, the best single store. Nothing else is clearly better on one measure "
            "and no worse on the other.",
            ", ".join(kept),
            ordinary,
        )


def _tell_heads(trials: Sequence[HeadTrial]) -> None:
    width = max(len(trial.head) for trial in trials)
    logger.info("Heads on these features, mean over the attributes:")
    for trial in trials:
        mark = "  chosen" if trial.chosen else ""
        logger.info("%-*s  %s%s", width, trial.head, _accuracies(trial), mark)


def _accuracies(trial: Trial | HeadTrial) -> str:
    unseen = "" if np.isnan(trial.unseen_accuracy) else f"{trial.unseen_accuracy:.3f}"
    return f"{trial.seen_accuracy:.3f}  {unseen:>6}"


def _in_words(trial: Trial) -> str:
    return f"{trial.attribute}={'+'.join(trial.blocks)}"
