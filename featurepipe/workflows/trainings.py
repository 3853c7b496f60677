"""Trainings from one starting point: each a run, trained here or on the nodes of a cluster."""

import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from featurepipe.cluster.spreading import call_each
from featurepipe.errors import FeaturepipeError
from featurepipe.features.cached import CachedFeatures
from featurepipe.features.extraction.pixel_cache import PixelCache
from featurepipe.features.headless import HeadlessNetwork
from featurepipe.features.weights import resolve_weights
from featurepipe.manifest import Manifest
from featurepipe.models.networks.building import fresh_keras
from featurepipe.models.networks.material import Material
from featurepipe.models.networks.network_settings import NetworkSettings
from featurepipe.models.networks.starting_point import cached_features
from featurepipe.runs.naming import Digests, reserve_name
from featurepipe.runs.run_folder import NewRun, Run, load_run, save_run
from featurepipe.runs.run_info import NetworkRunInfo
from featurepipe.splits import Split
from featurepipe.workflows.training_run import digests_of_training, new_run, title_of
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trainings:
    """What trainings from one starting point share; sent to the nodes of a cluster.

    Attributes
    ----------
    manifest : Manifest
    pixels : Path
        The pixel cache.
    settings : NetworkSettings
    headless : HeadlessNetwork or None
        The pretrained backbone; None: training starts from random weights.
    caches : sequence of CachedFeatures
        All feature stores of the workspace.
    backend : str or None
        The backend of Keras, where the environment names it.
    """

    manifest: Manifest
    pixels: Path
    settings: NetworkSettings
    headless: HeadlessNetwork | None
    caches: Sequence[CachedFeatures]
    backend: str | None


@dataclass(frozen=True)
class TrainingPlan:
    """One of these trainings.

    Attributes
    ----------
    split : Split
    name : str
        Name of the run.
    digests : Digests
    checkpoints : Path
        The folder of its checkpoints.
    """

    split: Split
    name: str
    digests: Digests
    checkpoints: Path


def plan_trainings(
    place: Workspace, trainings: Trainings, pixels: PixelCache, splits: Sequence[Split]
) -> list[TrainingPlan]:
    """Name the runs of some trainings.

    Parameters
    ----------
    place : Workspace
        Its lock must be held until all runs are saved.
    trainings : Trainings
    pixels : PixelCache
    splits : sequence of Split

    Raises
    ------
    FitError
        If one of them cannot be trained; see `featurepipe.models.networks.material.Material.of`.
    """
    plans: list[TrainingPlan] = []
    for split in splits:
        material = _material(trainings, pixels, split)
        digests = digests_of_training(material)
        taken = [plan.name for plan in plans]
        name = reserve_name(place, title_of(material), digests.run, taken)
        plans.append(TrainingPlan(split, name, digests, place.training(digests.run)))
    return plans


def run_trainings(
    place: Workspace, trainings: Trainings, plans: Sequence[TrainingPlan], *, resume: bool
) -> list[Run]:
    """Train networks and save the runs, apart from those that are complete.

    Parameters
    ----------
    place : Workspace
    trainings : Trainings
    plans : sequence of TrainingPlan
    resume : bool
        As in `featurepipe.train`.

    Returns
    -------
    list of Run
        In the order of the plans.

    Raises
    ------
    FitError, RunError, WeightsError
        As `featurepipe.models.networks.training.train_on`.
    KeyboardInterrupt
        If interrupted; the run is saved first if an epoch is complete.
    """
    runs = {}
    for plan in plans:
        kept = _complete_run(place.run(plan.name)) if resume else None
        if kept is not None:
            logger.info("Run %s is complete. Use --no-resume to train it again.", kept.name)
            runs[plan.name] = kept
        elif not resume:
            shutil.rmtree(plan.checkpoints, ignore_errors=True)
    missing = [plan for plan in plans if plan.name not in runs]
    trained = call_each(_train, trainings, missing, whole_nodes=True)
    for plan, new in zip(missing, trained, strict=True):
        runs[plan.name] = save_run(place.run(plan.name), new)
        if isinstance(new.info, NetworkRunInfo) and new.info.ended_by == "interrupt":
            raise KeyboardInterrupt
        shutil.rmtree(plan.checkpoints, ignore_errors=True)
    return [runs[plan.name] for plan in plans]


def _train(trainings: Trainings, plan: TrainingPlan) -> NewRun:
    """Train a network, from its checkpoint if there is one; what is to be saved."""
    if trainings.backend is not None:
        # On a node of a cluster, before Keras is imported.
        os.environ["KERAS_BACKEND"] = trainings.backend
    # Keras takes seconds to import, and a complete run needs none of it.
    from featurepipe.models.networks.training import train_on

    trainings = replace(trainings, headless=_with_weights_here(trainings.headless))
    with PixelCache.open(trainings.pixels) as pixels:
        material = _material(trainings, pixels, plan.split)
        features = None
        if material.headless is not None:
            features = cached_features(trainings.caches, material.headless, material.train_ids)
        with fresh_keras():
            network, training = train_on(material, features, plan.checkpoints, resume=True)
            return new_run(material, network, training, plan.name, plan.digests, plan.checkpoints)


def _material(trainings: Trainings, pixels: PixelCache, split: Split) -> Material:
    return Material.of(trainings.manifest, pixels, split, trainings.settings, trainings.headless)


def _with_weights_here(headless: HeadlessNetwork | None) -> HeadlessNetwork | None:
    """The same backbone; ImageNet's weights lie in a folder of the user of each machine."""
    weights = None if headless is None else headless.weights
    if headless is None or weights is None or weights.kind != "imagenet":
        return headless
    if weights.path is not None and weights.path.exists():
        return headless
    return replace(headless, weights=resolve_weights("imagenet", headless.backbone))


def _complete_run(folder: Path) -> Run | None:
    """The run in a folder, unless its training was interrupted or it is damaged."""
    if not folder.exists():
        return None
    try:
        run = load_run(folder)
    except FeaturepipeError as error:
        logger.warning("%s", error)
        return None
    is_complete = isinstance(run.info, NetworkRunInfo) and run.info.ended_by != "interrupt"
    return run if is_complete else None
