"""Where training starts: random weights, or a pretrained backbone and its cached features."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import StoreMismatchError, UsageError
from featurepipe.features.backbones import BACKBONES, BackboneSpec, find_backbone
from featurepipe.features.cached import CachedFeatures
from featurepipe.features.extraction.file_recipe import is_file_or_preset
from featurepipe.features.extraction.recipe import make_recipe, repeat_recipe
from featurepipe.features.headless import HeadlessNetwork
from featurepipe.models.networks.building import count_blocks
from featurepipe.models.networks.network_settings import NetworkSettings, require_applicable

# A fine-tuned network can only reuse features of unchanged images, pooled as the network pools.
_REUSABLE = {"view": "rgb", "pooling": "avg", "decoding": "full"}


@dataclass(frozen=True)
class StartingPoint:
    """Where training starts.

    Attributes
    ----------
    size_px : int
        Height and width of the images.
    headless : HeadlessNetwork or None
        The pretrained backbone; None: random weights.
    """

    size_px: int
    headless: HeadlessNetwork | None = None


def find_starting_points(
    settings: NetworkSettings,
    caches: Sequence[CachedFeatures],
    *,
    backbones: Sequence[str] = (),
    weights: str | None = None,
    size_px: int | None = None,
) -> list[StartingPoint]:
    """Find where training starts; each starting point gives a run.

    Parameters
    ----------
    settings : NetworkSettings
    caches : sequence of CachedFeatures
        All feature stores of the workspace.
    backbones : sequence of str
        Default: the only backbone with features.
    weights : str, optional
        ``imagenet``, ``random`` or a path; default: the weights of the cached features, else
        ImageNet's.
    size_px : int, optional
        Image size; default: that of the cached features, else that of the network.

    Raises
    ------
    UsageError
        If a backbone or weights do not apply, it is not clear which backbone or store is meant, a
        descriptor is named, the images are too small, or the backbone has too few blocks.
    UnknownNameError
        If there is no such backbone.
    WeightsError
        If the weights are missing or cannot be downloaded.
    StoreMismatchError
        If the weights of the cached features have changed.
    """
    spec = settings.spec
    require_applicable(spec, "--backbone", backbones, "has_backbone")
    require_applicable(spec, "--weights", weights, "has_backbone")
    if spec.size_px is not None and spec.min_size_px is not None:
        start = StartingPoint(spec.size_px if size_px is None else size_px)
        _require_size(spec.name, start.size_px, spec.min_size_px)
        return [start]
    caches = [cache for cache in caches if _is_reusable(cache)]
    _require_no_files(backbones)
    chosen = [find_backbone(name) for name in backbones] or [_only_backbone(caches, settings)]
    starts = []
    for backbone in chosen:
        headless = _find_headless(backbone, caches, settings, weights, size_px)
        _require_size(backbone.name, headless.size_px, backbone.min_size_px)
        _require_blocks(headless, settings)
        starts.append(StartingPoint(headless.size_px, headless))
    return starts


def _require_no_files(backbones: Sequence[str]) -> None:
    for name in filter(is_file_or_preset, backbones):
        raise UsageError(
            f"{name} cannot be trained: only networks of keras.applications can be fine-tuned. "
            "Choose one from `featurepipe extract --list-backbones`, or fit heads on its features: "
            f"featurepipe extract --backbone {name}, then featurepipe fit."
        )


def _is_reusable(cache: CachedFeatures) -> bool:
    is_plain = all(getattr(cache.key, name) == value for name, value in _REUSABLE.items())
    return is_plain and cache.key.backbone in BACKBONES and cache.key.is_of_network


def _only_backbone(caches: Sequence[CachedFeatures], settings: NetworkSettings) -> BackboneSpec:
    names = sorted({cache.key.backbone for cache in caches})
    if len(names) == 1:
        return find_backbone(names[0])
    has = f"features of several: {', '.join(names)}" if names else "no features of one"
    raise UsageError(
        f"`train {settings.network}` needs a backbone, and the workspace has {has}. Choose one "
        f"with --backbone, such as --backbone {names[0] if names else 'xception'}."
    )


def _find_headless(
    backbone: BackboneSpec,
    caches: Sequence[CachedFeatures],
    settings: NetworkSettings,
    weights: str | None,
    size_px: int | None,
) -> HeadlessNetwork:
    if backbone.kind != "network":
        raise UsageError(
            f"{backbone.name} is a descriptor without weights, and cannot be fine-tuned. Choose a "
            "network from `featurepipe extract --list-backbones`."
        )
    matching = [
        cache
        for cache in caches
        if cache.key.backbone == backbone.name and size_px in (None, cache.key.size_px)
    ]
    if weights is None and len(matching) > 1:
        raise UsageError(
            f"Several stores have features of {backbone.name}: "
            f"{', '.join(cache.path.stem for cache in matching)}. Choose one with --weights and "
            "--size."
        )
    if weights is None and matching:
        return _headless_of(matching[0])
    if size_px is None and len(sizes := {cache.key.size_px for cache in matching}) == 1:
        (size_px,) = sizes
    return make_recipe(
        backbone.name, weights or "imagenet", size_px=size_px, engine="keras", seed=settings.seed
    ).network


def _headless_of(cache: CachedFeatures) -> HeadlessNetwork:
    try:
        return repeat_recipe(cache.key, cache.weights_source).network
    except StoreMismatchError as error:
        raise StoreMismatchError(f"{cache.path}: {error}") from error


def _require_size(name: str, size_px: int, min_size_px: int) -> None:
    if size_px < min_size_px:
        raise UsageError(
            f"Images of {size_px} px are too small for {name} (minimum {min_size_px}). Use a "
            "larger --size."
        )


def _require_blocks(headless: HeadlessNetwork, settings: NetworkSettings) -> None:
    n_blocks = settings.n_unfrozen_blocks
    # Every backbone has the blocks of the recipe; to count more takes seconds.
    if n_blocks <= max(stage.n_blocks or 0 for stage in settings.spec.stages):
        return
    if n_blocks > (n_available := count_blocks(headless)):
        raise UsageError(
            f"--unfreeze {n_blocks} is more than the {n_available} blocks of "
            f"{headless.backbone.name}. Use {n_available} or less."
        )


def cached_features(
    caches: Sequence[CachedFeatures], headless: HeadlessNetwork, ids: NDArray[np.object_]
) -> NDArray[np.float32] | None:
    """Read the features of a frozen backbone, if a store has them for all images.

    Parameters
    ----------
    caches : sequence of CachedFeatures
    headless : HeadlessNetwork
    ids : ndarray of shape (n_images,), str objects

    Returns
    -------
    ndarray of shape (n_images, n_features), float32, or None
    """
    identity = headless.identity() | _REUSABLE
    for cache in caches:
        key = cache.key.as_dict()
        is_same = all(key[name] == value for name, value in identity.items())
        if is_same and not cache.missing(ids):
            return cache.read(ids)
    return None
