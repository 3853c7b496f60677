"""Augmentation: images changed at random, by Keras' layers, on the device that trains."""

from featurepipe.features.engines.quiet_keras import keras
from featurepipe.models.networks.recipes import Augmentation


def build_augmentation(how: Augmentation) -> "keras.Layer":
    """Layers that change float32 images in [0, 255] at random in training, and else do nothing.

    What comes into view beyond an image's edge repeats the edge.
    """
    layers = keras.layers
    # In half precision an image would lose its finer shades.
    edge = {"fill_mode": "nearest", "dtype": "float32"}
    changes = [
        layers.RandomRotation(how.rotation / 360, **edge),
        layers.RandomTranslation(how.shift, how.shift, **edge),
        layers.RandomZoom(how.zoom, how.zoom, **edge),
    ]
    if how.shear:
        changes.append(layers.RandomShear(how.shear, how.shear, **edge))
    if how.flip:
        changes.append(layers.RandomFlip("horizontal", dtype="float32"))
    return keras.Sequential(changes, name="augmentation")
