"""Lines of `featurepipe info` that its sections share."""

from collections.abc import Mapping, Sequence
from typing import Any

from featurepipe.reports.terminal_text import Column, fitted, listed, table_text

PARTS = ("train", "test", "unseen")

Facts = Mapping[str, Any]
Section = tuple[str, list[str]]
"""A label, and the lines beside it."""


def versions_text(versions: Mapping[str, str], room: int) -> str:
    """Names and versions of packages, as many as there is room for.

    Parameters
    ----------
    versions : mapping of str to str
    room : int
        Characters.
    """
    return listed([f"{name} {version}" for name, version in versions.items()], room)


def parts_text(images: Mapping[str, int]) -> str:
    """How many images each part of a split has, such as ``"800 train, 200 test"``.

    Parameters
    ----------
    images : mapping of str to int
        By part; parts without images are left out.
    """
    return ", ".join(f"{images[part]:,} {part}" for part in PARTS if images[part])


def aligned_rows(rows: Sequence[Sequence[str]], room: int) -> list[str]:
    """Rows of words as lines whose words stand below each other.

    Parameters
    ----------
    rows : sequence of sequence of str
        All of the same length.
    room : int
        Characters a line.
    """
    if not rows:
        return []
    columns = [Column("", list(cells), is_name=True) for cells in zip(*rows, strict=True)]
    return table_text(fitted(columns, room)).split("\n")[1:]
