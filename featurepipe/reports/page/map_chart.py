"""The drawing of a map of features."""

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from featurepipe.reports.page.charts import (
    MOST_ROWS,
    SERIES,
    Chart,
    Values,
    brief,
    count_cell,
    figure_cell,
    fitting,
    name_cell,
    named,
)
from featurepipe.reports.page.feature_map import FeatureMap
from featurepipe.reports.page.svg import Scale, drawing, line, mark, text
from featurepipe.reports.plot_text import text_width
from featurepipe.reports.terminal_text import percent
from featurepipe.words import counted, visible

MOST_SHAPES = 6
"""Classes that have a shape and a colour each; of more, areas and centres are drawn."""

_WIDTH, _HEIGHT = 620.0, 470.0
_LEFT, _TOP, _BOTTOM = 20.0, 10.0, 40.0
_CELLS_ACROSS, _CELLS_UP = 42, 28
_NAME_PX, _NAME_FONT_PX = 110.0, 11.0

# Of about the same area; drawn from the middle.
_SHAPES = (
    "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0z",
    "m-2.7-2.7h5.4v5.4h-5.4z",
    "m0-3.8l3.6 6.4h-7.2z",
    "m0-4l4 4-4 4-4-4z",
    "m-3.6-1.2h2.4v-2.4h2.4v2.4h2.4v2.4h-2.4v2.4h-2.4v-2.4h-2.4z",
    "m0 3.8l3.6-6.4h-7.2z",
)
_UNLABELLED = "m-1.5-1.5h3v3h-3z"


def map_chart(found: FeatureMap) -> Chart:
    """Draw a map: points for few classes, else areas and the centres of classes.

    Parameters
    ----------
    found : FeatureMap
    """
    across, up = _scales(found.positions)
    present = [int(code) for code in np.unique(found.codes[found.codes >= 0])]
    few = len(present) <= MOST_SHAPES
    legend, height = _legend(found, present) if few else (Markup(""), _HEIGHT)
    parts = [
        _frame(found),
        *(_points(found, across, up, present) if few else _areas(found, across, up)),
        legend,
    ]
    shown = len(found.shown()) if few else len(found.codes)
    of_all = f" of {found.n_images:,}, drawn at random," if shown < found.n_images else ""
    said = (
        f"{counted(shown, 'training image')}{of_all} by the first two principal "
        f"components of {brief(found.features)}, which explain {percent(sum(found.explained))} "
        "of the variance"
    )
    how = (
        "Colour and shape show the class."
        if few
        else "A stronger colour means more images; points are the centres of classes. Names are "
        "left out where they would overlap; the table has all of them."
    )
    heading = f"Map of {brief(found.features)} by {brief(found.attribute)}"
    return Chart(
        heading,
        drawing(_WIDTH, height, f"{heading}. {said}.", parts),
        f"{said}. {how} The projection knows nothing of the classes.",
        _values(found),
        is_wide=True,
    )


def _scales(positions: NDArray[np.float64]) -> tuple[Scale, Scale]:
    """Scales with one unit for both axes."""
    low, high = positions.min(axis=0), positions.max(axis=0)
    middle, span = (low + high) / 2, (high - low) * 1.06
    room = np.array([_WIDTH - _LEFT - 8, _HEIGHT - _TOP - _BOTTOM])
    unit = max((span / room).max(), 1e-12)
    half = room * unit / 2
    return (
        Scale(middle[0] - half[0], middle[0] + half[0], _LEFT, _LEFT + room[0]),
        Scale(middle[1] - half[1], middle[1] + half[1], _TOP + room[1], _TOP),
    )


def _frame(found: FeatureMap) -> Markup:
    right, bottom = _WIDTH - 8, _HEIGHT - _BOTTOM
    first, second = (percent(share) for share in found.explained)
    return Markup("").join(
        [
            line(
                [(_LEFT, _TOP), (_LEFT, bottom), (right, bottom), (right, _TOP), (_LEFT, _TOP)],
                css="axis",
            ),
            text(
                (_LEFT + right) / 2,
                bottom + 18,
                f"First component, {first} of the variance",
                anchor="middle",
            ),
            Markup(
                '<text x="{0:g}" y="{1:g}" text-anchor="middle" '
                'transform="rotate(-90 {0:g} {1:g})">Second component, {2} of the variance</text>'
            ).format(_LEFT - 7, (_TOP + bottom) / 2, second),
        ]
    )


def _points(found: FeatureMap, across: Scale, up: Scale, present: list[int]) -> list[Markup]:
    """One path for each class."""
    rows = found.shown()
    codes, positions = found.codes[rows], found.positions[rows]
    parts = []
    for code in [-1, *present]:
        shape, colour = _style(present, code)
        path = "".join(f"M{across(x):g} {up(y):g}{shape}" for x, y in positions[codes == code])
        if path:
            parts.append(
                Markup('<path d="{}" style="fill:{}" fill-opacity=".75"/>').format(path, colour)
            )
    return parts


def _style(present: list[int], code: int) -> tuple[str, str]:
    if code < 0:
        return _UNLABELLED, "var(--quiet)"
    number = present.index(code)
    return _SHAPES[number], SERIES[number]


def _legend(found: FeatureMap, present: list[int]) -> tuple[Markup, float]:
    """Shapes with names below the map, three a line, and the height of all."""
    codes = [*present, *([-1] if (found.codes < 0).any() else [])]
    parts, column_px = [], (_WIDTH - _LEFT) / 3
    for number, code in enumerate(codes):
        shape, colour = _style(present, code)
        x = _LEFT + 6 + column_px * (number % 3)
        y = _HEIGHT + 4 + 18 * (number // 3)
        parts.append(Markup('<path d="M{:g} {:g}{}" style="fill:{}"/>').format(x, y, shape, colour))
        name = found.classes[code] if code >= 0 else "no label"
        parts.append(named(x + 10, y + 4, name, column_px - 24))
    return Markup("").join(parts), _HEIGHT + 18 * (-(-len(codes) // 3))


def _areas(found: FeatureMap, across: Scale, up: Scale) -> list[Markup]:
    """Cells by how many images they have, with the centres of classes on top."""
    x = np.array([across.low, across.high])
    y = np.array([up.low, up.high])
    counts, _, _ = np.histogram2d(
        found.positions[:, 0], found.positions[:, 1], (_CELLS_ACROSS, _CELLS_UP), (x, y)
    )
    wide = (across.end_px - across.start_px) / _CELLS_ACROSS
    high = (up.start_px - up.end_px) / _CELLS_UP
    cells = [
        Markup('<path d="M{:.1f} {:.1f}h{:.1f}v{:.1f}h-{:.1f}z" fill-opacity="{:.2f}"/>').format(
            across.start_px + column * wide,
            up.start_px - (row + 1) * high,
            wide,
            high,
            wide,
            0.08 + 0.5 * np.sqrt(counts[column, row] / counts.max()),
        )
        for column, row in np.argwhere(counts > 0)
    ]
    areas = Markup('<g style="fill:var(--shade)">{}</g>').format(Markup("").join(cells))
    return [areas, *_centres(found, across, up)]


def _centres(found: FeatureMap, across: Scale, up: Scale) -> list[Markup]:
    n_images = np.bincount(found.codes[found.codes >= 0], minlength=len(found.classes))
    # Names of large classes are placed first.
    centres = sorted(found.centroids().items(), key=lambda item: (-n_images[item[0]], item[0]))
    points = {code: (across(at[0]), up(at[1])) for code, at in centres}
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in points.values()]
    marks = [
        mark(x, y, f"{brief(found.classes[code])}: {counted(int(n_images[code]), 'image')}",
             radius=3, colour="var(--series-2)")
        for code, (x, y) in points.items()
    ]  # fmt: skip
    names = []
    for code, (x, y) in points.items():
        shown = fitting(found.classes[code], _NAME_PX, _NAME_FONT_PX)
        place = _free_place(x, y, 1.1 * text_width(shown, _NAME_FONT_PX), taken)
        if place is not None:
            taken.append(place)
            names.append(
                Markup('<g class="on-map">{}</g>').format(
                    named(place[0], place[3] - 3, found.classes[code], _NAME_PX,
                          size_px=_NAME_FONT_PX)
                )
            )  # fmt: skip
    return [*marks, *names]


def _free_place(
    x: float, y: float, width: float, taken: list[tuple[float, float, float, float]]
) -> tuple[float, float, float, float] | None:
    """Left, top, right and bottom of a name beside a point that overlaps nothing."""
    height = _NAME_FONT_PX + 3
    for left, top in (
        (x + 6, y - height / 2),
        (x - 6 - width, y - height / 2),
        (x - width / 2, y - 6 - height),
        (x - width / 2, y + 6),
    ):
        right, bottom = left + width, top + height
        is_inside = (
            left > _LEFT + 2
            and right < _WIDTH - 10
            and top > _TOP + 2
            and bottom < _HEIGHT - _BOTTOM - 2
        )
        if is_inside and not any(
            left < other[2] and other[0] < right and top < other[3] and other[1] < bottom
            for other in taken
        ):
            return left, top, right, bottom
    return None


def _values(found: FeatureMap) -> Values:
    centroids = list(found.centroids().items())
    rows = tuple(
        (
            name_cell(found.classes[code]),
            count_cell(int((found.codes == code).sum())),
            figure_cell(at[0]),
            figure_cell(at[1]),
        )
        for code, at in centroids[:MOST_ROWS]
    )
    caption = "Mean position of each class, and its images in the sample that the map was made of."
    if more := len(centroids) - len(rows):
        caption += f" {counted(more, 'class', 'classes')} not listed."
    columns = (
        visible(found.attribute), "Images", "First component", "Second component",
    )  # fmt: skip
    return Values(columns, rows, caption, sortable=True)
