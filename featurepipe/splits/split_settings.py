"""How a split is to be made, and the name that tells it from others."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, replace

from featurepipe.errors import SplitError

DUPLICATES_GROUPED = "-duplicates-grouped"
"""End of the name of a split in which near-duplicates belong together."""

_MAX_NAME = 80


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
    """A readable name that is safe for files, and another one for other settings.

    Parameters
    ----------
    settings : SplitSettings
    repeat : int
        Which of the settings' repeats is named, from 0.
    """
    share = f"{100 * settings.test_size:g}"
    name = f"test{share}-seed{settings.seed}"
    if settings.hold_out:
        name += f"-without-{'+'.join(settings.hold_out)}"
    if settings.group:
        name += f"-by-{settings.group}"
    if settings.group_duplicates:
        name += DUPLICATES_GROUPED
    safe = re.sub(r"[^A-Za-z0-9._+-]+", "_", name)[:_MAX_NAME]
    texts = [*settings.hold_out, settings.group or ""]
    is_ambiguous = any(re.search(r"\+|-by-|-duplicates|-repeat", text) for text in texts)
    if safe != name or is_ambiguous or float(share) / 100 != settings.test_size:
        exact = json.dumps(asdict(replace(settings, repeats=1)), sort_keys=True)
        safe += f"-{hashlib.sha256(exact.encode()).hexdigest()[:8]}"
    return safe + (f"-repeat{repeat + 1}of{settings.repeats}" if settings.repeats > 1 else "")
