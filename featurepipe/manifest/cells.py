"""Cells of label tables."""

from typing import Any

# The labels of one image in one column; None if missing, an empty tuple for "none of the classes".
Cell = tuple[str, ...] | None
Columns = dict[str, list[Cell]]


def cell_of(value: Any) -> Cell:
    """Convert a value to a cell: its text, or the texts of a list.

    Parameters
    ----------
    value : object
        A string, number, bool or None, or a list of them.
    """
    if isinstance(value, list):
        return tuple(text for text in map(_text, value) if text.strip())
    text = _text(value)
    return (text,) if text.strip() else None


def class_names(cell: Cell, separator: str) -> Cell:
    """The classes that a cell names, sorted and each once; None if it is missing.

    Parameters
    ----------
    cell : tuple of str or None
    separator : str
        Separator between several classes; empty for one class a text.
    """
    if not cell:
        return cell
    parts = [part for text in cell for part in (text.split(separator) if separator else [text])]
    return tuple(sorted({part.strip() for part in parts if part.strip()})) or None


def _text(value: Any) -> str:
    if value is None or value != value:
        return ""
    # Parquet stores integers with missing values as floats.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
