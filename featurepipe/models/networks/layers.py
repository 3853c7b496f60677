"""Layers of the small networks, and the augmentation of training images."""

from typing import Any

from featurepipe.features.engines.quiet_keras import keras
from featurepipe.models.networks.recipes import Augmentation

# With Keras' default of 0.99, the moving statistics need some 500 steps to settle. An epoch of few
# images has so few steps that validation would see only noise during the first tens of epochs.
_MOMENTUM = 0.9


def unit_range(pixels: Any) -> Any:
    """Scale pixels in [0, 255] to [0, 1]."""
    return keras.layers.Rescaling(1 / 255)(pixels)


def convolve(x: Any, n_filters: int) -> Any:
    """Apply a 3 x 3 convolution, ReLU and batch normalisation."""
    x = keras.layers.Conv2D(n_filters, 3, padding="same", activation="relu")(x)
    return keras.layers.BatchNormalization(momentum=_MOMENTUM)(x)


def pool(x: Any, side: int) -> Any:
    """Apply max pooling and a dropout of 0.25."""
    return dropout(0.25)(keras.layers.MaxPooling2D(side)(x))


def dense(x: Any, n_units: int) -> Any:
    """Flatten a map, and apply a dense layer, ReLU, batch normalisation and a dropout of 0.5."""
    x = keras.layers.Dense(n_units, activation="relu")(keras.layers.Flatten()(x))
    return dropout(0.5)(keras.layers.BatchNormalization(momentum=_MOMENTUM)(x))


def dropout(rate: float) -> "keras.layers.Dropout":
    """Dropout with a seed of its own, so that every epoch can be seeded on every backend."""
    # Without a seed, Keras on PyTorch draws from a generator that Keras cannot seed.
    return keras.layers.Dropout(rate, seed=0)


def build_augmentation(recipe: Augmentation) -> "keras.Layer":
    """Layers that change float32 images in [0, 255] at random, in training only.

    Pixels from beyond the edge of an image repeat its edge.
    """
    layers = keras.layers
    # Half precision would round the shades of an image.
    edge = {"fill_mode": "nearest", "dtype": "float32"}
    changes = [
        layers.RandomRotation(recipe.rotation / 360, **edge),
        layers.RandomTranslation(recipe.shift, recipe.shift, **edge),
        layers.RandomZoom(recipe.zoom, recipe.zoom, **edge),
    ]
    if recipe.shear:
        changes.append(layers.RandomShear(recipe.shear, recipe.shear, **edge))
    if recipe.flip:
        changes.append(layers.RandomFlip("horizontal", dtype="float32"))
    return keras.Sequential(changes, name="augmentation")
