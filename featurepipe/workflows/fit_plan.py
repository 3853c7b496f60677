"""The plan of a fit: everything that it needs, checked before anything is written."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from featurepipe.errors import UnknownNameError, WorkspaceError
from featurepipe.features.backbones import bare_name
from featurepipe.features.cached import CachedFeatures, digests_in_all, open_caches
from featurepipe.features.store import FeatureStore
from featurepipe.manifest import Manifest
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.studies.combination_curve import require_combinations
from featurepipe.runs.feature_set import FeatureSet, one_store_set
from featurepipe.splits import Split
from featurepipe.workflows.auto_choice import chosen_task, require_room_for_trials
from featurepipe.workflows.dividing import ImagesToSplit, SplitRequest, plan_splits
from featurepipe.workflows.feature_sets import (
    AUTO,
    fixed_feature_sets,
    named_feature_set,
    require_rows,
)
from featurepipe.workflows.fit_task import FitLimits, FitTask
from featurepipe.workflows.relabelling import check_labels
from featurepipe.workflows.trial_fit import require_usable_head
from featurepipe.workspace import Workspace


@dataclass(frozen=True)
class FitRequest:
    """The options of `fit`, parsed."""

    settings: HeadSettings
    limits: FitLimits
    backbones: tuple[str, ...]
    features: str | None
    objective: str
    choose_a_head: bool
    allow_partial: bool
    splits: SplitRequest
    curve: str | None
    trusted: tuple[str, ...]


@dataclass(frozen=True)
class FitPlan:
    """What will be fitted, all of it checked; nothing is written yet.

    `feature_sets` is empty if the features are chosen by trials.
    """

    manifest: Manifest
    caches: Sequence[CachedFeatures]
    images: ImagesToSplit
    splits: Sequence[Split]
    feature_sets: Sequence[FeatureSet]


def plan_fit(home: Workspace, manifest: Manifest, request: FitRequest) -> FitPlan:
    """Find everything that the fits need, and refuse what can be refused.

    Parameters
    ----------
    home : Workspace
    manifest : Manifest
        With the labels of this fit; it need not be saved.
    request : FitRequest

    Raises
    ------
    FeaturepipeError
        If the fits cannot be made; see `featurepipe.fit`.
    """
    attributes = manifest.attribute_names
    caches: Sequence[CachedFeatures]
    caches = open_caches(_choose_stores(home, request.backbones), manifest.ids.tolist())
    if request.features not in (None, AUTO):
        caches = named_feature_set(request.features, caches, attributes).caches
    digests = digests_in_all(caches, len(manifest), allow_partial=request.allow_partial)
    images = ImagesToSplit(home, manifest, digests, caches, request.limits.memory_bytes)
    plan = FitPlan(
        manifest,
        caches,
        images,
        plan_splits(images, request.splits),
        fixed_feature_sets(request.features, caches, attributes),
    )
    for split in plan.splits:
        require_rows(caches, split)
        check_labels(manifest, split, request.settings)
        _check_memory(plan, split, request)
        if request.curve == "combinations":
            train = split.rows("train")
            labels = manifest.labels(split.ids[train])
            require_combinations(labels, split.groups[train], request.settings.seed)
    _check_own_head(plan, request)
    return plan


def tasks_of(plan: FitPlan, split: Split, request: FitRequest) -> list[FitTask]:
    """The runs of a split; `--features auto` chooses its features, and perhaps its head, now.

    Parameters
    ----------
    plan : FitPlan
    split : Split
        One of the plan's.
    request : FitRequest
    """
    if request.features == AUTO:
        return [
            chosen_task(
                plan.caches,
                plan.manifest,
                split,
                request.settings,
                request.limits,
                objective=request.objective,
                choose_a_head=request.choose_a_head,
            )
        ]
    return [
        FitTask(plan.manifest, split, feature_set, request.settings, request.limits)
        for feature_set in plan.feature_sets
    ]


def _check_own_head(plan: FitPlan, request: FitRequest) -> None:
    """Stop if a head of one's own cannot be used, for any of the features.

    Of features that trials will choose, the widest store is tried. Splits have the same classes.
    """
    widest = max(plan.caches, key=lambda cache: cache.n_features)
    likely = [one_store_set(widest, plan.manifest.attribute_names)]
    for feature_set in plan.feature_sets or likely:
        task = FitTask(plan.manifest, plan.splits[0], feature_set, request.settings, request.limits)
        require_usable_head(task, request.trusted)


def _check_memory(plan: FitPlan, split: Split, request: FitRequest) -> None:
    """Stop if memory is bounded and too small for a run, or for the trials that choose it."""
    if request.features == AUTO:
        require_room_for_trials(
            plan.caches,
            plan.manifest,
            split,
            request.settings,
            request.limits,
            choose_a_head=request.choose_a_head,
        )
    for feature_set in plan.feature_sets:
        task = FitTask(plan.manifest, split, feature_set, request.settings, request.limits)
        _ = task.chunk_rows


def _choose_stores(home: Workspace, backbones: Sequence[str]) -> list[Path]:
    stores = home.stores()
    if not stores:
        raise WorkspaceError(
            f"The workspace {home.root} has no features yet. Make some: featurepipe extract"
        )
    if not backbones:
        return stores
    stores_of: dict[str, list[Path]] = {}
    for path in stores:
        with FeatureStore.open(path) as store:
            stores_of.setdefault(store.key.backbone, []).append(path)
    by_bare_name = {bare_name(name): name for name in stores_of}
    chosen = {name: by_bare_name.get(bare_name(name)) for name in backbones}
    for name in (name for name, found in chosen.items() if found is None):
        raise UnknownNameError(
            "features of backbone",
            name,
            stores_of,
            f"Make them: featurepipe extract --backbone {name}",
        )
    return [path for name in stores_of if name in chosen.values() for path in stores_of[name]]
