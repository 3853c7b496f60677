"""SVG as strings: scales, axes and marks, coloured by the page's style sheet."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic scale: values to pixels.

    Attributes
    ----------
    low, high : float
        Values at the two ends, `low` less than `high`.
    start_px, end_px : float
        Where these lie; a vertical scale starts below.
    is_log : bool
    """

    low: float
    high: float
    start_px: float
    end_px: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """Pixels of a value, rounded to a tenth."""
        low, high, at = self.low, self.high, float(value)
        if self.is_log:
            low, high, at = np.log10(low), np.log10(high), np.log10(at)
        return round(self.start_px + (at - low) / (high - low) * (self.end_px - self.start_px), 1)

    def ticks(self, n: int = 5) -> list[float]:
        """At most about `n` round values within the ends, ascending."""
        if self.is_log:
            decades = np.arange(np.floor(np.log10(self.low)), np.ceil(np.log10(self.high)) + 1)
            steps = (1,) if len(decades) > 3 else (1, 2, 5)
            values = np.array([10.0**decade * step for decade in decades for step in steps])
        else:
            rough = (self.high - self.low) / n
            size = 10.0 ** np.floor(np.log10(rough))
            step = size * next(m for m in (1, 2, 5, 10) if m * size >= rough * 0.999)
            values = np.arange(np.ceil(self.low / step), self.high / step + 1e-9) * step
        slack = 1e-9 * (self.high - self.low)
        return [float(v) for v in values if self.low - slack <= v <= self.high + slack]


def drawing(width: float, height: float, title: str, parts: Iterable[Markup]) -> Markup:
    """A drawing that a screen reader names by its title.

    Parameters
    ----------
    width, height : float
        In pixels of the drawing; the page may show it smaller.
    title : str
        What it shows, a sentence with its main figures.
    parts : iterable of Markup
    """
    head = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" '
        'role="img" aria-label="{title}">'
    ).format(w=width, h=height, title=title)
    return head + Markup("").join(parts) + Markup("</svg>")


def text(x: float, y: float, content: str, *, anchor: str = "start", css: str = "") -> Markup:
    """Text on its baseline; `anchor` is ``"start"``, ``"middle"`` or ``"end"``."""
    return Markup('<text x="{}" y="{}" text-anchor="{}" class="{}">{}</text>').format(
        x, y, anchor, css, content
    )


def line(points: Sequence[tuple[float, float]], *, css: str = "line", colour: str = "") -> Markup:
    """A line through points; `colour` is a CSS value such as ``"var(--series-1)"``."""
    path = "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
    style = Markup(' style="stroke:{}"').format(colour) if colour else Markup("")
    return Markup('<path class="{}" d="{}"{}/>').format(css, path, style)


def mark(
    x: float, y: float, tip: str, *, radius: float = 4, colour: str = "var(--series-1)"
) -> Markup:
    """A point with a text that a pointer shows."""
    return Markup(
        '<circle cx="{}" cy="{}" r="{}" style="fill:{}"><title>{}</title></circle>'
    ).format(x, y, radius, colour, tip)


def box(
    x: float,
    y: float,
    width: float,
    height: float,
    *,
    colour: str,
    opacity: float = 1,
    tip: str = "",
) -> Markup:
    """A filled rectangle with a text that a pointer shows."""
    inner = Markup("<title>{}</title>").format(tip) if tip else Markup("")
    return Markup(
        '<rect x="{:g}" y="{:g}" width="{:g}" height="{:g}" style="fill:{}" '
        'fill-opacity="{:g}">{}</rect>'
    ).format(x, y, width, height, colour, opacity, inner)


def horizontal_axis(
    scale: Scale, y: float, label: str, *, form: str = "{:g}", grid_to: float | None = None
) -> Markup:
    """The axis below a chart, with ticks; `grid_to` is the top of its grid lines."""
    parts = [line([(scale.start_px, y), (scale.end_px, y)], css="axis")]
    for value in scale.ticks():
        x = scale(value)
        if grid_to is not None:
            parts.append(line([(x, y), (x, grid_to)], css="grid"))
        parts.append(text(x, y + 16, _tick(form, value), anchor="middle", css="quiet"))
    middle = (scale.start_px + scale.end_px) / 2
    return Markup("").join([*parts, text(middle, y + 34, label, anchor="middle")])


def vertical_axis(
    scale: Scale, x: float, label: str, *, form: str = "{:g}", grid_to: float | None = None
) -> Markup:
    """The axis left of a chart; its label stands above it. `grid_to` is the right end."""
    parts = [line([(x, scale.start_px), (x, scale.end_px)], css="axis")]
    for value in scale.ticks():
        y = scale(value)
        if grid_to is not None:
            parts.append(line([(x, y), (grid_to, y)], css="grid"))
        parts.append(text(x - 6, y + 4, _tick(form, value), anchor="end", css="quiet"))
    return Markup("").join([*parts, text(2, scale.end_px - 10, label)])


def _tick(form: str, value: float) -> str:
    # The page writes percentages with a space.
    return form.format(value).replace("%", " %")
