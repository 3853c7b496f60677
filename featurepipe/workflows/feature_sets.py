"""Which cached features each attribute's head reads: named by a person, or chosen by trial."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import UnknownNameError, UsageError
from featurepipe.features.backbones import bare_name
from featurepipe.features.cached import CachedFeatures
from featurepipe.manifest import Labels
from featurepipe.models.studies.feature_choice import (
    Trial,
    choose_features,
    indistinguishable_classes,
    sample_rows,
)
from featurepipe.progress import Progress
from featurepipe.runs.feature_set import FeatureSet

logger = logging.getLogger(__name__)

AUTO = "auto"

_SHOWN_TRIALS = 5
_AIMS = {
    "balanced": "the best mean of both",
    "unseen": "the best unseen accuracy",
    "seen": "the best seen accuracy",
}


def named_feature_set(
    text: str, caches: Sequence[CachedFeatures], attributes: Sequence[str]
) -> FeatureSet:
    """What a person has set by hand.

    Parameters
    ----------
    text : str
        ``store+store`` for all attributes, or ``attribute=store+store,…`` for each. A store
        is ``backbone:view``, ``backbone`` for the view rgb, or the name of its file.
    caches : sequence of CachedFeatures
    attributes : sequence of str

    Raises
    ------
    UnknownNameError
        If there is no such attribute or store.
    UsageError
        If the text cannot be read, or lacks an attribute.
    """
    if "=" not in text:
        blocks = dict.fromkeys(attributes, _named_blocks(text, caches))
    else:
        pairs = [part.partition("=") for part in text.split(",")]
        for name, _, _ in pairs:
            if name.strip() not in attributes:
                raise UnknownNameError("attribute", name.strip(), attributes)
        given = {name.strip(): _named_blocks(stores, caches) for name, _, stores in pairs}
        missing = [name for name in attributes if name not in given]
        if missing or len(given) < len(pairs):
            what = f"says nothing of {missing[0]!r}" if missing else "names an attribute twice"
            raise UsageError(
                f"--features {text!r} {what}. Expected ATTRIBUTE=STORE[+STORE] once for each of: "
                f"{', '.join(attributes)}."
            )
        blocks = {name: given[name] for name in attributes}
    titles = {cache.name: cache.title for cache in caches}
    choices = set(blocks.values())
    title = (
        "+".join(map(titles.__getitem__, choices.pop())) if len(choices) == 1 else "by-attribute"
    )
    return FeatureSet(title, _used(caches, blocks), blocks)


def chosen_feature_set(
    caches: Sequence[CachedFeatures],
    ids: NDArray[np.object_],
    labels: Mapping[str, Labels],
    groups: NDArray[np.intp],
    *,
    objective: str,
    seed: int,
    n_jobs: int,
) -> FeatureSet:
    """What trials on training rows choose for each attribute, and say why.

    Parameters
    ----------
    caches : sequence of CachedFeatures
        Among which is chosen.
    ids : ndarray of shape (n_train,), str objects
    labels : mapping of str to Labels
        Of the training images.
    groups : ndarray of shape (n_train,), intp
    objective, seed, n_jobs
        As in `featurepipe.models.studies.feature_choice.choose_features`.
    """
    for sentence in indistinguishable_classes(labels):
        logger.warning("%s", sentence)
    rows = sample_rows(labels, seed)
    with ExitStack() as stack:
        bar: list[Progress] = []

        def advance(n_done: int, n_total: int) -> None:
            if not bar:
                bar.append(stack.enter_context(Progress(n_total, "Choosing features", "trial")))
            bar[0].advance()

        trials = choose_features(
            {cache.name: cache.read(ids[rows]) for cache in caches},
            {name: each.take(rows) for name, each in labels.items()},
            groups[rows],
            objective=objective,
            seed=seed,
            n_jobs=n_jobs,
            progress=advance,
        )
    _tell(trials, objective, len(rows))
    blocks = {trial.attribute: trial.blocks for trial in trials if trial.chosen}
    return FeatureSet(AUTO, _used(caches, blocks), blocks, tuple(trials), objective, tuple(caches))


def _named_blocks(text: str, caches: Sequence[CachedFeatures]) -> tuple[str, ...]:
    names = [_named_cache(name.strip(), caches) for name in text.split("+")]
    if len(set(names)) < len(names):
        raise UsageError(f"--features {text!r} names a store twice. Expected each once.")
    return tuple(names)


def _named_cache(name: str, caches: Sequence[CachedFeatures]) -> str:
    if name in {cache.path.stem for cache in caches}:
        return next(cache.name for cache in caches if cache.path.stem == name)
    backbone, _, view = name.partition(":")
    found = [
        cache
        for cache in caches
        if bare_name(cache.key.backbone) == bare_name(backbone)
        and cache.key.view == (view or "rgb")
    ]
    if not found:
        raise UnknownNameError(
            "features",
            name,
            [cache.name for cache in caches],
            f"Make them: featurepipe extract --backbone {backbone} --view {view or 'rgb'}",
        )
    if len(found) > 1:
        names = ", ".join(cache.path.stem for cache in found)
        raise UsageError(
            f"Several stores are {name!r}: {names}. Name one of them in --features by its file."
        )
    return found[0].name


def _used(
    caches: Sequence[CachedFeatures], blocks: Mapping[str, tuple[str, ...]]
) -> tuple[CachedFeatures, ...]:
    used = {name for names in blocks.values() for name in names}
    return tuple(cache for cache in caches if cache.name in used)


def _tell(trials: Sequence[Trial], objective: str, n_rows: int) -> None:
    width = max(len(_in_words(trial)) for trial in trials)
    logger.info(
        "Tried on %d training images; seen: ordinary folds, unseen: whole combinations held out. "
        "Chosen: %s; within one standard error of the best, the fewest stores.",
        n_rows,
        _AIMS[objective],
    )
    logger.info("%-*s   seen  unseen", width, "")
    for attribute in dict.fromkeys(trial.attribute for trial in trials):
        own = [trial for trial in trials if trial.attribute == attribute]
        for place, trial in enumerate(own):
            if place < _SHOWN_TRIALS or trial.chosen:
                unseen = "" if np.isnan(trial.unseen_accuracy) else f"{trial.unseen_accuracy:.3f}"
                logger.info(
                    "%-*s  %.3f  %6s%s",
                    width,
                    _in_words(trial),
                    trial.seen_accuracy,
                    unseen,
                    "  chosen" if trial.chosen else "",
                )


def _in_words(trial: Trial) -> str:
    return f"{trial.attribute}={'+'.join(trial.blocks)}"
