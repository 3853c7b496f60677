"""FashionNet: a branch of its own for each attribute, each sees what it needs.

After the two-branch network of that name in the PyImageSearch article on multi-output
classification: the category's branch sees no colours and is the deeper one.

========  ====================================================================
grey      luminance; 32 filters, twice 64, twice 128; 256 units
rgb       colours; 16 filters, 32, 32; 128 units
========  ====================================================================
"""

from collections.abc import Mapping, Sequence
from typing import Any

from featurepipe.features.engines.quiet_keras import keras
from featurepipe.models.networks.network import Network
from featurepipe.models.networks.outputs import Output
from featurepipe.models.networks.zoo.layers import convolve, dense, pool, unit_range


def build(outputs: Sequence[Output], size_px: int, branches: Mapping[str, str]) -> Network:
    """Build it with random weights.

    Parameters
    ----------
    outputs : sequence of Output
    size_px : int
        Side of the pictures.
    branches : mapping of str to str
        ``"grey"`` or ``"rgb"`` for each attribute.
    """
    pixels = keras.Input((size_px, size_px, 3), name="pixels")
    shown = unit_range(pixels)
    kinds = {"grey": _grey_branch, "rgb": _rgb_branch}
    embeddings = [kinds[branches[output.attribute]](shown) for output in outputs]
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
