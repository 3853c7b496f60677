"""FashionNet: a separate branch for each attribute, on grey or on colour images.

After the network of that name in the PyImageSearch article on multi-output classification, whose
branch for the category is deeper and sees no colours.

========  ====================================================================
grey      luminance; convolutions of 32, 2 x 64 and 2 x 128 filters; 256 units
rgb       colours; convolutions of 16, 32 and 32 filters; 128 units
========  ====================================================================
"""

from collections.abc import Mapping, Sequence
from typing import Any

from featurepipe.features.engines.quiet_keras import keras
from featurepipe.models.networks.layers import convolve, dense, pool, unit_range
from featurepipe.models.networks.network import Network
from featurepipe.models.networks.outputs import Output


def build(outputs: Sequence[Output], size_px: int, branches: Mapping[str, str]) -> Network:
    """Build the network with random weights.

    Parameters
    ----------
    outputs : sequence of Output
    size_px : int
        Height and width of the images.
    branches : mapping of str to str
        Branch of each attribute: ``"grey"`` or ``"rgb"``.
    """
    pixels = keras.Input((size_px, size_px, 3), name="pixels")
    shown = unit_range(pixels)
    builders = {"grey": _grey_branch, "rgb": _rgb_branch}
    embeddings = [builders[branches[output.attribute]](shown) for output in outputs]
    return Network(keras.Model(pixels, embeddings), outputs)


def _grey_branch(shown: Any) -> Any:
    x = pool(convolve(keras.ops.image.rgb_to_grayscale(shown), 32), 3)
    for n_filters in (64, 128):
        x = pool(convolve(convolve(x, n_filters), n_filters), 2)
    return dense(x, 256)


def _rgb_branch(shown: Any) -> Any:
    x = pool(convolve(shown, 16), 3)
    for n_filters in (32, 32):
        x = pool(convolve(x, n_filters), 2)
    return dense(x, 128)
