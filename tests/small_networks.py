"""Networks with random weights, small enough for tests."""

import numpy as np
import pytest

from featurepipe.features.extraction.recipe import make_recipe
from featurepipe.manifest.labels import labels_of
from featurepipe.models.networks.building import build_network
from featurepipe.models.networks.network_settings import NetworkSettings
from featurepipe.models.networks.outputs import make_outputs
from featurepipe.models.networks.recipes import Augmentation

keras = pytest.importorskip("keras")

from featurepipe.models.networks.network import Network  # noqa: E402

PX = 32
GARMENTS = {
    "article": labels_of("article", [("shoe",), ("shirt",), ("dress",), None]),
    "color": labels_of("color", [("red",), ("blue",), None, ("red",)]),
}
TINY_PX = 2
TINY_WIDTH = 3 * TINY_PX**2
LITTLE = Augmentation(rotation=25, shift=0.1, shear=0.2, zoom=0.2)


def images(n, side=PX, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def build(name, labels=GARMENTS, size_px=PX, **options):
    """A network with random weights, as training would begin with them."""
    settings = NetworkSettings.of(name, **options)
    headless = None
    if settings.spec.has_backbone:
        recipe = make_recipe("mobilenet_v2", "random", size_px=size_px, engine="keras")
        headless = recipe.network
    return build_network(settings, make_outputs(labels, settings), size_px, headless)


def build_tiny(labels=GARMENTS, settings="finetune", layer=None, **options):
    """A network whose embedding is its pixels, so that all it says can be computed by hand."""
    settings = NetworkSettings.of(settings)
    pixels = keras.Input((TINY_PX, TINY_PX, 3), name="pixels")
    flat = (layer or keras.layers.Flatten())(pixels)
    return Network(keras.Model(pixels, flat), make_outputs(labels, settings), **options)
