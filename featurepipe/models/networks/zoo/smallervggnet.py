"""SmallerVGGNet: a small VGG for small pictures, one trunk under all outputs.

After the network of that name in the PyImageSearch article on multi-label classification, itself
after Simonyan & Zisserman (2014): 32 filters and pooling by 3, twice 64 and twice 128 filters
with pooling by 2, 1,024 units.
"""

from collections.abc import Sequence

from featurepipe.features.engines.quiet_keras import keras
from featurepipe.models.networks.network import Network
from featurepipe.models.networks.outputs import Output
from featurepipe.models.networks.zoo.layers import convolve, dense, pool, unit_range


def build(outputs: Sequence[Output], size_px: int) -> Network:
    """Build it with random weights.

    Parameters
    ----------
    outputs : sequence of Output
    size_px : int
        Side of the pictures.
    """
    pixels = keras.Input((size_px, size_px, 3), name="pixels")
    x = pool(convolve(unit_range(pixels), 32), 3)
    for n_filters in (64, 128):
        x = pool(convolve(convolve(x, n_filters), n_filters), 2)
    return Network(keras.Model(pixels, dense(x, 1024)), outputs)
