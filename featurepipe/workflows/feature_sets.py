"""The features that each attribute's head reads, as a person names them."""

from collections.abc import Mapping, Sequence

from featurepipe.errors import FitError, UnknownNameError, UsageError
from featurepipe.features.backbones import bare_name
from featurepipe.features.cached import CachedFeatures
from featurepipe.features.extraction.views import VIEWS
from featurepipe.models.studies.hold_outs import OBJECTIVES
from featurepipe.runs.feature_set import FeatureSet, one_store_set
from featurepipe.splits import Split

AUTO = "auto"


def check_features(features: str | None, objective: str | None, task: str) -> None:
    """Stop at ``--features`` and ``--objective`` that contradict each other or the task.

    Parameters
    ----------
    features, objective, task
        See `featurepipe.fit`.

    Raises
    ------
    UsageError
    UnknownNameError
        If there is no such objective.
    """
    if objective is not None and objective not in OBJECTIVES:
        raise UnknownNameError("objective", objective, OBJECTIVES)
    if objective and features != AUTO:
        raise UsageError(
            f"--objective {objective} requires --features auto. Add --features auto, or omit "
            "--objective."
        )
    if features and task != "per-attribute" and (features == AUTO or "=" in features):
        raise UsageError(
            f"--features {features} chooses features for each attribute, but --task {task} fits "
            "one head for all attributes. Name the stores that this head reads, for example "
            "--features mobilenet_v2:grey+hsv_histogram."
        )


def fixed_feature_sets(
    features: str | None, caches: Sequence[CachedFeatures], attributes: Sequence[str]
) -> list[FeatureSet]:
    """The feature sets that are known before any trial; each gives a run.

    Parameters
    ----------
    features : str or None
        See `featurepipe.fit`. None: one feature set for each store; ``"auto"``: none yet.
    caches : sequence of CachedFeatures
    attributes : sequence of str

    Raises
    ------
    UnknownNameError, UsageError
        See `named_feature_set`.
    """
    if features is None:
        return [one_store_set(cache, attributes) for cache in caches]
    return [] if features == AUTO else [named_feature_set(features, caches, attributes)]


def require_rows(caches: Sequence[CachedFeatures], split: Split) -> None:
    """Stop if a store lacks the features of an image of a split.

    Parameters
    ----------
    caches : sequence of CachedFeatures
    split : Split

    Raises
    ------
    FitError
    """
    for cache in caches:
        if missing := cache.missing(split.ids):
            raise FitError(
                f"{cache.path} has no features of {len(missing)} of the {len(split.ids)} images of "
                f"the split {split.name}, such as {missing[0]!r}, which another store has. Extract "
                "again with --retry-refused."
            )


def named_feature_set(
    text: str, caches: Sequence[CachedFeatures], attributes: Sequence[str]
) -> FeatureSet:
    """The features that a person named.

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
        If the text cannot be read, or an attribute is missing.
    """
    if "=" in text:
        blocks = _blocks_by_attribute(text, caches, attributes)
    else:
        blocks = dict.fromkeys(attributes, _named_blocks(text, caches))
    titles = {cache.name: cache.title for cache in caches}
    choices = set(blocks.values())
    title = (
        "+".join(map(titles.__getitem__, choices.pop())) if len(choices) == 1 else "by-attribute"
    )
    return FeatureSet(title, used_caches(caches, blocks), blocks)


def _blocks_by_attribute(
    text: str, caches: Sequence[CachedFeatures], attributes: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    pairs = [part.partition("=") for part in text.split(",")]
    for name, _, _ in pairs:
        if name.strip() not in attributes:
            raise UnknownNameError("attribute", name.strip(), attributes)
    given = {name.strip(): _named_blocks(stores, caches) for name, _, stores in pairs}
    missing = [name for name in attributes if name not in given]
    if missing or len(given) < len(pairs):
        what = f"does not name {missing[0]!r}" if missing else "names an attribute twice"
        raise UsageError(
            f"--features {text!r} {what}. Expected ATTRIBUTE=STORE[+STORE] once for each of: "
            f"{', '.join(attributes)}."
        )
    return {name: given[name] for name in attributes}


def _named_blocks(text: str, caches: Sequence[CachedFeatures]) -> tuple[str, ...]:
    names = [named_cache(name.strip(), caches).name for name in text.split("+")]
    if len(set(names)) < len(names):
        raise UsageError(f"--features {text!r} names a store twice. Name each once.")
    return tuple(names)


def named_cache(name: str, caches: Sequence[CachedFeatures]) -> CachedFeatures:
    """The store that a person named.

    Parameters
    ----------
    name : str
        ``backbone:view``, ``backbone`` for the view rgb, or the name of its file.
    caches : sequence of CachedFeatures

    Raises
    ------
    UnknownNameError
        If there is no such store.
    UsageError
        If there are several.
    """
    for cache in caches:
        if cache.path.stem == name:
            return cache
    # The names of presets have colons, too.
    backbone, _, view = name.rpartition(":")
    if view not in VIEWS:
        backbone, view = name, ""
    matching = [
        cache
        for cache in caches
        if bare_name(cache.key.backbone) == bare_name(backbone)
        and cache.key.view == (view or "rgb")
    ]
    if not matching:
        raise UnknownNameError(
            "features",
            name,
            [cache.name for cache in caches],
            f"Make them: featurepipe extract --backbone {backbone} --view {view or 'rgb'}",
        )
    if len(matching) > 1:
        names = ", ".join(cache.path.stem for cache in matching)
        raise UsageError(
            f"Several stores match {name!r}: {names}. Name one of them in --features by its file."
        )
    return matching[0]


def used_caches(
    caches: Sequence[CachedFeatures], blocks: Mapping[str, tuple[str, ...]]
) -> tuple[CachedFeatures, ...]:
    """The caches that some attribute's head reads.

    Parameters
    ----------
    caches : sequence of CachedFeatures
    blocks : mapping of str to tuple of str
        See `FeatureSet`.
    """
    used = {name for names in blocks.values() for name in names}
    return tuple(cache for cache in caches if cache.name in used)
