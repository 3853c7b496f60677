"""Files of pictures, written completely or not at all."""

from pathlib import Path

from PIL import Image

from featurepipe.files import replacing

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
"""Formats of pictures by the suffixes that they may have."""


def save_picture(picture: Image.Image, path: Path) -> None:
    """Save a picture, completely or not at all.

    Parameters
    ----------
    picture : PIL.Image.Image
        RGB.
    path : Path
        Its suffix is one of `FORMATS`.
    """
    with replacing(path) as beside:
        picture.save(beside, format=FORMATS[path.suffix.lower()], quality=90)
