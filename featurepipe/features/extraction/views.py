"""Views: how an image is shown to a backbone."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import UnknownNameError
from featurepipe.features.grids import spread

PLAIN_VIEW = "rgb"
"""The view that shows images as they are."""

_GRID = 28
_SHUFFLE_SEED = 28

_Patch = tuple[slice, slice]

Grids = NDArray[np.float64]


def _place_as_is(grids: Grids, size: tuple[int, int]) -> Grids:
    return grids[0]


@dataclass(frozen=True)
class View:
    """One way to show images to a backbone.

    Attributes
    ----------
    name : str
        Name on the command line and in a store's name.
    summary : str
        One line for a person.
    apply : callable
        Maps uint8 RGB of shape (n_images, height, width, 3) to pictures of the same
        type and shape (n_pictures * n_images, height, width, 3): the first
        picture of every image, then the second of every image, and so on.
    n_pictures : int
        Number of pictures that the backbone is shown per image.
    place_back : callable
        Maps grids of numbers on the pictures of one image, and the pictures' height and width, to
        a grid on the image: of shape (n_pictures, n_rows, n_columns) and (height, width) to
        (n_rows, n_columns), whose sum is the mean of the pictures' sums.
    """

    name: str
    summary: str
    apply: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
    n_pictures: int = 1
    place_back: Callable[[Grids, tuple[int, int]], Grids] = _place_as_is

    def merge(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Average the features of the pictures of each image.

        Parameters
        ----------
        features : ndarray of shape (n_pictures * n_images, n_features), float32
            Features of the pictures, in the order of `apply`.

        Returns
        -------
        ndarray of shape (n_images, n_features), float32
        """
        if self.n_pictures == 1:
            return features
        by_picture = features.reshape(self.n_pictures, -1, features.shape[-1])
        return by_picture.mean(axis=0, dtype=np.float32)


def find_view(name: str) -> View:
    """Look up a view by its name.

    Raises
    ------
    UnknownNameError
        If there is no such view.
    """
    try:
        return VIEWS[name]
    except KeyError:
        raise UnknownNameError("view", name, VIEWS) from None


def _show_as_is(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return images


def _show_luminance(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # ITU-R 601 luma in 16-bit fixed point, rounded: exactly Pillow's "L" mode.
    red, green, blue = np.moveaxis(images.astype(np.uint32), -1, 0)
    luminance = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    return np.repeat(luminance[..., None].astype(np.uint8), 3, axis=-1)


def _shuffle_patches(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    n_images, height, width, _ = images.shape
    pixels = images.reshape(n_images, height * width, 3)
    return np.take(pixels, shuffled_pixels(height, width), axis=1).reshape(images.shape)


@lru_cache(maxsize=8)
def shuffled_pixels(height: int, width: int) -> NDArray[np.intp]:
    """The pixel that is shown at each position, by its number from the top left.

    The borders of the 28 x 28 patches are rounded to whole pixels, so that
    their sides differ by at most one; patches of the same height and width
    are swapped among each other. Along a side of fewer than 28 pixels, patches
    are one pixel wide.

    Returns
    -------
    ndarray of shape (height * width,), intp
    """
    numbers = np.arange(height * width).reshape(height, width)
    shuffled = np.empty_like(numbers)
    draw = random.Random(_SHUFFLE_SEED)
    for patches in _patches_of_one_shape(height, width):
        # By sorting: Python guarantees equal draws in every version for `random()` only,
        # and features of the same name must come from the same view.
        order = sorted(patches, key=lambda _: draw.random())
        # Each patch shows the next: none stays where it was, unless no other has its shape.
        for target, source in zip(order, order[1:] + order[:1], strict=True):
            shuffled[target] = numbers[source]
    shuffled.flags.writeable = False
    return shuffled.ravel()


def _patches_of_one_shape(height: int, width: int) -> Iterable[list[_Patch]]:
    by_shape: defaultdict[tuple[int, int], list[_Patch]] = defaultdict(list)
    for rows in _cut(height):
        for columns in _cut(width):
            by_shape[rows.stop - rows.start, columns.stop - columns.start].append((rows, columns))
    return by_shape.values()


def _cut(length: int) -> list[slice]:
    n_parts = min(_GRID, length)
    borders = [(2 * k * length + n_parts) // (2 * n_parts) for k in range(n_parts + 1)]
    return [slice(start, stop) for start, stop in pairwise(borders)]


def _show_both_ways(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.concatenate([images, images[:, :, ::-1]])


def _place_patches(grids: Grids, size: tuple[int, int]) -> Grids:
    """A cell sees several patches, and its number is divided among their pixels."""
    image = np.empty(size[0] * size[1])
    image[shuffled_pixels(*size)] = spread(grids[0], size).ravel()
    return image.reshape(size)


def _place_both_ways(grids: Grids, size: tuple[int, int]) -> Grids:
    return (grids[0] + grids[1][:, ::-1]) / 2


VIEWS: dict[str, View] = {
    view.name: view
    for view in (
        View(PLAIN_VIEW, "the image as it is", _show_as_is),
        View("grey", "its luminance, without colour", _show_luminance),
        View(
            "shuffle",
            "its 28 x 28 patches shuffled, without shapes",
            _shuffle_patches,
            place_back=_place_patches,
        ),
        View(
            "flip",
            "it and its mirror image, features averaged",
            _show_both_ways,
            n_pictures=2,
            place_back=_place_both_ways,
        ),
    )
}
