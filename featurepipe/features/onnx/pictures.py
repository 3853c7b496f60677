"""Views and descriptors as ONNX nodes; see `extraction.views` and `engines.descriptors`.

Whole numbers are kept as float32, which has them exactly: OpenVINO does not round the quotients of
integers.
"""

import numpy as np

from featurepipe.features.engines.descriptors import pixel_weights
from featurepipe.features.extraction.views import PLAIN_VIEW, shuffled_pixels
from featurepipe.features.onnx.nodes import FLOAT, INT64, UINT8, Nodes

_N_BINS = (16, 6, 6)


def write_view(nodes: Nodes, pixels: str, view: str, size: tuple[int, int]) -> list[str]:
    """The pictures that a network is shown of images; see `VIEWS`.

    Parameters
    ----------
    nodes : Nodes
    pixels : str
        (n_images, height, width, 3), uint8.
    view : str
    size : (int, int)
        Height and width.

    Returns
    -------
    list of str
        Of the same shape and type each.
    """
    if view == PLAIN_VIEW:
        return [pixels]
    if view == "flip":
        last, before_first, axis, step = (np.array([n], np.int64) for n in (-1, -(2**31), 2, -1))
        return [pixels, nodes.op("Slice", pixels, last, before_first, axis, step)]
    if view == "grey":
        return [_write_luminance(nodes, pixels)]
    if view == "shuffle":
        height, width = size
        flat = nodes.op("Reshape", pixels, np.array([-1, height * width, 3], np.int64))
        order = shuffled_pixels(height, width).astype(np.int64)
        shown = nodes.op("Gather", flat, order, axis=1)
        return [nodes.op("Reshape", shown, np.array([-1, height, width, 3], np.int64))]
    raise NotImplementedError(view)


def write_histogram(nodes: Nodes, pixels: str, size_px: int) -> str:
    """The features of `HsvHistogram`.

    Parameters
    ----------
    nodes : Nodes
    pixels : str
        (n_images, size_px, size_px, 3), uint8.
    size_px : int

    Returns
    -------
    str
        (n_images, 576), float32.
    """
    weights = pixel_weights(size_px)
    n_bins = int(np.prod(_N_BINS))
    flat = nodes.op("Reshape", pixels, np.array([-1, len(weights), 3], np.int64))
    bins = nodes.cast(_write_bins(nodes, nodes.cast(flat, FLOAT)), INT64)
    shape = nodes.op("Shape", bins)
    n_images = nodes.op("Gather", shape, np.array([0], np.int64))
    empty_shape = nodes.op("Concat", n_images, np.array([n_bins], np.int64), axis=0)
    empty = nodes.op("Expand", np.zeros((1, 1)), empty_shape)
    shares = nodes.op(
        "ScatterElements",
        empty,
        bins,
        nodes.op("Expand", weights[None], shape),
        axis=1,
        reduction="add",
    )
    return nodes.cast(nodes.op("Sqrt", shares), FLOAT)


def _write_luminance(nodes: Nodes, pixels: str) -> str:
    # As `views`: ITU-R 601 luma in 16-bit fixed point.
    parts = np.array([19595, 38470, 7471], np.float32)
    weighted = nodes.op("Mul", nodes.cast(pixels, FLOAT), parts)
    total = nodes.op("ReduceSum", weighted, np.array([3], np.int64), keepdims=1)
    total = nodes.op("Add", total, np.float32(0x8000))
    shades = nodes.op("Floor", nodes.op("Div", total, np.float32(1 << 16)))
    grey = nodes.cast(shades, UINT8)
    return nodes.op("Concat", grey, grey, grey, axis=3)


def _write_bins(nodes: Nodes, colours: str) -> str:
    """Number of the bin of each pixel; whole numbers only, whose division rounds down."""
    n_hues, n_saturations, n_values = map(np.float32, _N_BINS)
    red, green, blue = (
        nodes.op("Gather", colours, np.int64(channel), axis=2) for channel in range(3)
    )
    high = nodes.op("Max", nodes.op("Max", red, green), blue)
    delta = nodes.op("Sub", high, nodes.op("Min", nodes.op("Min", red, green), blue))

    def times(value: str, factor: int) -> str:
        return nodes.op("Mul", value, np.float32(factor))

    def divided(value: str, by: str | np.float32) -> str:
        # Far from the next whole number, however the quotient is rounded.
        half = nodes.op("Add", value, np.float32(0.5))
        return nodes.op("Floor", nodes.op("Div", half, by))

    def turned(first: str, second: str, n_deltas: int) -> str:
        return nodes.op("Add", nodes.op("Sub", first, second), times(delta, n_deltas))

    from_red = nodes.op(
        "Where", nodes.op("Less", green, blue), turned(green, blue, 6), turned(green, blue, 0)
    )
    others = nodes.op(
        "Where", nodes.op("Equal", high, green), turned(blue, red, 2), turned(red, green, 4)
    )
    sixths = nodes.op("Where", nodes.op("Equal", high, red), from_red, others)
    # 16 bins of 6 * delta sixths.
    one = np.float32(1)
    hue = divided(times(sixths, int(n_hues) // 2), times(nodes.op("Max", delta, one), 3))
    saturation = divided(nodes.op("Mul", delta, n_saturations), nodes.op("Max", high, one))
    saturation = nodes.op("Min", saturation, n_saturations - one)
    value = divided(nodes.op("Mul", high, n_values), np.float32(255))
    value = nodes.op("Min", value, n_values - one)
    number = nodes.op("Add", nodes.op("Mul", hue, n_saturations), saturation)
    return nodes.op("Add", nodes.op("Mul", number, n_values), value)
