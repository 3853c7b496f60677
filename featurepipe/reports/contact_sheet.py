"""A contact sheet: small pictures in rows, each with a few words below."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from featurepipe.errors import UsageError
from featurepipe.output_folders import require_possible_file
from featurepipe.reports.lettering import set_lines
from featurepipe.reports.picture_files import FORMATS, save_picture

MAX_PICTURES = 400
"""Most pictures of one sheet: JPEG allows no more than 65,535 px a side."""

N_COLUMNS = 5
"""Pictures in a row."""

NAME_LENGTH = 60
"""To so many characters, names below pictures are shortened; see `spell`."""

# With so many lines below every picture, a full sheet is less than 60,000 px high.
_MOST_LINES = 28

_SIDE_PX = 220
_GAP_PX = 12
_FONT_PX = 13


def require_possible_sheet(path: Path, n_pictures: int, created: Path | None = None) -> None:
    """Stop unless a contact sheet of so many pictures can be saved at a path.

    Parameters
    ----------
    path : Path
    n_pictures : int
    created : Path, optional
        A folder that will be created before.

    Raises
    ------
    UsageError
        If the suffix is not .jpg, .jpeg or .png, the path is a folder or in none, or there are
        more than `MAX_PICTURES`.
    NotWritableError
        If permission is denied.
    """
    require_possible_file(path, FORMATS, "a contact sheet", created)
    if n_pictures > MAX_PICTURES:
        raise UsageError(
            f"A contact sheet shows at most {MAX_PICTURES} images, not {n_pictures:,}. Choose "
            "fewer, or omit --contact-sheet."
        )


def write_contact_sheet(
    pictures: Iterable[tuple[Image.Image | None, Sequence[str]]], path: Path
) -> None:
    """Write a contact sheet, completely or not at all.

    Parameters
    ----------
    pictures : iterable of (PIL.Image.Image or None, sequence of str)
        At least one and at most `MAX_PICTURES`, in reading order: the picture, or None if it
        cannot be shown, and the lines below it. Long lines are broken. Only one picture is held
        at its full size at a time.
    path : Path
        Its suffix is .jpg, .jpeg or .png.
    """
    cells = [
        (_thumbnail(picture), set_lines(lines, _FONT_PX, _SIDE_PX, _MOST_LINES))
        for picture, lines in pictures
    ]
    rows = [cells[start : start + N_COLUMNS] for start in range(0, len(cells), N_COLUMNS)]
    heights = [_SIDE_PX + max(words.height_px for _, words in row) + _GAP_PX for row in rows]
    width = _GAP_PX + (_SIDE_PX + _GAP_PX) * len(rows[0])
    sheet = Image.new("RGB", (width, _GAP_PX + sum(heights)), "white")
    draw, top = ImageDraw.Draw(sheet), _GAP_PX
    for row, height in zip(rows, heights, strict=True):
        for column, (thumbnail, words) in enumerate(row):
            left = _GAP_PX + column * (_SIDE_PX + _GAP_PX)
            if thumbnail is not None:
                sheet.paste(thumbnail, (left, top + _SIDE_PX - thumbnail.height))
            words.draw(draw, left, top + _SIDE_PX + 3)
        top += height
    save_picture(sheet, path)


def _thumbnail(picture: Image.Image | None) -> Image.Image | None:
    if picture is None:
        return None
    scale = _SIDE_PX / max(picture.size)
    return picture.resize([max(1, round(side * scale)) for side in picture.size])
