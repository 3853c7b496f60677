"""Grids of numbers on pictures: sums over places, spread over pixels."""

import numpy as np
from numpy.typing import NDArray

# Of a few pixels with rare colours nobody would see much.
_FINEST = 28


def spread(
    grid: NDArray[np.float64],
    size: tuple[int, int],
    box: tuple[float, float, float, float] | None = None,
    *,
    smooth: bool = False,
) -> NDArray[np.float64]:
    """Spread the numbers of cells over the pixels of a picture. Their sum stays.

    Parameters
    ----------
    grid : ndarray of shape (..., n_rows, n_columns), float64
        One number for each cell of a grid over the box.
    size : (int, int)
        Height and width of the picture.
    box : (float, float, float, float), optional
        Left, top, right, bottom in pixels. Default: all of the picture.
    smooth : bool
        Whether a cell fades out towards the centres of its neighbours, as by bilinear
        interpolation. Else its pixels get equal parts.

    Returns
    -------
    ndarray of shape (..., height, width), float64

    Examples
    --------
    >>> spread(np.array([[1.0, 4.0]]), (1, 3))
    array([[0.66666667, 1.66666667, 2.66666667]])
    """
    left, top, right, bottom = box or (0.0, 0.0, float(size[1]), float(size[0]))
    down = _parts(grid.shape[-2], top, bottom, size[0], smooth)
    across = _parts(grid.shape[-1], left, right, size[1], smooth)
    return down @ grid @ across.T


def _parts(
    n_cells: int, start: float, stop: float, n_pixels: int, smooth: bool
) -> NDArray[np.float64]:
    """Which part of each cell falls to each pixel: ndarray of shape (n_pixels, n_cells)."""
    borders = np.linspace(start, stop, n_cells + 1)
    pixels = np.arange(n_pixels)[:, None]
    if smooth:
        # At least a pixel, so that small cells fall to some pixel.
        reach = max((stop - start) / n_cells, n_pixels / _FINEST, 1.0)
        centres = (borders[1:] + borders[:-1]) / 2
        parts = np.maximum(0, 1 - np.abs(pixels + 0.5 - centres) / reach)
        parts[(pixels + 1 <= start).ravel() | (pixels >= stop).ravel()] = 0
    else:
        parts = np.minimum(pixels + 1, borders[1:]) - np.maximum(pixels, borders[:-1])
        parts = np.maximum(0, parts)
    return parts / parts.sum(axis=0)
