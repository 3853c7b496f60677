"""The plan of a fit: everything that it needs, checked before anything is written."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
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
    """What will be fitted, all of it checked; a cluster's tasks share it.

    Attributes
    ----------
    request : FitRequest
    manifest : Manifest
    caches : sequence of CachedFeatures
    splits : sequence of Split
    """

    request: FitRequest
    manifest: Manifest
    caches: Sequence[CachedFeatures]
    splits: Sequence[Split]

    @property
    def feature_sets(self) -> list[FeatureSet]:
        """The features of the runs of a split; none if trials choose them."""
        attributes = self.manifest.attribute_names
        return fixed_feature_sets(self.request.features, self.caches, attributes)

    @property
    def runs(self) -> list[tuple[int, int]]:
        """For each run, the places of its split and of its features."""
        n_sets = len(self.feature_sets) or 1
        return list(product(range(len(self.splits)), range(n_sets)))

    def task(self, run: tuple[int, int]) -> FitTask:
        """The task of a run; `--features auto` chooses its features, and perhaps its head, now.

        Parameters
        ----------
        run : tuple of int
            One of `runs`.
        """
        request, split = self.request, self.splits[run[0]]
        if request.features != AUTO:
            feature_set = self.feature_sets[run[1]]
            return FitTask(self.manifest, split, feature_set, request.settings, request.limits)
        return chosen_task(
            self.caches,
            self.manifest,
            split,
            request.settings,
            request.limits,
            objective=request.objective,
            choose_a_head=request.choose_a_head,
        )

    def on_cluster(self) -> "FitPlan":
        """The same, with features that tasks on a cluster share; with `--memory`, they read them.

        Raises
        ------
        ClusterError
            If the cluster has no space for them.
        """
        if self.request.limits.memory_bytes is not None:
            return self
        return replace(self, caches=[cache.on_cluster() for cache in self.caches])


def plan_fit(
    home: Workspace, manifest: Manifest, request: FitRequest
) -> tuple[FitPlan, ImagesToSplit]:
    """Find everything that the fits need, and refuse what can be refused; nothing is written.

    Parameters
    ----------
    home : Workspace
    manifest : Manifest
        With the labels of this fit; it need not be saved.
    request : FitRequest

    Returns
    -------
    FitPlan
    ImagesToSplit
        What its splits are made of.

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
    digests = digests_in_all(caches, manifest.ids, allow_partial=request.allow_partial)
    images = ImagesToSplit(home, manifest, digests, caches, request.limits.memory_bytes)
    plan = FitPlan(request, manifest, caches, plan_splits(images, request.splits))
    for split in plan.splits:
        require_rows(caches, split)
        check_labels(manifest, split, request.settings)
        _check_memory(plan, split)
        if request.curve == "combinations":
            train = split.rows("train")
            labels = manifest.labels(split.ids[train])
            require_combinations(labels, split.groups[train], request.settings.seed)
    _check_own_head(plan)
    return plan, images


def _check_own_head(plan: FitPlan) -> None:
    """Stop if a head of one's own cannot be used, for any of the features.

    Of features that trials will choose, the widest store is tried. Splits have the same classes.
    """
    request = plan.request
    widest = max(plan.caches, key=lambda cache: cache.n_features)
    likely = [one_store_set(widest, plan.manifest.attribute_names)]
    for feature_set in plan.feature_sets or likely:
        task = FitTask(plan.manifest, plan.splits[0], feature_set, request.settings, request.limits)
        require_usable_head(task, request.trusted)


def _check_memory(plan: FitPlan, split: Split) -> None:
    """Stop if memory is bounded and too small for a run, or for the trials that choose it."""
    request = plan.request
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
