"""The nearest images to others, as short tables for a terminal, and their words on pictures."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import pandas as pd

from featurepipe.reports.terminal_text import (
    MIN_WIDTH,
    MISSING,
    Column,
    aligned,
    beginning,
    figure,
    fitted,
    heading,
    paragraph,
    table_text,
)
from featurepipe.words import visible

_MAX_LABELS = 40


class Distant(Protocol):
    """What is known of the distance of an image."""

    @property
    def distance(self) -> float:
        """From 0 to 2."""

    @property
    def of_median(self) -> float:
        """As a share of the median distance between images."""

    @property
    def same_bytes(self) -> bool:
        """Whether the files are identical."""


def similar_text(found: pd.DataFrame, width: int = 100, *, is_terminal: bool = False) -> str:
    """The nearest images to each query, and what their distances mean.

    Parameters
    ----------
    found : pandas.DataFrame
        What `featurepipe.similar` returns.
    width : int
        Characters a line, at least 60.
    is_terminal : bool
        Whether escape sequences may be used.
    """
    width = max(width, MIN_WIDTH)
    if found.empty:
        return "No other image has features."
    sections = []
    for query, rows in found.groupby("query", sort=False):
        sections += [
            heading(visible(str(query)), width, is_terminal=is_terminal),
            table_text(fitted(_columns(rows), width), is_terminal=is_terminal),
        ]
    meaning = (
        f"Distance of the features of {found.attrs['features']}, scaled to length 1. 100 % is the "
        "median distance between images."
    )
    return "\n\n".join([*sections, paragraph(meaning, width)])


def _columns(rows: pd.DataFrame) -> list[Column]:
    labels = [beginning(labels_text(known), _MAX_LABELS) for known in rows["labels"]]
    shares = [
        "same bytes" if same else share_text(share)
        for same, share in zip(rows["same_bytes"], rows["of_median"], strict=True)
    ]
    return [
        Column("#", [str(rank) for rank in rows["rank"]]),
        Column("image", [visible(image) for image in rows["image"]], is_name=True),
        Column("distance", aligned(map(distance_figure, rows["distance"]))),
        Column("of median", shares),
        *([Column("labels", labels, is_name=True)] if any(labels) else []),
    ]


def labels_text(labels: Mapping[str, Sequence[str] | None]) -> str:
    """The classes of an image over all attributes.

    Parameters
    ----------
    labels : mapping of str to (sequence of str or None)
        Classes by attribute; None where the label is missing.

    Examples
    --------
    >>> labels_text({"color": ["red"], "kind": None, "tags": ["new", "wide"], "flaws": []})
    'red, –, new|wide, none'
    """
    return ", ".join(
        MISSING if names is None else "|".join(map(visible, names)) or "none"
        for names in labels.values()
    )


def distance_text(found: Distant) -> str:
    """How far an image is.

    Parameters
    ----------
    found : Distant
    """
    if found.same_bytes:
        return "same bytes"
    return f"{distance_figure(found.distance)} ({share_text(found.of_median)} of median)"


def distance_figure(distance: float) -> str:
    """A distance with 3 significant digits.

    Examples
    --------
    >>> [distance_figure(distance) for distance in (0.0, 0.41234, 1.2)]
    ['0', '0.412', '1.20']
    """
    return figure(distance) if distance else "0"


def share_text(share: float) -> str:
    """A share of the median distance, in whole per cent.

    Examples
    --------
    >>> share_text(0.632)
    '63 %'
    """
    return MISSING if pd.isna(share) else f"{100 * share:.0f} %"
