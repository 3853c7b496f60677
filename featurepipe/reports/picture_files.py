"""Files of pictures: which can be written, and writing them completely or not at all."""

from pathlib import Path

from PIL import Image

from featurepipe.errors import UsageError
from featurepipe.files import replacing

_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}


def require_possible_picture(path: Path, what: str) -> None:
    """Stop unless a picture can be saved at a path.

    Parameters
    ----------
    path : Path
    what : str
        What it is, such as ``"contact sheet"``.

    Raises
    ------
    UsageError
        If the suffix is not .jpg, .jpeg or .png, or the path is a folder or in none.
    """
    if path.suffix.lower() not in _FORMATS:
        raise UsageError(
            f"Cannot write a {what} to {path}: its suffix is {path.suffix!r}. Use .jpg or .png."
        )
    if path.is_dir():
        raise UsageError(f"Cannot write a {what} to {path}: it is a folder. Name a file.")
    if not path.parent.is_dir():
        raise UsageError(
            f"Cannot write a {what} to {path}: there is no folder {path.parent}. Create it."
        )


def save_picture(picture: Image.Image, path: Path) -> None:
    """Save a picture, completely or not at all.

    Parameters
    ----------
    picture : PIL.Image.Image
        RGB.
    path : Path
        Its suffix is .jpg, .jpeg or .png.
    """
    with replacing(path) as beside:
        picture.save(beside, format=_FORMATS[path.suffix.lower()], quality=90)
