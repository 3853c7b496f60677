"""Pictures that show where the evidence for an answer lies: an overlay, and its colour bar."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from featurepipe.files import replacing
from featurepipe.reports.lettering import Lettering, set_lines, spell

_SIDE_PX = 360
_LEAST_COLUMN_PX = 330
_MOST_COLUMNS = 4
_GAP_PX = 16
_FONT_PX = 12
_MOST_LINES = 20
_BAR_PX = 12
# Of PuOr of ColorBrewer 2.0 (Brewer & Harrower), which colour-blind people can tell apart.
_AGAINST, _FOR = np.array([84.0, 39.0, 136.0]), np.array([230.0, 97.0, 1.0])
_WITHIN_SCALE = 0.98
_MOST_OPAQUE = 0.9
_BAR_GREY = 225.0


@dataclass(frozen=True)
class EvidencePanel:
    """The evidence for one answer.

    Attributes
    ----------
    title : str
        The answer, such as ``"color: red 95 %"``.
    evidence : ndarray of shape (height, width), float64, or None
        What each pixel of the shown picture contributes to the score; None if that is unknown.
    notes : tuple of str
        What else is to be said, such as why there is no map.
    """

    title: str
    evidence: NDArray[np.float64] | None
    notes: tuple[str, ...] = ()


def shown(picture: Image.Image) -> Image.Image:
    """A picture at the size at which its evidence is drawn.

    Parameters
    ----------
    picture : PIL.Image.Image
    """
    scale = _SIDE_PX / max(picture.size)
    return picture.resize([max(1, round(side * scale)) for side in picture.size])


def draw_evidence(
    picture: Image.Image, name: str, panels: Sequence[EvidencePanel], copy: Path
) -> None:
    """Save a picture beside the evidence for each answer, as JPEG.

    Each panel has a scale of its own, from the strongest evidence against the answer to the
    strongest for it, in the unit of the score for each 1 % of the picture's area.

    Parameters
    ----------
    picture : PIL.Image.Image
        Of the size that `shown` gives.
    name : str
        Name of the image.
    panels : sequence of EvidencePanel
    copy : Path
        Where to save; its folder is created.
    """
    cells = [_cell(picture, EvidencePanel(spell(name), None)), *(_cell(picture, p) for p in panels)]
    n_columns = min(len(cells), _MOST_COLUMNS)
    rows = [cells[start : start + n_columns] for start in range(0, len(cells), n_columns)]
    heights = [max(cell.height for cell in row) + _GAP_PX for row in rows]
    width = cells[0].width + _GAP_PX
    page = Image.new("RGB", (_GAP_PX + width * n_columns, _GAP_PX + sum(heights)), "white")
    top = _GAP_PX
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            page.paste(cell, (_GAP_PX + column * width, top))
        top += height
    with replacing(copy) as beside:
        page.save(beside, format="JPEG", quality=90)


def _cell(picture: Image.Image, panel: EvidencePanel) -> Image.Image:
    """A title, the picture with the overlay, the colour bar, and the notes below."""
    width = max(picture.width, _LEAST_COLUMN_PX)
    title = set_lines([panel.title], _FONT_PX, width, _MOST_LINES)
    notes = set_lines(panel.notes, _FONT_PX, width, _MOST_LINES)
    below = title.height_px + picture.height + 4
    notes_top = below if panel.evidence is None else below + _BAR_PX + 2 * title.line_px + 6
    cell = Image.new("RGB", (width, notes_top + notes.height_px + 4), "white")
    draw = ImageDraw.Draw(cell)
    title.draw(draw, 0, 0)
    notes.draw(draw, 0, notes_top)
    if panel.evidence is not None:
        limit, density = _densities(panel.evidence)
        picture = _overlay(picture, density / limit)
        cell.paste(_bar(width), (0, below))
        _label_bar(draw, limit, density, (below + _BAR_PX + 2, width), title)
    cell.paste(picture, (0, title.height_px))
    return cell


def _densities(evidence: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """The end of the scale, and the evidence for each 1 % of the area."""
    density = evidence * evidence.size / 100
    # Not the maximum, beside which all but a few pixels could look pale.
    limit = float(np.quantile(np.abs(density), _WITHIN_SCALE))
    return limit or float(np.abs(density).max()) or 1.0, density


def _overlay(picture: Image.Image, shares: NDArray[np.float64]) -> Image.Image:
    # Paler than the picture, so that colours show on black and on white.
    grey = 110 + 0.5 * np.asarray(picture.convert("L"), dtype=np.float64)
    return _coloured(grey, shares)


def _bar(width: int) -> Image.Image:
    shares = np.tile(np.linspace(-1, 1, width), (_BAR_PX, 1))
    return _coloured(np.full(shares.shape, _BAR_GREY), shares)


def _coloured(grey: NDArray[np.float64], shares: NDArray[np.float64]) -> Image.Image:
    """Grey values under colours that are the more opaque, the nearer a share is to -1 or 1."""
    opacity = _MOST_OPAQUE * np.minimum(np.abs(shares), 1)[..., None]
    colour = np.where(shares[..., None] < 0, _AGAINST, _FOR)
    pixels = (1 - opacity) * grey[..., None] + opacity * colour
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def _label_bar(
    draw: ImageDraw.ImageDraw,
    limit: float,
    density: NDArray[np.float64],
    place: tuple[int, int],
    lettering: Lettering,
) -> None:
    (top, width), font = place, lettering.font
    below = "<" if density.min() < -limit else ""
    above = ">" if density.max() > limit else ""
    words = (
        (0, f"{below} -{limit:.2g} against".lstrip(), "la"),
        (width // 2, "0", "ma"),
        (width, f"for {above} +{limit:.2g}".replace("  ", " "), "ra"),
    )
    for x, word, anchor in words:
        draw.text((x, top), word, fill="black", font=font, anchor=anchor)
    centre = (width // 2, top + lettering.line_px)
    draw.text(centre, "score per 1 % of the area", fill="#555555", font=font, anchor="ma")
