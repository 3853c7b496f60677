"""Sizes of images, from their headers alone."""

from featurepipe.features.extraction.decoding import refusing
from featurepipe.features.extraction.image_headers import (
    LYING,
    open_image,
    orientation_of,
    require_decodable,
)


def image_size(data: bytes) -> tuple[int, int]:
    """Width and height of an image as a viewer shows it; its pixels are not decoded.

    Parameters
    ----------
    data : bytes
        As for `featurepipe.features.extraction.decoding.decode_image`.

    Returns
    -------
    (int, int)
        In pixels.

    Raises
    ------
    ImageError
        If the header is none of an image that is read, or declares too much.
    """
    with refusing():
        image = open_image(data)
        require_decodable(image, data)
        width, height = image.size
        return (height, width) if orientation_of(image) in LYING else (width, height)
