"""Which images to label next, as a short table for a terminal."""

import pandas as pd

from featurepipe.manifest import REASON_COLUMN
from featurepipe.reports.terminal_text import (
    GAP,
    MIN_WIDTH,
    Column,
    beginning,
    fitted,
    table_text,
)
from featurepipe.words import visible

_N_SHOWN = 5


def next_text(chosen: pd.DataFrame, width: int = 100, *, is_terminal: bool = False) -> str:
    """The first five images to label, and why.

    Parameters
    ----------
    chosen : pandas.DataFrame
        What `featurepipe.next_labels` returns.
    width : int
        Characters a line, at least 60.
    is_terminal : bool
        Whether escape sequences may be used.
    """
    width = max(width, MIN_WIDTH)
    shown = chosen.head(_N_SHOWN)
    (image,) = fitted(
        [Column("image", [visible(path) for path in shown["path"]], is_name=True)], width // 2
    )
    room = width - image.width - GAP
    reasons = [beginning(visible(reason), room) for reason in shown[REASON_COLUMN]]
    return table_text([image, Column("why", reasons, is_name=True)], is_terminal=is_terminal)
