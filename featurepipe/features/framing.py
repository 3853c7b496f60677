"""Framing: how an image of any shape becomes the rectangle that a network sees."""

import re
from typing import NamedTuple, Self

from featurepipe.errors import UnknownNameError

INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
"""Pillow's resampling filters; all but `nearest` average when they shrink."""

_METHOD = re.compile(r"pillow-(?P<interpolation>[a-z]+)(-crop-(?P<shorter_px>[1-9][0-9]{0,6}))?")


class Framing(NamedTuple):
    """How an image of any shape becomes the rectangle that a network sees.

    Attributes
    ----------
    height, width : int
        Of the result, in pixels.
    interpolation : str
        One of `INTERPOLATIONS`.
    shorter_px : int or None
        The image's shorter side is resized to so many pixels, and the centre is cropped. None:
        the whole image is resized, and its aspect ratio is not kept.

    Examples
    --------
    >>> Framing(224, 224, "bicubic", 256).method
    'pillow-bicubic-crop-256'
    """

    height: int
    width: int
    interpolation: str = "bilinear"
    shorter_px: int | None = None

    @classmethod
    def by_method(cls, method: str, size: tuple[int, int]) -> Self:
        """The framing of a `method` and a size.

        Parameters
        ----------
        method : str
        size : (int, int)
            Height and width.

        Raises
        ------
        UnknownNameError
            If there is no such method.
        """
        parts = _METHOD.fullmatch(method)
        if parts is None or parts["interpolation"] not in INTERPOLATIONS:
            raise UnknownNameError("resizing", method, [cls(*size).method])
        shorter_px = None if parts["shorter_px"] is None else int(parts["shorter_px"])
        if shorter_px is not None and shorter_px < max(size):
            raise UnknownNameError("resizing", method, [cls(*size, shorter_px=max(size)).method])
        return cls(*size, parts["interpolation"], shorter_px)

    @property
    def method(self) -> str:
        """How the image is resized, whatever the size: part of a store's key."""
        crop = "" if self.shorter_px is None else f"-crop-{self.shorter_px}"
        return f"pillow-{self.interpolation}{crop}"

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    def resized(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Height and width to which the whole of an image would be resized.

        Parameters
        ----------
        image_size : (int, int)
            Its height and width.
        """
        if self.shorter_px is None:
            return self.size
        shorter = min(image_size)
        # As torchvision and timm round.
        height, width = (int(self.shorter_px * side / shorter) for side in image_size)
        return height, width

    def box(self, image_size: tuple[int, int]) -> tuple[float, float, float, float]:
        """The rectangle of an image that becomes the result.

        Parameters
        ----------
        image_size : (int, int)
            Its height and width.

        Returns
        -------
        left, top, right, bottom : float
            In pixels of the image.
        """
        resized_height, resized_width = self.resized(image_size)
        y, x = image_size[0] / resized_height, image_size[1] / resized_width
        left, top = self.corner(image_size)
        return left * x, top * y, (left + self.width) * x, (top + self.height) * y

    def corner(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Where the result begins in the resized image.

        Parameters
        ----------
        image_size : (int, int)
            The image's height and width, before it is resized.

        Returns
        -------
        left, top : int
            In pixels of the resized image.
        """
        height, width = self.resized(image_size)
        # Python's rounding to even, as torchvision and timm crop.
        return round((width - self.width) / 2), round((height - self.height) / 2)
