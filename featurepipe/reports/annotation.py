"""Copies of images with lines of text below."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from featurepipe.features.extraction.decoding import open_rgb
from featurepipe.files import replacing

_LEAST_SIDE_PX = 240


def annotate_image(image: Path, lines: Sequence[str], copy: Path) -> None:
    """Save a copy of an image as JPEG, with lines of text below it.

    Parameters
    ----------
    image : Path
        A readable image.
    lines : sequence of str
    copy : Path
        Where to save; its folder is created.
    """
    picture = open_rgb(image.read_bytes())
    scale = max(1.0, _LEAST_SIDE_PX / min(picture.size))
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)))
    font_px = max(14, picture.width // 24)
    font = ImageFont.load_default(size=font_px)
    line_px = round(font_px * 1.35)
    page = Image.new("RGB", (picture.width, picture.height + line_px * len(lines) + 8), "white")
    page.paste(picture)
    draw = ImageDraw.Draw(page)
    for number, line in enumerate(lines):
        draw.text((6, picture.height + 3 + number * line_px), line, fill="black", font=font)
    with replacing(copy) as beside:
        page.save(beside, format="JPEG", quality=90)
