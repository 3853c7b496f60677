"""Text on plots: which characters fit a line, and how names are placed without overlap."""

import textwrap
import unicodedata

import numpy as np
from numpy.typing import NDArray

LINE_HEIGHT = 1.35
"""Of a line of text, in font sizes."""

# Mean width of a character in DejaVu Sans in font sizes, and a little more.
_CHARACTER_WIDTH = 0.58
_MOST_LINES = 2


def plain_text(text: str) -> str:
    """Replace line breaks, and characters that XML or UTF-8 does not allow.

    Parameters
    ----------
    text : str
    """
    text = " ".join(text.split())
    return "".join(
        "\ufffd" if unicodedata.category(c) in ("Cc", "Cs") or c in "\ufffe\uffff" else c
        for c in text
    )


def wrap(text: str, width_in: float, size_pt: float) -> str:
    """Break text into at most two lines, shortened in its middle if needed.

    Parameters
    ----------
    text : str
    width_in : float
        Width of a line in inches.
    size_pt : float
        Font size.
    """
    character_pt = text_width(text, size_pt) / max(1, len(text))
    n_characters = int(72 * width_in / max(1, character_pt))
    # A line may break early, at the end of a word.
    text = shorten(text, int(0.85 * _MOST_LINES * n_characters))
    return "\n".join(textwrap.wrap(text, n_characters, max_lines=_MOST_LINES, placeholder="…"))


def shorten(text: str, n_characters: int) -> str:
    """Shorten text in its middle to at most so many characters.

    Examples
    --------
    >>> shorten("a long name", 7)
    'a l…ame'
    """
    half = (n_characters - 1) // 2
    return text if len(text) <= n_characters else f"{text[:half]}…{text[-half:]}"


def text_width(text: str, size_pt: float) -> float:
    """Approximate width of a line in points. Chinese characters are twice as wide as others.

    Parameters
    ----------
    text : str
    size_pt : float
        Font size.
    """
    n = sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in text)
    return n * _CHARACTER_WIDTH * size_pt


def stack_names(
    from_left: NDArray[np.float64], widths_pt: list[float], width_pt: float
) -> list[int]:
    """Choose the line above the axes for each name, so that names do not overlap.

    A name stands to the right of a pole at its start, and above the poles that it would cross
    otherwise: the last of several short stages has the lowest name.

    Parameters
    ----------
    from_left : ndarray of shape (n_names,), float64
        Where each name starts, as a share of the axes' width.
    widths_pt : list of float
        Widths of the names.
    width_pt : float
        Width of the axes, including names that extend beyond their right end.

    Returns
    -------
    list of int
        Line of each name; 0 is the lowest.
    """
    # Names that extend beyond the axes make these narrower.
    starts = zip(from_left, widths_pt, strict=True)
    axes_pt = min([width_pt, *((width_pt - name_pt) / start for start, name_pt in starts if start)])
    levels: list[int] = []
    for number in reversed(range(len(widths_pt))):
        end = from_left[number] + widths_pt[number] / axes_pt
        later = zip(from_left[number + 1 :], reversed(levels), strict=True)
        levels.append(1 + max((level for other, level in later if other < end), default=-1))
    return levels[::-1]
