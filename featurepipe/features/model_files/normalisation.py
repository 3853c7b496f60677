"""Normalisation: how pixels become the numbers that a network from a file expects."""

import math
import re
from dataclasses import dataclass
from typing import Literal, Self

NOTHING = "none"
"""The text of pixels as they are: the network normalises them itself, or needs none."""

_THREE = r"[^ ,]+,[^ ,]+,[^ ,]+"
_TEXT = re.compile(
    rf"scale=(?P<scale>[^ ]+) mean=(?P<mean>{_THREE}) std=(?P<std>{_THREE}) "
    r"channels=(?P<channels>rgb|bgr)"
)

Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Normalisation:
    """How pixels in [0, 255] become the input of a network: ``(pixel * scale - mean) / std``.

    Attributes
    ----------
    scale : float
    mean, std : tuple of three floats
        One for each channel, in the order of `channels`.
    channels : {"rgb", "bgr"}

    Examples
    --------
    >>> Normalisation(scale=1 / 255, mean=(0.5, 0.5, 0.5)).text
    'scale=0.00392156862745098 mean=0.5,0.5,0.5 std=1.0,1.0,1.0 channels=rgb'
    >>> Normalisation().text
    'none'
    """

    scale: float = 1.0
    mean: Channels = (0.0, 0.0, 0.0)
    std: Channels = (1.0, 1.0, 1.0)
    channels: Literal["rgb", "bgr"] = "rgb"

    @property
    def text(self) -> str:
        """All of it in one line, for a store's key; equal normalisations have equal texts."""
        if self == Normalisation():
            return NOTHING
        mean, std = (",".join(map(repr, values)) for values in (self.mean, self.std))
        return f"scale={self.scale!r} mean={mean} std={std} channels={self.channels}"

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The normalisation of a `text`.

        Raises
        ------
        ValueError
            If it is no such text.
        """
        if text == NOTHING:
            return cls()
        parts = _TEXT.fullmatch(text)
        if parts is None:
            raise ValueError(text)
        mean, std = (tuple(map(float, parts[name].split(","))) for name in ("mean", "std"))
        found = cls(float(parts["scale"]), mean, std, parts["channels"])  # type: ignore[arg-type]
        if found.text != text or not found.is_possible():
            raise ValueError(text)
        return found

    def is_possible(self) -> bool:
        """Whether every number is finite, and none divides by zero."""
        numbers = [self.scale, *self.mean, *self.std]
        return all(map(math.isfinite, numbers)) and self.scale > 0 and min(self.std) > 0
