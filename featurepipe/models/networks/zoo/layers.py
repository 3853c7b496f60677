"""What the small networks are made of."""

from typing import Any

from featurepipe.features.engines.quiet_keras import keras

# Keras' own 0.99 forgets where statistics began only after some 500 steps: an epoch of few images
# has so few of them that validation would see nothing but noise for the first tens of epochs.
_MOMENTUM = 0.9


def dropout(share: float) -> "keras.layers.Dropout":
    """Dropout that every backend draws by its seed, which each epoch's replaces."""
    # On PyTorch Keras draws by no seed that it knows unless one is given.
    return keras.layers.Dropout(share, seed=0)


def unit_range(pixels: Any) -> Any:
    """Pixels in [0, 255] to [0, 1]."""
    return keras.layers.Rescaling(1 / 255)(pixels)


def convolve(x: Any, n_filters: int) -> Any:
    """A convolution of 3 x 3, ReLU and batch normalisation."""
    x = keras.layers.Conv2D(n_filters, 3, padding="same", activation="relu")(x)
    return keras.layers.BatchNormalization(momentum=_MOMENTUM)(x)


def pool(x: Any, side: int) -> Any:
    """The maximum over squares, of which a quarter is dropped in training."""
    return dropout(0.25)(keras.layers.MaxPooling2D(side)(x))


def dense(x: Any, n_units: int) -> Any:
    """A map to a vector: a dense layer, ReLU, batch normalisation and dropout of one half."""
    x = keras.layers.Dense(n_units, activation="relu")(keras.layers.Flatten()(x))
    return dropout(0.5)(keras.layers.BatchNormalization(momentum=_MOMENTUM)(x))
