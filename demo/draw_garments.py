"""Draw dresses, jeans, shirts and shoes in black, blue, red and white.

The pictures vary in shape, pose, shade, background and noise. The same seed draws the
same pictures.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIDE_PX = 240
SHADES = {
    "black": (28, 28, 32),
    "blue": (45, 75, 165),
    "red": (185, 35, 45),
    "white": (235, 234, 230),
}

# Outlines in the unit square; the left half of a garment, mirrored where it is symmetric.
HALF_OUTLINES = {
    "dress": [(0.50, 0.10), (0.42, 0.08), (0.36, 0.22), (0.40, 0.42), (0.22, 0.92), (0.50, 0.95)],
    "jeans": [(0.50, 0.08), (0.34, 0.08), (0.28, 0.50), (0.26, 0.94), (0.41, 0.95), (0.50, 0.42)],
    "shirt": [
        (0.50, 0.18), (0.40, 0.13), (0.22, 0.20), (0.06, 0.44), (0.18, 0.52), (0.30, 0.38),
        (0.30, 0.86), (0.50, 0.87),
    ],
}  # fmt: skip
SHOE_OUTLINE = [
    (0.12, 0.36), (0.34, 0.36), (0.44, 0.50), (0.70, 0.58), (0.90, 0.66), (0.92, 0.76),
    (0.10, 0.76),
]  # fmt: skip
SHOE_SOLE = [(0.08, 0.76), (0.93, 0.76), (0.92, 0.82), (0.08, 0.82)]

CATEGORIES = (*HALF_OUTLINES, "shoe")

Point = tuple[float, float]


def draw_garment(category: str, color: str, rng: np.random.Generator) -> Image.Image:
    """Draw one garment.

    Parameters
    ----------
    category : str
        One of `CATEGORIES`.
    color : str
        A key of `SHADES`.
    rng : numpy.random.Generator
        Source of all variation.

    Returns
    -------
    PIL.Image.Image
        RGB, `SIDE_PX` x `SIDE_PX`.
    """
    canvas = _background(rng)
    shade = _vary(SHADES[color], rng, 14)
    pose = _Pose(rng)
    draw = ImageDraw.Draw(canvas)
    for outline, fill in _parts(category, shade, rng):
        draw.polygon([pose(point) for point in outline], fill=fill)
    _draw_folds(draw, pose, shade, rng)
    return _photograph(canvas, rng)


def draw_folder(folder: Path, combinations: list[tuple[str, str]], n_each: int, seed: int) -> None:
    """Draw `n_each` pictures of each (color, category) into the folder ``color_category``."""
    for number, (color, category) in enumerate(combinations):
        rng = np.random.default_rng([seed, number])
        target = folder / f"{color}_{category}"
        target.mkdir(parents=True, exist_ok=True)
        for index in range(n_each):
            picture = draw_garment(category, color, rng)
            picture.save(target / f"{index:03}.jpg", quality=int(rng.integers(70, 95)))


class _Pose:
    """Maps the unit square into the picture: rotated, scaled, shifted, perhaps mirrored."""

    def __init__(self, rng: np.random.Generator) -> None:
        angle = np.radians(rng.normal(0, 9))
        scale = SIDE_PX * rng.uniform(0.68, 0.98)
        stretch = np.diag([scale * rng.choice([-1, 1]) * rng.uniform(0.85, 1.15), scale])
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        self._matrix = turn @ stretch
        self._centre = SIDE_PX * (0.5 + rng.uniform(-0.07, 0.07, 2))

    def __call__(self, point: Point) -> Point:
        x, y = self._matrix @ (np.array(point) - 0.5) + self._centre
        return float(x), float(y)


def _parts(
    category: str, shade: tuple[int, int, int], rng: np.random.Generator
) -> list[tuple[list[Point], tuple[int, int, int]]]:
    if category == "shoe":
        sole = _vary((90, 80, 70), rng, 25)
        return [(_wobble(SHOE_OUTLINE, rng), shade), (SHOE_SOLE, sole)]
    left = _wobble(HALF_OUTLINES[category], rng)
    right = [(1 - x, y) for x, y in reversed(left)]
    return [(left + right, shade)]


def _wobble(outline: list[Point], rng: np.random.Generator) -> list[Point]:
    return [(x + rng.normal(0, 0.012), y + rng.normal(0, 0.012)) for x, y in outline]


def _vary(
    shade: tuple[int, int, int], rng: np.random.Generator, spread: int
) -> tuple[int, int, int]:
    moved = np.array(shade) + rng.normal(0, spread) + rng.normal(0, spread / 3, 3)
    red, green, blue = np.clip(moved, 0, 255).astype(int).tolist()
    return red, green, blue


def _background(rng: np.random.Generator) -> Image.Image:
    base = rng.uniform(110, 225) + rng.normal(0, 12, 3)
    ramp = np.linspace(-1, 1, SIDE_PX) * rng.uniform(-25, 25)
    pixels = base[None, None] + ramp[:, None, None] + np.zeros((SIDE_PX, SIDE_PX, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _draw_folds(
    draw: ImageDraw.ImageDraw, pose: _Pose, shade: tuple[int, int, int], rng: np.random.Generator
) -> None:
    for _ in range(int(rng.integers(1, 5))):
        x, y = rng.uniform(0.38, 0.62), rng.uniform(0.3, 0.7)
        ends = [pose((x, y)), pose((x + rng.normal(0, 0.05), y + rng.uniform(0.05, 0.18)))]
        draw.line(ends, fill=_vary(shade, rng, 18), width=int(rng.integers(1, 4)))


def _photograph(canvas: Image.Image, rng: np.random.Generator) -> Image.Image:
    blurred = canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.3)))
    light = rng.uniform(0.85, 1.12)
    noise = rng.normal(0, rng.uniform(2, 9), (SIDE_PX, SIDE_PX, 3))
    return Image.fromarray(np.clip(np.asarray(blurred) * light + noise, 0, 255).astype(np.uint8))
