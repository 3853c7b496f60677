"""Charts with a point for each run: accuracy against cost, seen against unseen combinations."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup

from featurepipe.reports.page.board_table import is_network
from featurepipe.reports.page.point_labels import Box, place_labels
from featurepipe.reports.page.svg import (
    Scale,
    drawing,
    horizontal_axis,
    line,
    text,
    vertical_axis,
)
from featurepipe.reports.terminal_text import duration, figure, percent, shortened
from featurepipe.words import visible

_SIZES = {"narrow": (340, 330, 26), "wide": (760, 400, 34)}
_LEFT_PX, _TOP_PX, _RIGHT_PX, _BOTTOM_PX = 54, 36, 22, 44
_RING_PX = 10
_MAX_LABELLED = 12
_COLOURS = {False: "var(--series-1)", True: "var(--series-2)"}


@dataclass(frozen=True)
class RunChart:
    """A chart in two sizes, of which a page shows the one that fits.

    Attributes
    ----------
    caption : str
    narrow, wide : Markup
    has_networks : bool
    """

    caption: str
    narrow: Markup
    wide: Markup
    has_networks: bool


@dataclass(frozen=True)
class _Point:
    name: str
    x: float
    y: float
    low: float
    high: float
    tip: str
    is_network: bool
    is_tied: bool
    is_taken: bool


def cost_chart(rows: pd.DataFrame, cost: str, taken: str | None) -> RunChart | None:
    """Accuracy against a cost, on a logarithmic scale.

    Parameters
    ----------
    rows : pandas.DataFrame
        Rows of the board of one split and attribute.
    cost : {"predict_ms_per_image", "fit_s"}
    taken : str or None
        Name of the run to take.

    Returns
    -------
    RunChart or None
        None if fewer than two runs have both.
    """
    said = {"predict_ms_per_image": "ms per image", "fit_s": "seconds to fit"}[cost]
    points = [
        _point(row, float(row[cost]), _cost_text(row, cost), taken)
        for _, row in rows.iterrows()
        if row[cost] > 0 and pd.notna(row["accuracy"])
    ]
    if len(points) < 2:
        return None
    costs = [point.x for point in points]
    label = {"predict_ms_per_image": "ms per image, features included", "fit_s": "seconds to fit"}
    low, high = min(costs), max(costs)
    ends = (low / 1.5, high * 1.5) if high / low > 3 else (low / 2.2, high * 2.2)
    return _chart(points, ends, label[cost], f"Accuracy against {said}", is_log=True)


def unseen_chart(rows: pd.DataFrame, taken: str | None) -> RunChart | None:
    """Accuracy on held-out combinations against that on test images.

    Parameters
    ----------
    rows : pandas.DataFrame
        Rows of the board of one split and attribute.
    taken : str or None
        Name of the run to take.

    Returns
    -------
    RunChart or None
        None if fewer than two runs have both.
    """
    points = []
    for _, row in rows.iterrows():
        if pd.isna(row["accuracy"]) or pd.isna(row["unseen_accuracy"]):
            continue
        tip = (
            f"{visible(row['run'])}: {percent(row['accuracy'])} of test images, "
            f"{percent(row['unseen_accuracy'])} on held-out combinations"
        )
        points.append(_point(row, float(row["accuracy"]), tip, taken, name="unseen_accuracy"))
    if len(points) < 2:
        return None
    shares = [point.x for point in points]
    margin = max(0.15 * (max(shares) - min(shares)), 0.02)
    ends = (max(min(shares) - margin, 0), min(max(shares) + margin, 1.02))
    title = "Accuracy on held-out combinations against that on test images"
    return _chart(points, ends, "right on test images", title, is_log=False)


def _cost_text(row: pd.Series, cost: str) -> str:
    amount = (
        duration(row[cost]) + " to fit" if cost == "fit_s" else f"{figure(row[cost])} ms per image"
    )
    return f"{visible(row['run'])}: {percent(row['accuracy'])}, {amount}"


def _point(row: pd.Series, x: float, tip: str, taken: str | None, name: str = "accuracy") -> _Point:
    value = float(row[name])
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    tied = row["tied_with_best"]
    return _Point(
        name=visible(row["run"]),
        x=x,
        y=value,
        low=value if pd.isna(low) else float(low),
        high=value if pd.isna(high) else float(high),
        tip=tip,
        is_network=is_network(row),
        is_tied=True if pd.isna(tied) else bool(tied),
        is_taken=row["run"] == taken,
    )


def _chart(
    points: Sequence[_Point], ends: tuple[float, float], label: str, title: str, *, is_log: bool
) -> RunChart:
    points = sorted(points, key=lambda point: (not point.is_taken, -point.y, point.name))
    labelled = points
    if len(points) > _MAX_LABELLED:
        labelled = _unbeaten(points, cheaper_is_better=is_log)
    # The first points are those with a label, the most important ones first.
    points = [*labelled, *(point for point in points if point not in labelled)]
    said = [f"{title}, with 95 % intervals."]
    if any(point.is_taken for point in points):
        said.append("The ring marks the run to take.")
    if not all(point.is_tied for point in points):
        said.append("Hollow marks are significantly less accurate than the best.")
    if len(labelled) < len(points):
        said.append("Named are the runs that no other beats in both; the board has all.")
    drawn = {
        size: _drawn(points, len(labelled), ends, label, title, is_log=is_log, size=size)
        for size in _SIZES
    }
    return RunChart(
        caption=" ".join(said),
        narrow=drawn["narrow"],
        wide=drawn["wide"],
        has_networks=any(point.is_network for point in points),
    )


def _drawn(
    points: Sequence[_Point],
    n_labelled: int,
    ends: tuple[float, float],
    label: str,
    title: str,
    *,
    is_log: bool,
    size: str,
) -> Markup:
    width, height, n_characters = _SIZES[size]
    bottom, right = height - _BOTTOM_PX, width - _RIGHT_PX
    x = Scale(*ends, _LEFT_PX, right, is_log=is_log)
    low, high = min(point.low for point in points), max(point.high for point in points)
    margin = max(0.08 * (high - low), 0.01)
    y = Scale(max(low - margin, 0), min(high + margin, 1), bottom - _RING_PX, _TOP_PX)
    places = [(x(point.x), y(point.y)) for point in points]
    whiskers: list[Box] = [
        (at - 1, y(point.high), at + 1, y(point.low))
        for point, (at, _) in zip(points, places, strict=True)
    ]
    room = (_LEFT_PX + 2, _TOP_PX - 8, width, bottom - 2)
    names = _short_names([point.name for point in points[:n_labelled]], n_characters)
    labels = place_labels(places, names, room, whiskers)
    across = (
        horizontal_axis(x, bottom, label, grid_to=_TOP_PX)
        if is_log
        else horizontal_axis(_in_percent(x), bottom, label, form="{:g} %", grid_to=_TOP_PX)
    )
    above = "accuracy" if is_log else "right on held-out combinations"
    parts = [
        across,
        vertical_axis(_in_percent(y), _LEFT_PX, above, form="{:g} %", grid_to=right),
    ]
    parts += [_whisker(point, at, y) for point, (at, _) in zip(points, places, strict=True)]
    for placed in labels:
        at = places[placed.point]
        if placed.is_far:
            parts.append(line([at, (placed.x, placed.y - 4)], css="axis lead"))
    parts += [_mark(point, *at) for point, at in zip(points, places, strict=True)]
    parts += [
        text(placed.x, placed.y, placed.text, anchor=placed.anchor, css="label")
        for placed in labels
    ]
    best = max(points, key=lambda point: point.y)
    return drawing(width, height, f"{title}: best {best.tip}", parts)


def _unbeaten(points: Sequence[_Point], *, cheaper_is_better: bool) -> list[_Point]:
    """The run to take, and those that no other beats in both figures."""
    sign = -1 if cheaper_is_better else 1
    return [
        point
        for point in points
        if point.is_taken
        or not any(
            sign * other.x >= sign * point.x
            and other.y >= point.y
            and (other.x, other.y) != (point.x, point.y)
            for other in points
        )
    ]


def _short_names(names: Sequence[str], n_characters: int) -> list[str]:
    """Names as short as they may be without two becoming one."""
    for n in range(n_characters, 2 * n_characters):
        short = [shortened(name, n) for name in names]
        if len(set(short)) == len(names):
            break
    return short


def _in_percent(scale: Scale) -> Scale:
    return Scale(100 * scale.low, 100 * scale.high, scale.start_px, scale.end_px)


def _whisker(point: _Point, at: float, y: Scale) -> Markup:
    return line(
        [(at, y(point.low)), (at, y(point.high))],
        css="line whisker",
        colour=_COLOURS[point.is_network],
    )


def _mark(point: _Point, x: float, y: float) -> Markup:
    """A circle for heads, a square for networks; hollow where it is worse, ringed to take."""
    colour = _COLOURS[point.is_network]
    fill = colour if point.is_tied else "var(--ground)"
    shape = (
        Markup('<rect x="{}" y="{}" width="9" height="9"').format(x - 4.5, y - 4.5)
        if point.is_network
        else Markup('<circle cx="{}" cy="{}" r="5"').format(x, y)
    )
    ring = (
        Markup('<circle class="ring" cx="{}" cy="{}" r="9"/>').format(x, y)
        if point.is_taken
        else Markup()
    )
    return (
        ring
        + shape
        + Markup(' class="mark" style="fill:{};stroke:{}"><title>{}</title></{}>').format(
            fill, colour, point.tip, "rect" if point.is_network else "circle"
        )
    )
