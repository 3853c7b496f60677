"""train(): images -> trained networks, one run for each backbone and split."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pandas as pd

from featurepipe.cluster.connecting import require_seen
from featurepipe.errors import ManifestError, SourceError
from featurepipe.features.cached import CachedFeatures, open_caches
from featurepipe.features.engines import training_precision
from featurepipe.features.extraction.pixel_cache import PixelCache, decode_pixels
from featurepipe.features.store import FeatureStore
from featurepipe.manifest import Manifest, Relabelling
from featurepipe.models.answers.questions import check_questions
from featurepipe.models.networks.checks import check_settings
from featurepipe.models.networks.network_settings import NetworkSettings
from featurepipe.models.networks.starting_point import StartingPoint, find_starting_points
from featurepipe.runs.run_folder import Run
from featurepipe.runs.summary import summary
from featurepipe.splits import Split, divisible_ids, each_held_out, make_splits
from featurepipe.workflows.dividing import (
    ImagesToSplit,
    SplitRequest,
    plan_splits,
    save_splits,
    saved_splits,
    settings_of,
    wanted_split,
)
from featurepipe.workflows.executors import Executor
from featurepipe.workflows.leaks import warn_of_imagenet_classes, warn_of_near_duplicates
from featurepipe.workflows.relabelling import (
    check_labels,
    relabelled,
    require_images,
)
from featurepipe.workflows.training_run import LIBRARIES
from featurepipe.workflows.trainings import Trainings, plan_trainings, run_trainings
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)


def train(
    network: str,
    *,
    backbone: str | Sequence[str] = (),
    weights: str | None = None,
    task: str | None = None,
    size_px: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    schedule: str | None = None,
    augment: bool | None = None,
    unfreeze: int | None = None,
    branches: Mapping[str, str] | None = None,
    loss_weights: Mapping[str, float] | None = None,
    class_weight: str = "none",
    positive_pairs: float | None = None,
    precision: str = "auto",
    calibrate: str = "auto",
    thresholds: str | None = None,
    resume: bool = True,
    test_size: float | None = None,
    hold_out: Sequence[str] = (),
    hold_out_each: bool = False,
    repeats: int | None = None,
    group: str | None = None,
    group_duplicates: bool = False,
    attributes: Sequence[str] = (),
    labels: Path | str | None = None,
    label_separator: str | None = None,
    min_per_class: int | None = None,
    workspace: Path | str = ".",
    executor: str = "local",
    ray_address: str | None = None,
    seed: int | None = None,
) -> pd.DataFrame:
    """Train networks on images, and predict the test rows once.

    Parameters
    ----------
    network : str
        ``finetune``, ``fashionnet``, ``smallervggnet``, ``resnet50`` or ``pair``.
    backbone : str or sequence of str
        Of ``finetune`` and ``pair``: the backbones to begin from, each of which gives a run.
        Weights and size are those of the workspace's features of that backbone, else ImageNet's.
        Default: the one that has features.
    weights : str, optional
        Weights to begin from instead: ``imagenet``, ``random`` or a path.
    task : {"per-attribute", "multi-label"}, optional
        A softmax an attribute, or a sigmoid a label; default: the network's own.
    size_px : int, optional
        Image size; default: that of the cached features, else that of the network.
    epochs : int, optional
        Maximum number of epochs of each stage.
    unfreeze : int, optional
        For `finetune` and `pair`: number of final backbone blocks to fine-tune.
    batch_size, learning_rate, schedule, augment, branches, loss_weights, class_weight, \
positive_pairs, calibrate, thresholds
        See `featurepipe.models.networks.network_settings.NetworkSettings`. Default: the recipe of
        the network, `featurepipe.models.networks.recipes.NETWORKS`.
    precision : {"auto", "float32", "bfloat16", "float16"}
        ``"auto"``: half precision where a GPU runs it, else float32.
    resume : bool
        Whether to go on from where a training of the same settings was ended, and to leave one
        that is complete as it is; else it begins anew.
    test_size, hold_out, hold_out_each, repeats, group, group_duplicates, seed, attributes, \
labels, label_separator, min_per_class
        As in `featurepipe.fit`.
    workspace : Path or str
    executor : {"local", "ray"}
        ``"ray"``: each split is trained on a GPU of a Ray cluster, or a node without one; all nodes
        must see the workspace.
    ray_address : str, optional
        As in `featurepipe.extract`.

    Returns
    -------
    pandas.DataFrame
        As `featurepipe.fit`. ``selection_accuracy`` is measured on the validation part of the
        training images, each fold of it after the epoch that is best on the others.

    Raises
    ------
    FeaturepipeError
        If anything given cannot be used; see `featurepipe.errors`.
    KeyboardInterrupt
        If interrupted; the best so far is a run then, if an epoch was complete.
    """
    where = Executor(executor, ray_address)
    settings = NetworkSettings.of(
        network,
        task=task,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        schedule=schedule,
        augment=augment,
        unfreeze=unfreeze,
        branches=branches,
        loss_weights=loss_weights,
        class_weight=class_weight,
        positive_pairs=positive_pairs,
        precision=training_precision(precision),
        calibrate=calibrate,
        thresholds=thresholds,
        seed=seed or 0,
    )
    home = where.workspace(workspace)
    named = [backbone] if isinstance(backbone, str) else backbone
    request = wanted_split(
        test_size, hold_out, hold_out_each, repeats, group, group_duplicates, seed
    )
    runs: list[Run] = []
    require_images(home)
    backend = os.environ.get("KERAS_BACKEND")
    with home.writing(), where.joined(home, *LIBRARIES, "keras", backend or "tensorflow"):
        saved = Manifest.load(home.manifest)
        manifest = relabelled(
            saved, Relabelling(attributes, labels, group, label_separator, min_per_class)
        )
        caches = open_caches(home.stores(), manifest.ids.tolist())
        _check_before_decoding(home, manifest, caches, settings, request)
        starts = find_starting_points(
            settings, caches, backbones=named, weights=weights, size_px=size_px
        )
        if not where.is_local:
            _require_weights_seen(starts)
        if manifest is not saved:
            manifest.save(home.manifest)
        for start in starts:
            if start.headless is not None:
                warn_of_imagenet_classes(manifest, [start.headless.weights.kind])
            with _decoded(home, manifest, start.size_px) as pixels:
                trainings = Trainings(
                    manifest, pixels.path, settings, start.headless, caches, backend
                )
                splits = _find_splits(home, manifest, pixels, caches, request, settings)
                plans = plan_trainings(home, trainings, pixels, splits)
            runs += run_trainings(home, trainings, plans, resume=resume)
    return summary(runs)


def _check_before_decoding(
    home: Workspace,
    manifest: Manifest,
    caches: Sequence[CachedFeatures],
    settings: NetworkSettings,
    request: SplitRequest,
) -> None:
    """Refuse what can be refused without knowing which images can be read.

    Splits are made as if all images could be read and none were copies: what is refused then
    would also be refused later.
    """
    labels = manifest.labels()
    check_settings(settings, labels)
    saved = saved_splits(home)
    if request.settings is not None or not saved:
        wanted = settings_of(request, saved)
        distinct = {str(image_id): str(image_id) for image_id in manifest.ids}
        if wanted.group_duplicates:
            ImagesToSplit(home, manifest, {}, caches).require_near_duplicates()
        ungrouped = replace(wanted, group_duplicates=False)
        make = each_held_out if request.hold_out_each else make_splits
        make(manifest, distinct, ungrouped)
    check_questions(labels, settings.task)


def _require_weights_seen(starts: Sequence[StartingPoint]) -> None:
    """Stop if a node of the cluster does not see a file of weights, or sees another."""
    for start in starts:
        weights = None if start.headless is None else start.headless.weights
        if weights is not None and weights.kind == "file" and weights.path is not None:
            require_seen(weights.path, f"the weights {weights.path}", weights.sha256)


@contextmanager
def _decoded(place: Workspace, manifest: Manifest, size_px: int) -> Iterator[PixelCache]:
    """All images at a size, decoded now unless they were before."""
    path, ids = place.pixels(size_px), manifest.ids.tolist()
    try:
        done = decode_pixels(path, manifest.images(), ids, size_px)
    except (ManifestError, SourceError) as error:
        if not _are_decoded(path, ids):
            raise
        logger.warning("%s", error)
        logger.warning("All images are in %s, which is used as it is.", path)
    else:
        if done.n_embedded:
            logger.info("Decoded %d images to %d px: %s.", done.n_embedded, size_px, path)
        for image, reason in list(done.refused.items())[:5]:
            logger.warning("Left out %s: %s", image, reason)
    with PixelCache.open(path) as pixels:
        yield pixels


def _are_decoded(path: Path, ids: Sequence[str]) -> bool:
    if not path.exists():
        return False
    with FeatureStore.open(path) as store:
        return set(store.ids) - set(store.ids[store.rows("pending")]) >= set(ids)


def _find_splits(
    home: Workspace,
    manifest: Manifest,
    pixels: PixelCache,
    caches: Sequence[CachedFeatures],
    request: SplitRequest,
    settings: NetworkSettings,
) -> list[Split]:
    known = set(manifest.ids)
    digests = {name: digest for name, digest in pixels.digests.items() if name in known}
    ids = divisible_ids(manifest, digests)
    complete = [cache for cache in caches if not cache.missing(ids)]
    images = ImagesToSplit(home, manifest, digests, complete)
    splits = plan_splits(images, request)
    for split in splits:
        check_labels(manifest, split, settings)
    save_splits(home, splits)
    warn_of_near_duplicates(images, splits)
    return splits
