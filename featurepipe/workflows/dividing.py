"""The splits that a command asks for: found again, or made in memory and saved later."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import FitError, UsageError
from featurepipe.features.cached import CachedFeatures
from featurepipe.manifest import Manifest
from featurepipe.models.heads.fit_memory import in_words
from featurepipe.models.studies.near_duplicates import (
    DuplicateSearch,
    NearDuplicates,
    deciding_store,
)
from featurepipe.progress import tell
from featurepipe.splits import Split, SplitSettings, divisible_ids, each_held_out, make_splits
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SplitRequest:
    """Which splits are requested.

    Attributes
    ----------
    settings : SplitSettings or None
        None: the workspace's first split, or one with the default settings.
    hold_out_each : bool
        Whether every combination is held out in turn.
    """

    settings: SplitSettings | None
    hold_out_each: bool = False


@dataclass(frozen=True)
class ImagesToSplit:
    """What splits are made of.

    Attributes
    ----------
    workspace : Workspace
        Its files remember near-duplicates.
    manifest : Manifest
    digests : mapping of str to bytes
        Digest of the bytes of each image that may be divided.
    caches : sequence of CachedFeatures
        Features that tell near-duplicates.
    memory_bytes : int or None
        Bound of the memory for that; None: no bound.
    """

    workspace: Workspace
    manifest: Manifest
    digests: Mapping[str, bytes]
    caches: Sequence[CachedFeatures] = ()
    memory_bytes: int | None = None

    @cached_property
    def ids(self) -> NDArray[np.object_]:
        """Ids of the images to divide: labelled and readable ones."""
        return divisible_ids(self.manifest, self.digests)

    @cached_property
    def near_duplicates(self) -> NearDuplicates | None:
        """Images that are nearly the same; None if no store can tell."""
        return None if self._search is None else self._search.find(self.memory_bytes)

    def known_near_duplicates(self) -> NearDuplicates | None:
        """The same if they are found or remembered, or all features fit into memory.

        Else None, with a warning: comparing all images chunk by chunk may take long, and is left
        to those who request it.
        """
        if "near_duplicates" in self.__dict__ or self._has_memory or self._search is None:
            return self.near_duplicates
        known = self._search.remembered()
        if known is None:
            logger.warning(
                "Skipping the search for near-duplicates across training and test images: it "
                "needs about %s of memory, or takes long. --group-duplicates searches in any case.",
                in_words(self._needed_bytes),
            )
        return known

    def remember_near_duplicates(self) -> None:
        """Write down the near-duplicates that were found; the workspace's lock must be held."""
        if self._search is not None and self.near_duplicates is not None:
            self._search.remember(self.near_duplicates)

    def require_near_duplicates(self) -> None:
        """Stop if no store can show near-duplicates; nothing is computed.

        Raises
        ------
        FitError
        """
        if deciding_store([cache.path for cache in self.caches]) is None:
            raise FitError(
                "Colours alone do not show near-duplicates: --group-duplicates needs the "
                "features of a network. Extract some, for example: featurepipe extract "
                "--backbone mobilenet_v2"
            )

    @cached_property
    def _search(self) -> DuplicateSearch | None:
        store = deciding_store([cache.path for cache in self.caches])
        return None if store is None else DuplicateSearch.among(self.workspace, store, self.ids)

    @property
    def _has_memory(self) -> bool:
        return self.memory_bytes is None or self._needed_bytes <= self.memory_bytes

    @property
    def _needed_bytes(self) -> int:
        # The features, once more where they are compared, and distances.
        sizes = [4 * len(cache.images) * cache.n_features for cache in self.caches]
        return 3 * max(sizes, default=0)


def wanted_split(
    test_size: float | None,
    hold_out: Sequence[str],
    hold_out_each: bool,
    repeats: int | None,
    group: str | None,
    group_duplicates: bool,
    seed: int | None,
) -> SplitRequest:
    """The splits that the options of a command ask for.

    Parameters
    ----------
    test_size, hold_out, hold_out_each, repeats, group, group_duplicates, seed
        See `featurepipe.fit`.

    Raises
    ------
    UsageError
        If both options for held-out combinations are given.
    SplitError
        If a value is out of its range.
    """
    if hold_out and hold_out_each:
        raise UsageError(
            f"--hold-out {hold_out[0]} cannot be combined with --hold-out-each, which holds out "
            "every combination in turn. Omit one of them."
        )
    default = SplitSettings()
    is_flagged = hold_out or hold_out_each or group_duplicates
    if test_size is repeats is group is seed is None and not is_flagged:
        return SplitRequest(None)
    settings = SplitSettings(
        test_size=default.test_size if test_size is None else test_size,
        seed=default.seed if seed is None else seed,
        hold_out=tuple(hold_out),
        group=group,
        repeats=default.repeats if repeats is None else repeats,
        group_duplicates=group_duplicates,
    )
    return SplitRequest(settings, hold_out_each)


def plan_splits(images: ImagesToSplit, request: SplitRequest) -> list[Split]:
    """The splits that are requested, as they are saved or made now; nothing is written.

    Parameters
    ----------
    images : ImagesToSplit
    request : SplitRequest

    Returns
    -------
    list of Split
        With their names and numbers.

    Raises
    ------
    FitError
        If near-duplicates are to be grouped and no store shows them.
    SplitError, UnknownNameError
        As `featurepipe.splits.make_splits`.
    """
    saved = saved_splits(images.workspace)
    if request.settings is None and saved and saved[0].covers(images.ids):
        return saved[:1]
    splits = []
    for made in _make_splits(images, settings_of(request, saved), request.hold_out_each):
        split = next((old for old in saved if old.divides_like(made)), None)
        if split is None:
            split = made.registered(len(saved), [old.name for old in saved])
            saved.append(split)
        splits.append(split)
    return splits


def saved_splits(workspace: Workspace) -> list[Split]:
    """The splits of a workspace, in the order of their creation.

    Parameters
    ----------
    workspace : Workspace

    Raises
    ------
    SplitError
        If a file is damaged.
    """
    return sorted(map(Split.load, workspace.splits()), key=lambda split: split.number)


def settings_of(request: SplitRequest, saved: Sequence[Split]) -> SplitSettings:
    """The settings that are requested, else those of the first split, else the default.

    Parameters
    ----------
    request : SplitRequest
    saved : sequence of Split
        From `saved_splits`.
    """
    return request.settings or (saved[0].settings if saved else SplitSettings())


def save_splits(workspace: Workspace, splits: Sequence[Split]) -> None:
    """Save those splits that are new, and say what they are.

    Parameters
    ----------
    workspace : Workspace
    splits : sequence of Split
        From `plan_splits`.
    """
    for split in splits:
        path = workspace.split(split.name)
        if path.exists():
            continue
        split.save(path)
        tell(split.findings)
        counts = (f"{count} {part}" for part, count in split.counts().items() if count)
        logger.info("Split %s: %s images.", split.name, ", ".join(counts))


def _make_splits(
    images: ImagesToSplit, settings: SplitSettings, hold_out_each: bool
) -> list[Split]:
    alike: dict[str, int] = {}
    if settings.group_duplicates:
        images.require_near_duplicates()
        near_duplicates = images.near_duplicates
        alike = {} if near_duplicates is None else near_duplicates.groups()
    manifest, digests = images.manifest, images.digests
    if not hold_out_each:
        return make_splits(manifest, digests, settings, alike)
    settings_of_splits, findings = each_held_out(manifest, digests, settings, alike)
    tell(findings)
    return [
        split for one in settings_of_splits for split in make_splits(manifest, digests, one, alike)
    ]
