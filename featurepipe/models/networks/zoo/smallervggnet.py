"""SmallerVGGNet: a small VGG for small images, with one trunk for all outputs.

After the network of that name in the PyImageSearch article on multi-label classification, which
follows Simonyan & Zisserman (2014): convolutions of 32, 2 x 64 and 2 x 128 filters, pooled by 3, 2
and 2, and 1,024 units.
"""

from collections.abc import Sequence

from featurepipe.features.engines.quiet_keras import keras
from featurepipe.models.networks.layers import convolve, dense, pool, unit_range
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
    x = pool(convolve(unit_range(pixels), 32), 3)
    for n_filters in (64, 128):
        x = pool(convolve(convolve(x, n_filters), n_filters), 2)
    return Network(keras.Model(pixels, dense(x, 1024)), outputs)
