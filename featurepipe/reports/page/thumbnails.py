"""Thumbnails: small pictures of images, within a budget of bytes."""

import base64
import io
from collections.abc import Callable

from featurepipe.errors import FeaturepipeError
from featurepipe.features.extraction.decoding import open_rgb

_SIDE_PX = 112
_QUALITY = 70


class Thumbnails:
    """Small pictures of images, made when they are asked for and as long as the budget lasts.

    Parameters
    ----------
    read : callable
        The bytes of an image, by its id; raises OSError or FeaturepipeError if it is gone.
    budget_bytes : int
        Bytes of all pictures together, as they stand in the page.
    side_px : int
        Longest side of a picture.
    """

    def __init__(
        self, read: Callable[[str], bytes], budget_bytes: int, side_px: int = _SIDE_PX
    ) -> None:
        self._read = read
        self._left = budget_bytes
        self._side_px = side_px
        self._made: dict[str, str | None] = {}

    def of(self, image_id: str) -> str | None:
        """A picture as a data URI.

        Parameters
        ----------
        image_id : str

        Returns
        -------
        str or None
            None if the image cannot be read any more, or the budget is used up.
        """
        if image_id not in self._made:
            self._made[image_id] = self._make(image_id)
        uri = self._made[image_id]
        # A page repeats the bytes of a picture that it shows again.
        if uri is not None:
            self._left -= len(uri)
        return uri if self._left >= 0 else None

    def _make(self, image_id: str) -> str | None:
        if self._left <= 0:
            return None
        try:
            picture = open_rgb(self._read(image_id))
        except (OSError, FeaturepipeError):
            return None
        picture.thumbnail((self._side_px, self._side_px))
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=_QUALITY, optimize=True)
        return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
