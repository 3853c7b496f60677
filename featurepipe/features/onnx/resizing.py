"""Resizing as ONNX nodes: bit for bit that of Pillow.

The operator Resize with ``antialias`` is no substitute: in ONNX Runtime 1.32, its pixels of
photographs are up to 20 of 255 away from Pillow's. Here both passes are products with matrices
of Pillow's own weights, which are whole numbers of 2^-22 and exact in double precision.
"""

import numpy as np

from featurepipe.errors import UsageError
from featurepipe.features.framing import Framing
from featurepipe.features.onnx.nodes import DOUBLE, INT64, UINT8, Nodes

_UNIT = float(1 << 22)

_FIRST = np.array([0], np.int64), np.array([1], np.int64)

_RADII = {"bilinear": 1.0, "bicubic": 2.0}


class Picture:
    """Pixels of a batch of images of one size, as they are given.

    Parameters
    ----------
    nodes : Nodes
    pixels : str
        (n_images, height, width, 3), uint8.

    Attributes
    ----------
    channels : str
        (n_images, 3, height, width), float64.
    height, width : str
        Numbers in float64.
    n_images : str
        (1,), int64.
    """

    def __init__(self, nodes: Nodes, pixels: str) -> None:
        self.channels = nodes.cast(nodes.op("Transpose", pixels, perm=[0, 3, 1, 2]), DOUBLE)
        shape = nodes.op("Shape", pixels)
        self.n_images = nodes.op("Gather", shape, np.array([0], np.int64))
        self.height, self.width = (
            nodes.cast(nodes.op("Gather", shape, np.int64(axis)), DOUBLE) for axis in (1, 2)
        )


def require_repeatable(framing: Framing) -> None:
    """Stop if a framing cannot be written.

    Raises
    ------
    UsageError
        If its interpolation is neither bilinear nor bicubic.
    """
    if framing.interpolation not in _RADII:
        raise UsageError(
            f"Images resized by {framing.interpolation!r} cannot be part of an ONNX file; only "
            f"{' and '.join(_RADII)} can. Extract the features with one of them."
        )


def write_resizing(nodes: Nodes, picture: Picture, framing: Framing) -> str:
    """Resize images, and crop their centre where the framing does.

    Parameters
    ----------
    nodes : Nodes
    picture : Picture
    framing : Framing
        See `require_repeatable`.

    Returns
    -------
    str
        (n_images, framing.height, framing.width, 3), uint8.
    """
    heights = _Side(picture.height, *_resized(nodes, picture.height, picture, framing))
    widths = _Side(picture.width, *_resized(nodes, picture.width, picture, framing))
    rows = _weights(nodes, heights, framing.interpolation, given_axis=1)
    columns = _weights(nodes, widths, framing.interpolation, given_axis=0)
    # All images have one size: one of the orders gets all of them, and the other one none.
    start, end = np.array([0], np.int64), np.array([np.iinfo(np.int32).max], np.int64)
    first = _n_rows_first(nodes, picture, heights, widths)
    by_rows = _multiply(nodes, rows, nodes.op("Slice", picture.channels, start, first))
    by_rows = nodes.op("MatMul", _rounded(nodes, by_rows), columns)
    by_columns = nodes.op("MatMul", nodes.op("Slice", picture.channels, first, end), columns)
    by_columns = _multiply(nodes, rows, _rounded(nodes, by_columns))
    resized = _rounded(nodes, nodes.op("Concat", by_rows, by_columns, axis=0))
    return nodes.op("Transpose", nodes.cast(resized, UINT8), perm=[0, 2, 3, 1])


def _multiply(nodes: Nodes, rows: str, channels: str) -> str:
    """Rows of weights times each image.

    One copy of the weights an image, since ONNX Runtime 1.23 cannot multiply one matrix with none.
    """
    n_images = nodes.op("Slice", nodes.op("Shape", channels), *_FIRST)
    shape = nodes.op("Concat", n_images, np.array([1], np.int64), nodes.op("Shape", rows), axis=0)
    return nodes.op("MatMul", nodes.op("Expand", rows, shape), channels)


class _Side:
    """A side of the images, and of what they become, in pixels; float64 numbers."""

    def __init__(self, given: str, resized: str, kept: str, n_kept: int) -> None:
        self.given, self.resized = given, resized
        # Where the part that is kept begins.
        self.start = kept
        self.n_kept = n_kept


def _resized(nodes: Nodes, side: str, picture: Picture, framing: Framing) -> tuple[str, str, int]:
    """A side after resizing, the first pixel that a crop keeps, and how many it keeps."""
    n_kept = framing.height if side == picture.height else framing.width
    kept = np.float64(n_kept)
    if framing.shorter_px is None:
        return nodes.constant(kept), nodes.constant(np.float64(0)), n_kept
    shorter = nodes.op("Min", picture.height, picture.width)
    longer = nodes.op("Mul", side, np.float64(framing.shorter_px))
    resized = nodes.op("Floor", nodes.op("Div", longer, shorter))
    half = nodes.op("Div", nodes.op("Sub", resized, kept), np.float64(2))
    return resized, nodes.op("Round", half), n_kept


def _weights(nodes: Nodes, side: _Side, interpolation: str, given_axis: int) -> str:
    """Pillow's weights of the pixels of a side, times 2^22, as a matrix in float64.

    Its axes are the pixels given and kept. It is not transposed afterwards: ONNX Runtime 1.20 would
    make that a part of the product, which it cannot compute in float64.
    """
    scale = nodes.op("Div", side.given, side.resized)
    stretch = nodes.op("Max", scale, np.float64(1))
    kept = nodes.op("Add", np.arange(side.n_kept, dtype=np.float64) + 0.5, side.start)
    centres = nodes.op("Mul", kept, scale)
    given = nodes.op("Range", np.float64(0), side.given, np.float64(1))
    axis, other = (np.array([one], np.int64) for one in (given_axis, 1 - given_axis))
    away = nodes.op(
        "Sub", nodes.op("Unsqueeze", given, other), nodes.op("Unsqueeze", centres, axis)
    )
    inverse = nodes.op("Div", np.float64(1), stretch)
    away = nodes.op("Abs", nodes.op("Mul", nodes.op("Add", away, np.float64(0.5)), inverse))
    weights = _filter(nodes, away, interpolation)
    weights = nodes.op("Div", weights, nodes.op("ReduceSum", weights, axis, keepdims=1))
    return _half_away(nodes, nodes.op("Mul", weights, np.float64(_UNIT)))


def _filter(nodes: Nodes, away: str, interpolation: str) -> str:
    if interpolation == "bilinear":
        return nodes.op("Max", nodes.op("Sub", np.float64(1), away), np.float64(0))
    # Keys (1981) with a = -0.5, in Pillow's order of operations.
    a = -0.5
    near = _polynomial(nodes, away, (a + 2, -(a + 3), 0.0, 1.0))
    far = _polynomial(nodes, away, (1.0, -5.0, 8.0, -4.0))
    far = nodes.op("Mul", far, np.float64(a))
    far = nodes.op("Where", nodes.op("Less", away, np.float64(2)), far, np.float64(0))
    return nodes.op("Where", nodes.op("Less", away, np.float64(1)), near, far)


def _polynomial(nodes: Nodes, x: str, coefficients: tuple[float, ...]) -> str:
    first, *others = map(np.float64, coefficients)
    value = nodes.op("Mul", x, first)
    for power, coefficient in enumerate(others, start=1):
        value = nodes.op("Add", value, coefficient)
        if power < len(others):
            value = nodes.op("Mul", value, x)
    return value


def _half_away(nodes: Nodes, value: str) -> str:
    """Rounded, halves away from zero."""
    rounded = nodes.op("Floor", nodes.op("Add", nodes.op("Abs", value), np.float64(0.5)))
    return nodes.op("Mul", nodes.op("Sign", value), rounded)


def _rounded(nodes: Nodes, sums: str) -> str:
    """Sums of weighted pixels as whole pixels."""
    shares = nodes.op("Div", nodes.op("Add", sums, np.float64(_UNIT / 2)), np.float64(_UNIT))
    return nodes.op("Clip", nodes.op("Floor", shares), np.float64(0), np.float64(255))


def _n_rows_first(nodes: Nodes, picture: Picture, heights: _Side, widths: _Side) -> str:
    """How many images Pillow 13 resizes in height before width; what lies between is rounded.

    All of them where the height shrinks by more than twice as many pixels as the width, as trials
    with images of 400 sizes showed. Earlier versions never do, and differ by up to 1 of 255 there.
    """
    lost_height, lost_width = (
        nodes.op("Sub", side.given, side.resized) for side in (heights, widths)
    )
    more = nodes.op("Greater", lost_height, nodes.op("Mul", lost_width, np.float64(2)))
    is_first = nodes.op("And", more, nodes.op("Greater", lost_height, np.float64(0)))
    return nodes.op("Mul", picture.n_images, nodes.cast(is_first, INT64))
