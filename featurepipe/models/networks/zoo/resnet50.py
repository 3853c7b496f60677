"""ResNet50 from scratch: He, Zhang, Ren & Sun (2015), one trunk under all outputs."""

from collections.abc import Sequence

from featurepipe.features.engines.quiet_keras import keras
from featurepipe.models.networks.network import Network
from featurepipe.models.networks.outputs import Output
from featurepipe.models.networks.zoo.layers import unit_range


def build(outputs: Sequence[Output], size_px: int) -> Network:
    """Build it with random weights.

    Parameters
    ----------
    outputs : sequence of Output
    size_px : int
        Side of the pictures.
    """
    pixels = keras.Input((size_px, size_px, 3), name="pixels")
    resnet = keras.applications.ResNet50(
        weights=None, include_top=False, input_tensor=unit_range(pixels), pooling="avg"
    )
    return Network(keras.Model(pixels, resnet.output), outputs)
