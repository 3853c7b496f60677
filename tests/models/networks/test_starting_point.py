"""Where training starts: which backbone, which weights, which size, which cached features."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featurepipe.errors import StoreMismatchError, UsageError
from featurepipe.features.cached import CachedFeatures
from featurepipe.features.extraction.recipe import make_recipe
from featurepipe.features.store import StoredImages
from featurepipe.models.networks.network_settings import NetworkSettings
from featurepipe.models.networks.recipes import NETWORKS
from featurepipe.models.networks.starting_point import cached_features, find_starting_points


def cache_of(backbone="mobilenet_v2", size_px=32, view="rgb", ids=("a", "b")):
    """A store of features with random weights, as it is known after it was opened."""
    weights = "none" if backbone == "hsv_histogram" else "random"
    key = make_recipe(backbone, weights, size_px=size_px, view=view, engine="keras").key
    return CachedFeatures(
        name=f"{backbone}:{view}", path=Path(f"{backbone}-{size_px}-{view}.h5"), key=key,
        weights_label="random", weights_source="random", n_features=1280, images_per_s=1.0,
        images=StoredImages(np.array(ids, np.bytes_), np.arange(len(ids))), n_pending=0,
    )  # fmt: skip


def find(network, caches=(), **options):
    return find_starting_points(NetworkSettings.of(network), caches, **options)


def refused(network, caches=(), error=UsageError, **options):
    with pytest.raises(error) as caught:
        find(network, caches, **options)
    return str(caught.value)


@pytest.mark.parametrize(("size_px", "expected"), [(None, 96), (12, 12), (200, 200)])
def test_a_network_without_a_backbone_starts_from_random_weights(size_px, expected):
    (start,) = find("smallervggnet", size_px=size_px)
    assert (start.size_px, start.headless) == (expected, None)


@pytest.mark.parametrize("name", ["fashionnet", "smallervggnet", "resnet50"])
def test_images_below_the_minimum_of_a_network_are_refused(name):
    minimum = NETWORKS[name].min_size_px
    assert find(name, size_px=minimum)[0].size_px == minimum
    assert refused(name, size_px=minimum - 1) == (
        f"Images of {minimum - 1} px are too small for {name} (minimum {minimum}). Use a larger "
        "--size."
    )


@pytest.mark.parametrize(("backbone", "minimum"), [("xception", 71), ("mobilenet_v2", 32)])
def test_images_below_the_minimum_of_a_backbone_are_refused(backbone, minimum):
    options = {"backbones": [backbone], "weights": "random"}
    (start,) = find("finetune", **options, size_px=minimum)
    assert start.size_px == start.headless.size_px == minimum
    assert refused("finetune", **options, size_px=16).startswith(
        f"Images of 16 px are too small for {backbone} (minimum {minimum}). Use a larger --size; "
    )


def test_a_backbone_starts_from_the_weights_and_size_of_its_features():
    caches = [cache_of(), cache_of(view="grey"), cache_of("hsv_histogram", 224)]
    (start,) = find("finetune", caches)
    assert start.headless.backbone.name == "mobilenet_v2"
    assert start.headless.weights.kind == "random"
    assert start.size_px == start.headless.size_px == 32


def test_a_size_chooses_the_store_and_weights_keep_its_size():
    caches = [cache_of(size_px=32), cache_of(size_px=64)]
    assert "Several stores have features of mobilenet_v2" in refused("pair", caches)
    assert find("pair", caches, size_px=64)[0].size_px == 64
    assert find("pair", caches[:1], weights="random")[0].size_px == 32
    # Where sizes differ, other weights start at the backbone's own.
    assert find("pair", caches, weights="random")[0].size_px == 224


def test_several_backbones_give_several_starting_points():
    starts = find("finetune", backbones=["mobilenet_v2", "resnet50"], weights="random")
    assert [start.headless.backbone.name for start in starts] == ["mobilenet_v2", "resnet50"]


@pytest.mark.parametrize(
    ("caches", "text"),
    [
        (
            [],
            "`train finetune` needs a backbone, and the workspace has no features of one. Choose "
            "one with --backbone, such as --backbone xception.",
        ),
        (
            [("resnet50", 64), ("mobilenet_v2", 32)],
            "`train finetune` needs a backbone, and the workspace has features of several: "
            "mobilenet_v2, resnet50. Choose one with --backbone, such as --backbone mobilenet_v2.",
        ),
    ],
)
def test_a_backbone_that_is_not_clear_is_refused(caches, text):
    assert refused("finetune", [cache_of(*each) for each in caches]) == text


@pytest.mark.parametrize(
    ("network", "options", "text"),
    [
        ("fashionnet", {"backbones": ["xception"]}, "--backbone only applies to finetune and pair"),
        ("fashionnet", {"weights": "random"}, "--weights only applies to finetune and pair"),
        ("pair", {"backbones": ["hsv_histogram"]}, "hsv_histogram is a descriptor"),
        ("pair", {"backbones": ["xceptoin"]}, "Unknown backbone 'xceptoin'"),
    ],
)
def test_a_backbone_that_cannot_be_trained_is_refused(network, options, text):
    assert text in refused(network, **options)


def test_features_of_other_weights_than_now_are_refused():
    cache = cache_of()
    changed = replace(cache, key=replace(cache.key, preprocessing="torch"))
    text = refused("finetune", [changed], StoreMismatchError)
    assert text.startswith("mobilenet_v2-32-rgb.h5: ")


@pytest.mark.keras
def test_more_blocks_than_the_backbone_has_are_refused():
    options = {"backbones": ["mobilenet_v2"], "weights": "random", "size_px": 32}
    settings = NetworkSettings.of("finetune", unfreeze=99)
    with pytest.raises(UsageError) as caught:
        find_starting_points(settings, [], **options)
    assert str(caught.value) == (
        "--unfreeze 99 is more than the 18 blocks of mobilenet_v2. Use 18 or less."
    )
    settings = NetworkSettings.of("finetune", unfreeze=18)
    assert len(find_starting_points(settings, [], **options)) == 1


def test_features_are_those_of_the_same_backbone_for_all_images(monkeypatch):
    monkeypatch.setattr(CachedFeatures, "read", lambda self, ids: (self.path.stem, list(ids)))
    others = [cache_of(view="grey"), cache_of(size_px=64), cache_of("resnet50")]
    headless = make_recipe("mobilenet_v2", "random", size_px=32, engine="keras").network
    ids = np.array(["b", "a"], object)
    assert cached_features(others, headless, ids) is None
    assert cached_features([cache_of(ids=["a"])], headless, ids) is None
    found = cached_features([*others, cache_of()], headless, ids)
    assert found == ("mobilenet_v2-32-rgb", ["b", "a"])
