"""Lettering: text on pictures, in a font that has its characters, broken where it is too wide.

The fonts and what they have are asked of Matplotlib, which is imported where something is drawn.
"""

import json
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import ImageDraw, ImageFont, features

from featurepipe.reports.plot_text import LINE_HEIGHT, shorten
from featurepipe.words import visible

# First-strong isolate and its end: what lies between has no influence on the order around it.
_ISOLATE, _END = "\u2068", "\u2069"

# A font of symbols alone would have no letters for the rest of a line.
_ALWAYS = frozenset("AZaz09 %:,.()…")


# At a space or behind a folder. No line begins with the sign of the share before it.
_BREAK = re.compile(" (?!%)|(?<=/)")


@dataclass(frozen=True)
class Lettering:
    """Lines of text that are ready to be drawn.

    Attributes
    ----------
    lines : sequence of str
    font : ImageFont.FreeTypeFont
    """

    lines: Sequence[str]
    font: ImageFont.FreeTypeFont

    @property
    def line_px(self) -> int:
        """Height of a line in pixels."""
        return round(self.font.size * LINE_HEIGHT)

    @property
    def height_px(self) -> int:
        """Height of all lines in pixels."""
        return self.line_px * len(self.lines)

    def draw(self, canvas: ImageDraw.ImageDraw, left: float, top: float) -> None:
        """Draw the lines in black, below each other."""
        for number, line in enumerate(self.lines):
            canvas.text((left, top + number * self.line_px), line, fill="black", font=self.font)


def set_lines(
    lines: Sequence[str], size_px: int, width_px: float, max_lines: int | None = None
) -> Lettering:
    """Break lines that are too wide, at spaces and folders, or else at letters.

    Parameters
    ----------
    lines : sequence of str
        Whatever is not printable, or in no font of this system, is drawn as an escape, and such
        an emoji by its name. Names in them come from `spell`.
    size_px : int
        Font size.
    width_px : float
    max_lines : int, optional
        Further lines are left out, and the last one ends with an ellipsis.
    """
    from matplotlib.ft2font import FT2Font

    shown = [_visible(line) for line in lines]
    path = _font_with(frozenset("".join(shown)) - {_ISOLATE, _END})
    font = ImageFont.truetype(str(path), size_px)
    has = FT2Font(str(path)).get_char_index
    drawn = ["".join(_in_font(sign, has(ord(sign))) for sign in line) for line in shown]
    broken = [piece for line in drawn for piece in _broken(line, font, width_px)]
    if max_lines is not None and len(broken) > max_lines:
        broken = [*broken[: max_lines - 1], "…"]
    return Lettering(broken, font)


def spell(name: str, most: int | None = None) -> str:
    r"""A name as it stands in a line of text, whatever it holds.

    Parameters
    ----------
    name : str
    most : int, optional
        Longer names are shortened in their middle to so many characters.

    Examples
    --------
    >>> print(spell("a" * 20, 9), spell("a\tb"))
    aaaa…aaaa a\tb
    """
    shown = visible(name) if most is None else shorten(visible(name), most)
    # Without it, a number that follows would stand before it.
    is_left = any(unicodedata.bidirectional(sign) in ("R", "AL", "AN") for sign in shown)
    return f"{_ISOLATE}{shown}{_END}" if is_left else shown


def _visible(line: str) -> str:
    parts = re.split(f"([{_ISOLATE}{_END}])", line)
    return "".join(part if part in (_ISOLATE, _END) else visible(part) for part in parts)


def _in_font(sign: str, glyph: int) -> str:
    """A character, or what is drawn where the font lacks it."""
    if sign in (_ISOLATE, _END):
        # They order text only where Pillow was built with Raqm; elsewhere they would be boxes.
        return sign if features.check("raqm") else ""
    if glyph:
        return sign
    name: str = unicodedata.name(sign, "")
    if name and unicodedata.category(sign) == "So":
        return f"({name.lower()})"
    return json.dumps(sign)[1:-1]


@cache
def _font_with(signs: frozenset[str]) -> Path:
    """DejaVu Sans if it has all characters, or else the first font of the system that does."""
    import matplotlib

    usual = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    if _has_all(usual, signs):
        return usual
    return next((path for path in _system_fonts() if _has_all(path, signs | _ALWAYS)), usual)


def _system_fonts() -> Iterator[Path]:
    """Files of fonts, ordinary weights first."""
    # Its import looks for all fonts of the system.
    from matplotlib import font_manager

    names = font_manager.findSystemFonts()
    yield from map(Path, sorted(names, key=lambda name: ("Regular" not in name, name)))


def _has_all(path: Path, signs: frozenset[str]) -> bool:
    from matplotlib.ft2font import FT2Font

    # Not every file of a font is one that FreeType reads.
    with suppress(RuntimeError, OSError):
        font = FT2Font(str(path))
        return bool(font.scalable) and all(font.get_char_index(ord(sign)) for sign in signs)
    return False


def _broken(line: str, font: ImageFont.FreeTypeFont, width_px: float) -> Iterator[str]:
    rest = line
    while font.getlength(rest) > width_px:
        n_fitting = bisect_right(
            range(1, len(rest)), width_px, key=lambda n: font.getlength(rest[:n])
        )
        spaces = [match.start() for match in _BREAK.finditer(rest[: n_fitting + 2])]
        end = max((at for at in spaces if 0 < at <= n_fitting), default=max(2, n_fitting))
        done, rest = rest[:end], rest[end:].lstrip()
        if done.count(_ISOLATE) > done.count(_END):
            rest = _ISOLATE + rest
        yield done
    yield rest
