"""A contact sheet: small pictures in rows, each with a few words below."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from featurepipe.errors import UsageError
from featurepipe.reports.picture_files import require_possible_picture, save_picture
from featurepipe.words import visible

MAX_PICTURES = 400
"""Most pictures of one sheet: JPEG allows no more than 65,535 px a side."""

N_COLUMNS = 5
"""Pictures in a row."""

_SIDE_PX = 220
_GAP_PX = 12
_FONT_PX = 13
_LINE_PX = 17


def require_possible_sheet(path: Path, n_pictures: int) -> None:
    """Stop unless a contact sheet of so many pictures can be saved at a path.

    Parameters
    ----------
    path : Path
    n_pictures : int

    Raises
    ------
    UsageError
        If the suffix is not .jpg, .jpeg or .png, the path is a folder or in none, or there are
        more than `MAX_PICTURES`.
    """
    require_possible_picture(path, "contact sheet")
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
    font = ImageFont.load_default(size=_FONT_PX)
    cells = [(_thumbnail(picture), _broken(lines, font)) for picture, lines in pictures]
    rows = [cells[start : start + N_COLUMNS] for start in range(0, len(cells), N_COLUMNS)]
    heights = [_SIDE_PX + _LINE_PX * max(len(lines) for _, lines in row) + _GAP_PX for row in rows]
    width = _GAP_PX + (_SIDE_PX + _GAP_PX) * len(rows[0])
    sheet = Image.new("RGB", (width, _GAP_PX + sum(heights)), "white")
    draw, top = ImageDraw.Draw(sheet), _GAP_PX
    for row, height in zip(rows, heights, strict=True):
        for column, (thumbnail, lines) in enumerate(row):
            left = _GAP_PX + column * (_SIDE_PX + _GAP_PX)
            if thumbnail is not None:
                sheet.paste(thumbnail, (left, top + _SIDE_PX - thumbnail.height))
            for number, line in enumerate(lines):
                y = top + _SIDE_PX + 3 + number * _LINE_PX
                draw.text((left, y), line, fill="black", font=font)
        top += height
    save_picture(sheet, path)


def _thumbnail(picture: Image.Image | None) -> Image.Image | None:
    if picture is None:
        return None
    scale = _SIDE_PX / max(picture.size)
    return picture.resize([max(1, round(side * scale)) for side in picture.size])


def _broken(lines: Sequence[str], font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """The lines, broken at spaces where they are wider than a picture; long words are cut."""
    broken = []
    for line in map(visible, lines):
        now = ""
        # No line begins with the sign of the share before it.
        for word in re.split(" (?!%)", line):
            longer = f"{now} {word}" if now else word
            if now and font.getlength(longer) > _SIDE_PX:
                broken.append(_cut(now, font))
                longer = word
            now = longer
        broken.append(_cut(now, font))
    return broken


def _cut(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The end of a line that is too wide: of a path, that tells most."""
    if font.getlength(line) <= _SIDE_PX:
        return line
    while line and font.getlength(f"…{line}") > _SIDE_PX:
        line = line[1:]
    return f"…{line}"
