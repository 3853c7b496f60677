"""Where the labels of a chart's points stand, so that none covers another."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len

_CHARACTER_PX, _HEIGHT_PX = 7.4, 15
_GAPS_PX = (12, 22, 36, 54)
_POINT_PX = 10

Box = tuple[float, float, float, float]
"""Left, top, right and bottom."""


@dataclass(frozen=True)
class PointLabel:
    """A label, its place, and which end of it that is.

    Attributes
    ----------
    point : int
        Position of the point.
    text : str
    x, y : float
        Of its baseline.
    anchor : str
        ``"start"``, ``"middle"`` or ``"end"``.
    is_far : bool
        Whether a line must lead to the point.
    """

    point: int
    text: str
    x: float
    y: float
    anchor: str
    is_far: bool


def place_labels(
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    room: Box,
    lines: Sequence[Box] = (),
) -> list[PointLabel]:
    """Places for as many labels as there is room for.

    Parameters
    ----------
    points : sequence of (float, float)
        Pixels, the most important point first.
    texts : sequence of str
        Labels of the first points; the others have none.
    room : Box
        Where labels may be.
    lines : sequence of Box
        What labels only cover where they must, such as whiskers.

    Returns
    -------
    list of PointLabel
        Points without room have none.
    """
    marks = [(x - _POINT_PX, y - _POINT_PX, x + _POINT_PX, y + _POINT_PX) for x, y in points]
    taken: list[Box] = []
    placed = []
    for position, ((x, y), text) in enumerate(zip(points, texts, strict=False)):
        width = _CHARACTER_PX * cell_len(text)
        options = list(_options(x, y, width))
        for blocked in ([*marks, *lines, *taken], [*marks, *taken]):
            found = next(
                (
                    (option, box)
                    for option, box in options
                    if _inside(box, room) and not any(_overlap(box, other) for other in blocked)
                ),
                None,
            )
            if found is not None:
                (label_x, label_y, anchor, is_far), box = found
                taken.append(box)
                placed.append(PointLabel(position, text, label_x, label_y, anchor, is_far))
                break
    return placed


def _options(
    x: float, y: float, width: float
) -> Sequence[tuple[tuple[float, float, str, bool], Box]]:
    """Places beside a point, the nearest first, each with the box that the label fills."""
    options = []
    for gap in _GAPS_PX:
        is_far = gap > _GAPS_PX[0]
        for across, down in ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1)):
            left = {1: x + gap, 0: x - width / 2, -1: x - gap - width}[across]
            middle = y + down * (gap + _HEIGHT_PX / 3)
            anchor = {1: "start", 0: "middle", -1: "end"}[across]
            at = {1: left, 0: x, -1: left + width}[across]
            box = (left, middle - _HEIGHT_PX / 2, left + width, middle + _HEIGHT_PX / 2)
            options.append(((round(at, 1), round(middle + 4, 1), anchor, is_far), box))
    return options


def _inside(box: Box, room: Box) -> bool:
    return box[0] >= room[0] and box[1] >= room[1] and box[2] <= room[2] and box[3] <= room[3]


def _overlap(box: Box, other: Box) -> bool:
    return box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]
