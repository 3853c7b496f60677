"""Copies of images with lines of text below."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from featurepipe.files import replacing
from featurepipe.reports.lettering import set_lines

_LEAST_PX, _MOST_PX = 320, 4096
_LEAST_FONT_PX = 16
_MARGIN_PX = 6
# JPEG allows no more than 65,535 px a side.
_MOST_LINES = 200


def annotate_image(picture: Image.Image, lines: Sequence[str], copy: Path) -> None:
    """Save a copy of an image as JPEG, with lines of text below it.

    Parameters
    ----------
    picture : PIL.Image.Image
        RGB, of any size. Its longer side becomes at least 320 px and at most 4,096 px.
    lines : sequence of str
        Broken where they are wider than the copy, which is at least 320 px wide.
    copy : Path
        Where to save; its folder is created.
    """
    longest = max(picture.size)
    scale = min(max(longest, _LEAST_PX), _MOST_PX) / longest
    if scale != 1:
        picture = picture.resize([max(1, round(side * scale)) for side in picture.size])
    width = max(picture.width, _LEAST_PX)
    # As large as the whole copy needs, seen on a screen; but some words fit on a line.
    font_px = max(_LEAST_FONT_PX, min(max(picture.size) // 40, width // 20))
    words = set_lines(lines, font_px, width - 2 * _MARGIN_PX, _MOST_LINES)
    page = Image.new("RGB", (width, picture.height + words.height_px + 2 * _MARGIN_PX), "white")
    page.paste(picture)
    words.draw(ImageDraw.Draw(page), _MARGIN_PX, picture.height + _MARGIN_PX)
    with replacing(copy) as beside:
        page.save(beside, format="JPEG", quality=90)
