"""Resizing as ONNX nodes: bit for bit that of Pillow.

The operator Resize with ``antialias`` is no substitute: in ONNX Runtime 1.32, its pixels of
photographs are up to 20 of 255 away from Pillow's. Here both passes are products with matrices
of Pillow's own weights, which are whole numbers of 2^-22.

OpenVINO computes in single precision whatever the types say, so nothing here needs more: whole
numbers below 2^24 are exact in it. Weights are divided in two numbers of 12 and 10 bits, with a
product for each, and bilinear weights are found by a long division of whole numbers. That is exact
for up to 64 pixels of the image a pixel of the result, and sides of 5,400 px made 224 px.
"""

import numpy as np

from featurepipe.errors import UsageError
from featurepipe.features.framing import Framing
from featurepipe.features.onnx.nodes import DOUBLE, FLOAT, INT64, UINT8, Nodes

_HIGH, _LOW = 1 << 12, 1 << 10
_UNIT = _HIGH * _LOW

# Bits of a weight that each step of the division finds: two make the high part, two the low one.
_STEPS = (6, 6, 6, 4)

_FIRST = np.array([0], np.int64), np.array([1], np.int64)

_INTERPOLATIONS = ("bilinear", "bicubic")


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
        (n_images, 3, height, width), float32.
    height, width : str
        Numbers in float64.
    n_images : str
        (1,), int64.
    """

    def __init__(self, nodes: Nodes, pixels: str) -> None:
        self.channels = nodes.cast(nodes.op("Transpose", pixels, perm=[0, 3, 1, 2]), FLOAT)
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
    if framing.interpolation not in _INTERPOLATIONS:
        raise UsageError(
            f"Images resized by {framing.interpolation!r} cannot be part of an ONNX file; only "
            f"{' and '.join(_INTERPOLATIONS)} can. Extract the features with one of them."
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
    by_rows = _apply_rows(nodes, rows, nodes.op("Slice", picture.channels, start, first))
    by_rows = _apply_columns(nodes, columns, by_rows)
    by_columns = nodes.op("Slice", picture.channels, first, end)
    by_columns = _apply_rows(nodes, rows, _apply_columns(nodes, columns, by_columns))
    resized = nodes.op("Concat", by_rows, by_columns, axis=0)
    return nodes.op("Transpose", nodes.cast(resized, UINT8), perm=[0, 2, 3, 1])


def _apply_rows(nodes: Nodes, rows: tuple[str, str], channels: str) -> str:
    """Rows of weights times each image, as whole pixels.

    One copy of the weights an image, since ONNX Runtime 1.23 cannot multiply one matrix with none.
    """
    n_images = nodes.op("Slice", nodes.op("Shape", channels), *_FIRST)
    sums = []
    for part in rows:
        shape = nodes.op(
            "Concat", n_images, np.array([1], np.int64), nodes.op("Shape", part), axis=0
        )
        sums.append(nodes.op("MatMul", nodes.op("Expand", part, shape), channels))
    return _rounded(nodes, *sums)


def _apply_columns(nodes: Nodes, columns: tuple[str, str], channels: str) -> str:
    """Each image times columns of weights, as whole pixels."""
    return _rounded(nodes, *(nodes.op("MatMul", channels, part) for part in columns))


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


def _weights(nodes: Nodes, side: _Side, interpolation: str, given_axis: int) -> tuple[str, str]:
    """Pillow's weights of the pixels of a side, times 2^22, as two matrices in float32.

    The first is the weights without their last 10 bits, the second these bits. Their axes are the
    pixels given and kept. They are not transposed afterwards: ONNX Runtime 1.20 would make that a
    part of the product.
    """
    axis, other = (np.array([one], np.int64) for one in (given_axis, 1 - given_axis))
    kept = nodes.op("Add", np.arange(side.n_kept, dtype=np.float64), side.start)
    given = nodes.op("Range", np.float64(0), side.given, np.float64(1))
    # Positions of pixels, and half the width of the filter, in halves of both kinds of pixels.
    of_kept = nodes.op("Unsqueeze", nodes.op("Mul", _odd(nodes, kept), side.given), axis)
    of_given = nodes.op("Unsqueeze", nodes.op("Mul", _odd(nodes, given), side.resized), other)
    away = nodes.op("Abs", nodes.op("Sub", of_given, of_kept))
    reach = nodes.op("Mul", nodes.op("Max", side.given, side.resized), np.float64(2))
    if interpolation == "bilinear":
        shares = nodes.op("Max", nodes.op("Sub", reach, away), np.float64(0))
        high, low = _divide(nodes, shares, nodes.op("ReduceSum", shares, axis, keepdims=1))
    else:
        shares = _bicubic(nodes, nodes.op("Div", away, reach))
        shares = nodes.op("Div", shares, nodes.op("ReduceSum", shares, axis, keepdims=1))
        weights = _half_away(nodes, nodes.op("Mul", shares, np.float64(_UNIT)))
        high = nodes.op("Floor", nodes.op("Div", weights, np.float64(_LOW)))
        low = nodes.op("Sub", weights, nodes.op("Mul", high, np.float64(_LOW)))
    return nodes.cast(high, FLOAT), nodes.cast(low, FLOAT)


def _odd(nodes: Nodes, numbers: str) -> str:
    return nodes.op("Add", nodes.op("Mul", numbers, np.float64(2)), np.float64(1))


def _divide(nodes: Nodes, shares: str, total: str) -> tuple[str, str]:
    """Whole shares of a total, in 2^-22 and rounded, as a high and a low part.

    A quotient that is one too large or too small leaves a remainder that the next one settles.
    """
    digits = []
    for number, bits in enumerate(_STEPS, start=1):
        value = nodes.op("Mul", shares, np.float64(1 << bits))
        quotient = nodes.op("Div", value, total)
        if number == len(_STEPS):
            quotient = nodes.op("Add", quotient, np.float64(0.5))
        digit = nodes.op("Floor", quotient)
        digits.append(
            nodes.op("Mul", digit, np.float64(1 << _STEPS[number])) if number % 2 else digit
        )
        shares = nodes.op("Sub", value, nodes.op("Mul", digit, total))
    return nodes.op("Add", *digits[:2]), nodes.op("Add", *digits[2:])


def _bicubic(nodes: Nodes, away: str) -> str:
    """Of Keys (1981) with a = -0.5, in Pillow's order of operations."""
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


def _rounded(nodes: Nodes, high: str, low: str) -> str:
    """Sums of pixels weighted by both parts of the weights, as whole pixels."""
    carried = nodes.op("Floor", nodes.op("Div", low, np.float32(_LOW)))
    total = nodes.op("Add", nodes.op("Add", high, carried), np.float32(_HIGH / 2))
    shares = nodes.op("Floor", nodes.op("Div", total, np.float32(_HIGH)))
    return nodes.op("Clip", shares, np.float32(0), np.float32(255))


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
