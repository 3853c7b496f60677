"""Which splits of the images a command means, found again or made."""

import logging
from collections.abc import Mapping, Sequence

from featurepipe.errors import FitError, UsageError
from featurepipe.features.cached import CachedFeatures
from featurepipe.manifest import Manifest
from featurepipe.models.heads.fit_memory import in_words
from featurepipe.models.studies.near_duplicates import NearDuplicates, find_near_duplicates
from featurepipe.progress import tell
from featurepipe.splits import Split, SplitSettings, divisible_ids, each_held_out, make_splits
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)


def wanted_split(
    test_size: float | None,
    hold_out: Sequence[str],
    hold_out_each: bool,
    repeats: int | None,
    group: str | None,
    group_duplicates: bool,
    seed: int | None,
) -> SplitSettings | None:
    """What split is asked for; None if nothing about it was said.

    Parameters
    ----------
    test_size, hold_out, hold_out_each, repeats, group, group_duplicates, seed
        As in `featurepipe.fit`.

    Raises
    ------
    UsageError
        If both ways of holding out are asked for.
    """
    if hold_out and hold_out_each:
        raise UsageError(
            f"--hold-out {hold_out[0]} and --hold-out-each contradict each other: the one holds "
            "out what it names, the other every combination in turn. Give one of them."
        )
    usual = SplitSettings()
    said = hold_out or hold_out_each or group_duplicates
    if test_size is repeats is group is seed is None and not said:
        return None
    return SplitSettings(
        test_size=usual.test_size if test_size is None else test_size,
        seed=usual.seed if seed is None else seed,
        hold_out=tuple(hold_out),
        group=group,
        repeats=usual.repeats if repeats is None else repeats,
        group_duplicates=group_duplicates,
    )


def look_for_duplicates(
    manifest: Manifest,
    caches: Sequence[CachedFeatures],
    digests: Mapping[str, bytes],
    budget: int | None,
    group_duplicates: bool,
) -> NearDuplicates | None:
    """Images that are nearly the same, where memory allows to look for them.

    Parameters
    ----------
    manifest : Manifest
    caches : sequence of CachedFeatures
        Features that are read.
    digests : mapping of str to bytes
        Digest of the bytes of each image that is divided.
    budget : int or None
        Bytes of memory that may be taken; None: no bound.
    group_duplicates : bool
        Whether the split depends on them.

    Returns
    -------
    NearDuplicates or None
        None if no store can tell, or memory does not allow.

    Raises
    ------
    FitError
        If the split depends on them and memory does not allow.
    """
    ids = divisible_ids(manifest, digests)
    # The features, once more where they are compared, and distances.
    needed = 3 * max(4 * len(cache.row_of) * cache.n_features for cache in caches)
    if budget is None or needed <= budget:
        return find_near_duplicates([cache.path for cache in caches], ids)
    if group_duplicates:
        raise FitError(
            f"--group-duplicates compares all images at once, which takes about "
            f"{in_words(needed)}: more than --memory {in_words(budget)}. Allow that much, or leave "
            "it out."
        )
    logger.warning(
        "Near-duplicates across training and test are not looked for: that takes about %s of "
        "memory.",
        in_words(needed),
    )
    return None


def find_splits(
    place: Workspace,
    manifest: Manifest,
    digests: Mapping[str, bytes],
    asked: SplitSettings | None,
    hold_out_each: bool,
    found: NearDuplicates | None,
) -> list[Split]:
    """The splits that were asked for, or the first: as saved, or made and saved now.

    Parameters
    ----------
    place : Workspace
    manifest : Manifest
    digests : mapping of str to bytes
        Digest of the bytes of each image that is divided.
    asked : SplitSettings or None
        None: the first that was made serves.
    hold_out_each : bool
        Whether every combination is held out in turn.
    found : NearDuplicates or None

    Returns
    -------
    list of Split

    Raises
    ------
    FitError
        If near-duplicates are to be grouped and cannot be told.
    SplitError
        As `featurepipe.splits.make_splits`.
    """
    saved = sorted(map(Split.load, place.splits()), key=lambda split: split.number)
    if asked is None and saved and saved[0].covers(divisible_ids(manifest, digests)):
        return saved[:1]
    settings = asked or (saved[0].settings if saved else SplitSettings())
    splits = []
    for made in _make_splits(manifest, digests, settings, hold_out_each, found):
        split = next((old for old in saved if old.divides_like(made)), None)
        if split is None:
            split = made.registered(len(saved), [old.name for old in saved])
            split.save(place.split(split.name))
            tell(split.findings)
            counts = (f"{count} {part}" for part, count in split.counts().items() if count)
            logger.info("Split %s: %s images.", split.name, ", ".join(counts))
            saved.append(split)
        splits.append(split)
    return splits


def _make_splits(
    manifest: Manifest,
    digests: Mapping[str, bytes],
    settings: SplitSettings,
    hold_out_each: bool,
    found: NearDuplicates | None,
) -> list[Split]:
    if settings.group_duplicates and found is None:
        raise FitError(
            "Near-duplicates cannot be told by colours alone: expected features of a network for "
            "--group-duplicates. Make some, such as: featurepipe extract --backbone mobilenet_v2"
        )
    alike = {} if found is None else found.groups()
    if not hold_out_each:
        return make_splits(manifest, digests, settings, alike)
    each, findings = each_held_out(manifest, digests, settings, alike)
    tell(findings)
    return [split for one in each for split in make_splits(manifest, digests, one, alike)]
