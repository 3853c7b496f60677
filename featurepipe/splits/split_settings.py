"""SplitSettings, and the names of splits."""

import re
from dataclasses import dataclass

from featurepipe.errors import SplitError

GIVEN = "given"
"""Name of a split that came with the images; the names of all others begin otherwise."""

DUPLICATES_GROUPED = "-grouped"
"""Part of the name of a split that keeps near-duplicates on one side."""

MAX_NAME = 40
"""Most characters of a split's name."""

# The number that tells splits of one name apart would cut off the end of a repeat's name.
_ROOM_FOR_NUMBER = 3
_MAX_GROUP = 15
_MIN_HELD_OUT = 11


@dataclass(frozen=True)
class SplitSettings:
    """How a split is to be made.

    Attributes
    ----------
    test_size : float
        Share of the images to test on, between 0 and 1, both excluded.
    seed : int
        At least 0.
    hold_out : tuple of str
        Combinations that training never sees, such as ``"black_dress"``; kept sorted.
    group : str or None
        Column of the labels' table whose values name images that belong together.
    repeats : int
        Number of splits, at least 1.
    group_duplicates : bool
        Whether images that are nearly the same belong together.

    Raises
    ------
    SplitError
        If a value is out of its range.
    """

    test_size: float = 0.2
    seed: int = 0
    hold_out: tuple[str, ...] = ()
    group: str | None = None
    repeats: int = 1
    group_duplicates: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "hold_out", tuple(sorted(set(self.hold_out))))
        if not 0 < self.test_size < 1:
            raise SplitError(
                f"The test size is {self.test_size}, expected a share between 0 and 1, such as 0.2."
            )
        if self.repeats < 1:
            raise SplitError(f"The number of repeats is {self.repeats}, expected at least 1.")
        if self.seed < 0:
            raise SplitError(f"The seed is {self.seed}, expected 0 or more.")


def split_name(settings: SplitSettings, repeat: int) -> str:
    """A short, readable name that is safe for files.

    It does not say everything: `featurepipe.splits.Split.registered` numbers splits of one name.

    Parameters
    ----------
    settings : SplitSettings
    repeat : int
        Which of the settings' repeats is named, from 0.
    """
    start = f"test{100 * settings.test_size:.4g}-seed{settings.seed}"
    end = f"-by-{_safe(settings.group)}"[:_MAX_GROUP] if settings.group else ""
    end += DUPLICATES_GROUPED if settings.group_duplicates else ""
    room = MAX_NAME - len(start)
    if settings.repeats > 1:
        end += f"-repeat{repeat + 1}of{settings.repeats}"
        room -= _ROOM_FOR_NUMBER
    return f"{start}{_held_out(settings.hold_out, room - len(end))}{end}"[:MAX_NAME]


def _held_out(combinations: tuple[str, ...], room: int) -> str:
    """The combinations, shortened to the room that there is."""
    text = f"-without-{'+'.join(combinations)}"
    if len(combinations) > 1 and len(text) > room:
        text = f"-without-{len(combinations)}-combinations"
    # The mere beginning of "without" would say nothing.
    return _safe(text)[:room] if combinations and room >= _MIN_HELD_OUT else ""


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", text)
