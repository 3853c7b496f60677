"""Generated pictures on which the ranges of int8 are measured.

They follow the dead leaves model: shapes of random place, size, colour and texture that cover
each other, with small ones much more frequent than large ones, have the statistics of edges and
contrasts of photographs (Lee, Mumford and Huang, "Occlusion models for natural images",
International Journal of Computer Vision 41, 2001). The pictures by which engines are compared
(`probes`) are too few and too much alike for this.
"""

from math import isqrt

import numpy as np
from numpy.typing import NDArray

_MAX_LEAVES = 240
_HEAD, _LEAF = 12, 12
_SHARPNESS = (1, 1, 3, 5)
# Divided by the root of a number up to 4096, this makes few leaves large and most small.
_LARGEST = 384


def calibration_pictures(numbers: range, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Generated pictures, equal on every machine.

    Parameters
    ----------
    numbers : range
        Numbers of the pictures; each number is another picture.
    size : (int, int)
        Height and width.

    Returns
    -------
    ndarray of shape (n_pictures, height, width, 3), uint8
    """
    return np.stack([_picture(number, size) for number in numbers])


def _picture(number: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    # Integers only: every processor computes them alike. Lengths are in 256ths of a side.
    y, x = np.ogrid[: size[0], : size[1]]
    y, x = y * 256 // size[0], x * 256 // size[1]
    drawn = _draw(number, _HEAD + _MAX_LEAVES * _LEAF).tolist()
    head, leaves = drawn[:_HEAD], drawn[_HEAD:]
    ground = [head[channel] % 256 for channel in range(3)]
    spread = 20 + head[3] % 236
    is_grey = head[4] % 4 == 0
    slope = ((head[5] % 129 - 64) * x + (head[6] % 129 - 64) * y) // 128
    picture = np.array(ground) + slope[..., None]
    n_leaves = 4 + head[7] % (_MAX_LEAVES - 4 if head[8] % 3 else 24)
    for k in range(n_leaves):
        leaf = leaves[k * _LEAF : (k + 1) * _LEAF]
        shifts = [leaf[7]] * 3 if is_grey else leaf[7:10]
        colour = [
            base + shift % (2 * spread + 1) - spread
            for base, shift in zip([ground[0]] * 3 if is_grey else ground, shifts, strict=True)
        ]
        _add_leaf(picture, y, x, leaf, np.array(colour))
    blurred = _blur(picture.clip(0, 255), _SHARPNESS[head[9] % len(_SHARPNESS)])
    grain = head[10] % 12
    noise = _draw(number + 2**32, size[0] * size[1]).reshape(*size, 1) % (2 * grain + 1) - grain
    return (blurred + noise).clip(0, 255).astype(np.uint8)


def _draw(seed: int, n: int) -> NDArray[np.int64]:
    # NumPy promises that the raw numbers of a bit generator stay the same.
    return (np.random.PCG64(seed).random_raw(n) >> np.uint64(33)).astype(np.int64)


def _add_leaf(
    picture: NDArray[np.int64],
    y: NDArray[np.int64],
    x: NDArray[np.int64],
    leaf: list[int],
    colour: NDArray[np.int64],
) -> None:
    """Cover a part of the picture by one shape."""
    radius = 2 + isqrt(_LARGEST**2 // (leaf[0] % 4096 + 1)) % 160
    dy, dx = y - leaf[2] % 256, x - leaf[1] % 256
    a, b, slant = 1 + leaf[3] % 3, 1 + leaf[4] % 3, leaf[6] % 5 - 2
    slanted = dx + slant * dy // 2
    match leaf[5] % 4:
        case 0 | 1:
            inside = a * slanted**2 + b * dy**2 < 2 * radius**2
        case 2:
            inside = (a * abs(slanted) < 2 * radius) & (b * abs(dy) < 2 * radius)
        case _:
            inside = a * abs(slanted) + b * abs(dy) < 2 * radius
    picture[inside] = colour + _texture(dy, dx, leaf[10], leaf[11])[inside][:, None]


def _texture(
    dy: NDArray[np.int64], dx: NDArray[np.int64], kind: int, how: int
) -> NDArray[np.int64]:
    """Shades of a shape: flat, a slope, bars or grain."""
    match kind % 4:
        case 1:
            return ((how % 7 - 3) * dx + (how // 7 % 7 - 3) * dy) * 2 // 3
        case 2:
            along = dx * (how // 16 % 3) + dy * (how // 64 % 3 + 1)
            return along // (2 + how % 14) % 2 * (how // 256 % 120) - 30
        case 3:
            grain = (7 * dx**2 + 13 * dy**2 + (3 + how % 9) * dx * dy) % 37 - 18
            return grain * (1 + how // 16 % 4)
    return np.zeros(np.broadcast_shapes(dy.shape, dx.shape), np.int64)


def _blur(picture: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Mean over a square of odd width, as photographs are rarely sharp to the pixel."""
    for axis in (0, 1):
        edges = [(width // 2, width // 2) if axis == k else (0, 0) for k in range(3)]
        windows = np.lib.stride_tricks.sliding_window_view(
            np.pad(picture, edges, mode="edge"), width, axis
        )
        picture = windows.sum(axis=-1) // width
    return picture
