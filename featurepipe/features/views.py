"""Views: what of the image a backbone is shown."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import UnknownNameError


@dataclass(frozen=True)
class View:
    """One way to show images to a backbone.

    Attributes
    ----------
    name : str
        As on the command line and in a store's name.
    summary : str
        One line for a person.
    apply : callable
        uint8 RGB of shape (n_images, height, width, 3) to the same shape and
        type.
    """

    name: str
    summary: str
    apply: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


def find_view(name: str) -> View:
    """The view of a name.

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


VIEWS: dict[str, View] = {
    view.name: view
    for view in (
        View("rgb", "the image as it is", _show_as_is),
        View("grey", "its luminance only, so that colours cannot tell", _show_luminance),
    )
}
