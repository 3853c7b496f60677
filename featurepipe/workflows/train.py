"""train(): images -> trained networks, one run for each backbone and split."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pandas as pd

from featurepipe.features.cached import open_caches
from featurepipe.features.engines import training_precision
from featurepipe.features.extraction.pixel_cache import PixelCache, decode_pixels
from featurepipe.manifest import Manifest
from featurepipe.models.networks.network_settings import NetworkSettings
from featurepipe.splits import Split, SplitSettings, divisible_ids
from featurepipe.workflows.dividing import find_splits, look_for_duplicates, wanted_split
from featurepipe.workflows.leaks import warn_of_imagenet_classes, warn_of_near_duplicates
from featurepipe.workflows.runs import labelled_manifest, summary
from featurepipe.workflows.starting import starting_networks
from featurepipe.workflows.training_run import train_run
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)


def train(
    network: str,
    *,
    backbone: str | Sequence[str] = (),
    weights: str | None = None,
    task: str = "",
    size_px: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    schedule: str | None = None,
    augment: bool | None = None,
    unfreeze: int | None = None,
    branches: Mapping[str, str] | None = None,
    loss_weights: Mapping[str, float] | None = None,
    class_weight: str = NetworkSettings.class_weight,
    positive_pairs: float | None = None,
    precision: str = "auto",
    calibrate: str = NetworkSettings.calibrate,
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
    workspace: Path | str = ".",
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
    size_px, epochs, batch_size, learning_rate, schedule, augment, unfreeze, branches, \
loss_weights, class_weight, positive_pairs, calibrate, thresholds
        See `featurepipe.models.networks.network_settings.NetworkSettings`; default: the recipe of
        the network, `featurepipe.models.networks.recipes.NETWORKS`. Epochs count for each stage.
    precision : {"auto", "float32", "bfloat16", "float16"}
        ``"auto"``: half precision where a GPU runs it, else float32.
    resume : bool
        Whether to go on from where a training of the same settings was ended, and to leave one
        that is complete as it is; else it begins anew.
    test_size, hold_out, hold_out_each, repeats, group, group_duplicates, seed, attributes, \
labels, label_separator
        As in `featurepipe.fit`.
    workspace : Path or str

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
    settings = NetworkSettings(
        network=network,
        task=task,
        size_px=size_px,
        n_epochs=epochs or 0,
        batch_size=batch_size or 0,
        learning_rate=learning_rate,
        schedule=schedule,
        augments=augment,
        n_blocks=unfreeze,
        branches=dict(branches or {}),
        loss_weights=dict(loss_weights or {}),
        class_weight=class_weight,
        positive_pairs=positive_pairs,
        precision=training_precision(precision),
        calibrate=calibrate,
        thresholds=thresholds,
        seed=seed or 0,
    )
    place = Workspace(workspace)
    named = [backbone] if isinstance(backbone, str) else backbone
    asked = wanted_split(test_size, hold_out, hold_out_each, repeats, group, group_duplicates, seed)
    infos = []
    with place.writing():
        manifest = labelled_manifest(place, attributes, labels, group, label_separator)
        for headless in starting_networks(place, settings, named, weights):
            own = settings if headless is None else replace(settings, size_px=headless.size_px)
            if headless is not None:
                warn_of_imagenet_classes(manifest, [headless.weights.kind])
            with _decoded(place, manifest, own.size_px or 0) as pixels:
                splits = _find_splits(place, manifest, pixels, asked, hold_out_each)
                infos += [
                    train_run(place, manifest, pixels, split, own, headless, resume=resume)
                    for split in splits
                ]
    return summary(infos)


@contextmanager
def _decoded(place: Workspace, manifest: Manifest, size_px: int) -> Iterator[PixelCache]:
    """All images at a size, decoded now unless they were before."""
    path = place.pixels(size_px)
    done = decode_pixels(path, manifest.images(), manifest.ids.tolist(), size_px)
    if done.n_embedded:
        logger.info("Decoded %d images to %d px: %s.", done.n_embedded, size_px, path)
    for image, reason in list(done.refused.items())[:5]:
        logger.warning("Left out %s: %s", image, reason)
    with PixelCache.open(path) as pixels:
        yield pixels


def _find_splits(
    place: Workspace,
    manifest: Manifest,
    pixels: PixelCache,
    asked: SplitSettings | None,
    hold_out_each: bool,
) -> list[Split]:
    known = set(manifest.ids)
    digests = {name: each for name, each in pixels.digests.items() if name in known}
    ids = divisible_ids(manifest, digests)
    caches = open_caches(place.stores(), manifest.ids.tolist())
    complete = [cache for cache in caches if all(name in cache.row_of for name in ids)]
    found = None
    if complete:
        groups_duplicates = asked is not None and asked.group_duplicates
        found = look_for_duplicates(manifest, complete, digests, None, groups_duplicates)
    splits = find_splits(place, manifest, digests, asked, hold_out_each, found)
    for split in splits:
        if found is not None:
            warn_of_near_duplicates(place, split, found)
    return splits
