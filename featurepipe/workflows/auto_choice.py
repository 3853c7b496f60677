"""``--features auto``: features for each attribute, and a head, chosen by trials."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from featurepipe.features.cached import CachedFeatures
from featurepipe.manifest import Labels, Manifest
from featurepipe.models.answers.arrays import Rows, columns_of_blocks
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.studies.feature_choice import (
    Trial,
    choose_features,
    indistinguishable_classes,
    ordinary_block,
    sample_rows,
)
from featurepipe.models.studies.head_choice import HEADS, HeadTrial, choose_head
from featurepipe.progress import Progress
from featurepipe.runs.feature_set import FeatureSet
from featurepipe.splits import Split
from featurepipe.workflows.auto_memory import AutoMemory
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
    all_labels = manifest.labels(split.ids[train])
    for sentence in indistinguishable_classes(all_labels):
        logger.warning("%s", sentence)
    rows = sample_rows(all_labels, settings.seed)
    ids, groups = split.ids[train][rows], split.groups[train][rows]
    memory = _memory_of(all_labels, rows, settings, limits)
    labels = dict(memory.sampled)
    with Progress(None, "Choosing features", "trial") as progress:
        trials = choose_features(
            {cache.name: cache.read(ids) for cache in caches},
            labels,
            groups,
            objective=objective,
            seed=settings.seed,
            n_jobs=memory.feature_jobs(caches),
            progress=progress.report,
        )
    _tell_features(trials, objective, len(rows))
    ordinary = (ordinary_block(trials),)
    blocks = {trial.attribute: trial.blocks for trial in trials if trial.chosen}
    heads: Sequence[str] = _candidates(settings, choose_a_head=choose_a_head)
    width = _width(used_caches(caches, blocks | {"": ordinary}))
    within = memory.heads_within(heads, width)
    if not within:
        logger.info(
            "Keeping %s, the best store for all attributes, for each: no head fits into memory "
            "with the features above.",
            ordinary[0],
        )
        blocks = dict.fromkeys(blocks, ordinary)
        width = _width(used_caches(caches, blocks))
        within = memory.heads_within(heads, width)
    heads = within
    settings = settings.with_head(heads[0])
    head_trials: list[HeadTrial] = []
    if len(heads) > 1 or set(blocks.values()) != {ordinary}:
        tried = used_caches(caches, blocks | {"": ordinary})
        widths = {cache.name: cache.n_features for cache in tried}
        columns = columns_of_blocks(widths, blocks | {"": ordinary})
        with Progress(None, "Trying heads", "trial") as progress:
            head_trials = choose_head(
                np.hstack([cache.read(ids) for cache in tried]),
                labels,
                groups,
                settings,
                {name: columns[name] for name in labels},
                columns[""],
                heads=heads,
                objective=objective,
                n_jobs=memory.head_jobs(heads, width),
                progress=progress.report,
            )
        _tell_heads(head_trials, ordinary[0])
        (best,) = (trial for trial in head_trials if trial.chosen)
        settings = settings.with_head(best.head)
        blocks |= dict.fromkeys(best.ordinary, ordinary)
    trials = [replace(t, chosen=t.blocks == blocks[t.attribute]) for t in trials]
    feature_set = FeatureSet(
        AUTO, used_caches(caches, blocks), blocks, tuple(trials), objective, tuple(caches)
    )
    return FitTask(
        manifest, split, feature_set, settings, limits, tuple(head_trials) if choose_a_head else ()
    )


def require_room_for_trials(
    caches: Sequence[CachedFeatures],
    manifest: Manifest,
    split: Split,
    settings: HeadSettings,
    limits: FitLimits,
    *,
    choose_a_head: bool,
) -> None:
    """Stop if memory is bounded, and too small for `chosen_task` or for what it may choose.

    Parameters
    ----------
    caches, manifest, split, settings, limits, choose_a_head
        See `chosen_task`.

    Raises
    ------
    FitError
    """
    if limits.memory_bytes is None:
        return
    labels = manifest.labels(split.ids[split.rows("train")])
    memory = _memory_of(labels, sample_rows(labels, settings.seed), settings, limits)
    memory.require(caches, _candidates(settings, choose_a_head=choose_a_head))


def _candidates(settings: HeadSettings, *, choose_a_head: bool) -> tuple[str, ...]:
    return HEADS if choose_a_head else (settings.head,)


def _memory_of(
    labels: dict[str, Labels], rows: Rows, settings: HeadSettings, limits: FitLimits
) -> AutoMemory:
    sampled = {name: truth.take(rows) for name, truth in labels.items()}
    return AutoMemory(settings, limits, labels, sampled)


def _width(caches: Sequence[CachedFeatures]) -> int:
    return sum(cache.n_features for cache in caches)


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


def _tell_heads(trials: Sequence[HeadTrial], ordinary: str) -> None:
    width = max(len(trial.head) for trial in trials)
    logger.info("Heads on these features, mean over the attributes:")
    for trial in trials:
        mark = "  chosen" if trial.chosen else ""
        logger.info("%-*s  %s%s", width, trial.head, _accuracies(trial), mark)
        if trial.chosen and trial.ordinary:
            logger.info(
                "Keeping %s, the best store for all attributes, for %s: with %s, the features "
                "above are worse on one of the measures.",
                ordinary,
                ", ".join(trial.ordinary),
                trial.head,
            )


def _accuracies(trial: Trial | HeadTrial) -> str:
    unseen = "" if np.isnan(trial.unseen_accuracy) else f"{trial.unseen_accuracy:.3f}"
    return f"{trial.seen_accuracy:.3f}  {unseen:>6}"


def _in_words(trial: Trial) -> str:
    return f"{trial.attribute}={'+'.join(trial.blocks)}"
