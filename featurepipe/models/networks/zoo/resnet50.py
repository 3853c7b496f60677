"""ResNet50 of He, Zhang, Ren & Sun (2015), trained from scratch, with one trunk for all outputs."""

from collections.abc import Sequence

from featurepipe.features.engines.quiet_keras import keras
from featurepipe.models.networks.layers import unit_range
from featurepipe.models.networks.network import Network
from featurepipe.models.networks.outputs import Output


def build(outputs: Sequence[Output], size_px: int) -> Network:
    """Build the network with random weights.

    Parameters
    ----------
    outputs : sequence of Output
    size_px : int
        Height and width of the images.
    """
    pixels = keras.Input((size_px, size_px, 3), name="pixels")
    resnet = keras.applications.ResNet50(
        weights=None,
        include_top=False,
        input_tensor=unit_range(pixels),
        # Keras only checks the size of images if it is told.
        input_shape=pixels.shape[1:],
        pooling="avg",
    )
    return Network(keras.Model(pixels, resnet.output), outputs)
