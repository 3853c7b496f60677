"""What networks begin from: backbones, their weights, and cached features of the same."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import StoreMismatchError, UsageError
from featurepipe.features.backbones import BACKBONES, BackboneSpec, find_backbone
from featurepipe.features.cached import CachedFeatures, open_caches
from featurepipe.features.extraction.recipe import make_recipe, repeat_recipe
from featurepipe.features.headless import HeadlessNetwork
from featurepipe.features.store import FeatureStore, StoreKey
from featurepipe.models.networks.network_settings import NetworkSettings
from featurepipe.workspace import Workspace

# Features by which a fine-tuned network can begin: of images as they are, pooled as it pools.
_PLAIN = {"view": "rgb", "pooling": "avg", "decoding": "full"}


def starting_networks(
    place: Workspace, settings: NetworkSettings, backbones: Sequence[str], weights: str | None
) -> list[HeadlessNetwork | None]:
    """What a network begins from; each gives a run.

    Parameters
    ----------
    place : Workspace
    settings : NetworkSettings
    backbones : sequence of str
        Those that were named; none: the one that the workspace has features of.
    weights : str or None
        In place of those that the features were made with.

    Returns
    -------
    list of (HeadlessNetwork or None)
        None for a network that begins from nothing.

    Raises
    ------
    UsageError
        If backbones or weights are named for a network that has none, it cannot be told which
        are meant, or a descriptor is named.
    WeightsError
        If the weights are missing or cannot be downloaded.
    StoreMismatchError
        If they are no longer those of the features.
    """
    if not settings.spec.has_backbone:
        for option, given in (("--backbone", ", ".join(backbones)), ("--weights", weights)):
            if given:
                raise UsageError(
                    f"{option} {given} is of finetune and pair, and {settings.network} begins from "
                    "random weights. Leave it out."
                )
        return [None]
    stores = _plain_stores(place)
    specs = [find_backbone(name) for name in backbones] or [_only_backbone(stores, settings)]
    return [_headless(spec, stores, settings, weights) for spec in specs]


def _plain_stores(place: Workspace) -> dict[Path, tuple[StoreKey, str]]:
    """Key and place of the weights of each store that a network can begin by."""
    found = {}
    for path in place.stores():
        with FeatureStore.open(path) as store:
            key, source = store.key, store.made_by["weights_source"]
        is_plain = all(getattr(key, name) == value for name, value in _PLAIN.items())
        if is_plain and BACKBONES[key.backbone].kind == "network":
            found[path] = key, source
    return found


def _only_backbone(
    stores: dict[Path, tuple[StoreKey, str]], settings: NetworkSettings
) -> BackboneSpec:
    names = sorted({key.backbone for key, _ in stores.values()})
    if len(names) == 1:
        return find_backbone(names[0])
    has = f"it has features of {', '.join(names)}" if names else "it has features of none"
    raise UsageError(
        f"--network {settings.network} begins from a backbone, and the workspace does not say "
        f"which: {has}. Name one: --backbone {names[0] if names else 'xception'}"
    )


def _headless(
    spec: BackboneSpec,
    stores: dict[Path, tuple[StoreKey, str]],
    settings: NetworkSettings,
    weights: str | None,
) -> HeadlessNetwork:
    if spec.kind != "network":
        raise UsageError(
            f"{spec.name} is no network and cannot be fine-tuned. Expected a backbone of "
            "featurepipe extract --list-backbones."
        )
    own = {path: each for path, each in stores.items() if each[0].backbone == spec.name}
    if settings.size_px:
        own = {path: each for path, each in own.items() if each[0].size_px == settings.size_px}
    if weights is None and len(own) > 1:
        raise UsageError(
            f"Several stores have features of {spec.name}: "
            f"{', '.join(path.stem for path in own)}. Say which is meant by --weights and --size."
        )
    if weights is None and own:
        ((key, source),) = own.values()
        try:
            return repeat_recipe(key, source).network
        except StoreMismatchError as error:
            raise StoreMismatchError(f"{next(iter(own))}: {error}") from error
    sizes = {key.size_px for key, _ in own.values()}
    size_px = settings.size_px or (sizes.pop() if len(sizes) == 1 else None)
    return make_recipe(
        spec.name, weights or "imagenet", size_px=size_px, engine="keras", seed=settings.seed
    ).network


def cached_features(
    place: Workspace, headless: HeadlessNetwork, ids: NDArray[np.object_]
) -> NDArray[np.float32] | None:
    """What the frozen backbone says of some images, if a store has it of all.

    Parameters
    ----------
    place : Workspace
    headless : HeadlessNetwork
    ids : ndarray of shape (n_images,), str objects

    Returns
    -------
    ndarray of shape (n_images, n_features), float32, or None
    """
    identity = headless.identity() | _PLAIN
    for cache in open_caches(place.stores(), []):
        key = cache.key.as_dict()
        same = all(key[name] == value for name, value in identity.items())
        if same and _has_all(cache, ids):
            return cache.read(ids)
    return None


def _has_all(cache: CachedFeatures, ids: NDArray[np.object_]) -> bool:
    return all(image_id in cache.row_of for image_id in ids)
