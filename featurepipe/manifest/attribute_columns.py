"""Which columns of a table are attributes."""

import re
from collections import Counter

from featurepipe.errors import UnknownNameError
from featurepipe.manifest.cells import Cell, Columns, class_names
from featurepipe.manifest.labelling import Labelling
from featurepipe.manifest.parts import REASON_COLUMN, SPLIT_COLUMN, are_parts

FEWEST_LABELS = 10
"""With fewer labels, a column does not show whether it names classes."""

Plan = dict[str, dict[str, str]]
"""Attributes and their columns: `{column: class}` of 0/1 columns, or `{}` for one column."""

_TAG_COLUMN = re.compile(r"([^=:]+)[=:](.+)")
# As spreadsheets and pandas write 0 and 1, also beside empty cells.
_YES, _NO = {"1", "1.0", "true"}, {"0", "0.0", "false"}
# As CelebA writes 0. Beside 0, it is a value of its own.
_MINUS = {"-1", "-1.0"}


def attribute_columns(columns: Columns, labelling: Labelling) -> tuple[Plan, list[str]]:
    """The columns of each attribute, and which columns are ignored.

    Parameters
    ----------
    columns : dict of str to list of (tuple of str or None)
    labelling : Labelling

    Returns
    -------
    plan : dict of str to dict of str to str
        See `Plan`; empty if no column holds labels.
    findings : list of str

    Raises
    ------
    UnknownNameError
        If there is no such attribute.
    """
    plan = _all_attributes(columns, labelling)
    if labelling.attributes and plan:
        unknown = [name for name in labelling.attributes if name not in plan]
        if unknown:
            raise UnknownNameError("attribute", unknown[0], plan, "Name a column of the table.")
        return {name: plan[name] for name in labelling.attributes}, []
    ignored = _ignored(plan, columns, labelling.label_separator)
    findings = [f"Ignoring the column {name!r}: {why}" for name, why in ignored.items()]
    return {name: flags for name, flags in plan.items() if name not in ignored}, findings


def used_columns(columns: Columns, labelling: Labelling) -> set[str]:
    """Names of the columns that a labelling uses.

    Parameters
    ----------
    columns : dict of str to list of (tuple of str or None)
    labelling : Labelling

    Raises
    ------
    UnknownNameError
        If there is no such attribute.
    """
    plan, _ = attribute_columns(columns, labelling)
    used = {name for attribute, flags in plan.items() for name in flags or (attribute,)}
    return used | {SPLIT_COLUMN, labelling.group or SPLIT_COLUMN}


def is_yes(cell: Cell) -> bool:
    """Whether a cell of 0/1 columns is a 1.

    Parameters
    ----------
    cell : tuple of str or None
    """
    return cell is not None and cell[0].lower() in _YES


def _all_attributes(columns: Columns, labelling: Labelling) -> Plan:
    no_labels = (labelling.group, SPLIT_COLUMN, REASON_COLUMN)
    free = [name for name in columns if name not in no_labels]
    tags = {name: match for name in free if (match := _TAG_COLUMN.fullmatch(name))}
    tags = {name: match for name, match in tags.items() if _are_flags(columns[name])}
    plan: Plan = {name: {} for name in free if name not in tags}
    for name, match in tags.items():
        plan.setdefault(match[1].strip(), {})[name] = match[2].strip()
    return plan


def _are_flags(cells: list[Cell]) -> bool:
    present = {cell for cell in set(cells) if cell is not None}
    if not all(len(cell) == 1 for cell in present):
        return False
    values = {cell[0].lower() for cell in present}
    return bool(values) and (values <= _YES | _NO or values <= _YES | _MINUS)


def _ignored(plan: Plan, columns: Columns, separator: str) -> dict[str, str]:
    """Columns that cannot be attributes, and why."""
    counts = {
        name: _label_counts(columns[name], separator) for name, flags in plan.items() if not flags
    }
    shown = {name: found for name, found in counts.items() if found.total() >= FEWEST_LABELS}
    ignored = {name: why for name, found in shown.items() if (why := _other_use(found))}
    idle = {name: "it is empty" for name, found in counts.items() if not found}
    idle |= {
        name: f"every value is {'|'.join(*found)!r}"
        for name, found in shown.items()
        if len(found) == 1
    }
    # If there is no other attribute, they are refused where they are learnt.
    return ignored | idle if plan.keys() - ignored.keys() - idle.keys() else ignored


def _other_use(counts: Counter[tuple[str, ...]]) -> str:
    """What a column is for, if not for classes; empty if it names classes."""
    classes: Counter[str] = Counter()
    for labels, count in counts.items():
        classes.update(dict.fromkeys(labels, count))
    if are_parts(classes):
        return (
            f"its values are those of a split ({', '.join(sorted(classes))}). To use this split, "
            f"rename the column to {SPLIT_COLUMN!r}"
        )
    n_own = sum(all(classes[label] == 1 for label in labels) for labels in counts)
    if 2 * n_own <= counts.total():
        return ""
    return (
        f"{n_own:,} of {counts.total():,} images have a value of their own, as with an identifier. "
        "To learn it all the same, name it in --attributes"
    )


def _label_counts(cells: list[Cell], separator: str) -> Counter[tuple[str, ...]]:
    """How many images have each set of classes; without images that have none."""
    counts: Counter[tuple[str, ...]] = Counter()
    for cell, count in Counter(cells).items():
        if labels := class_names(cell, separator):
            counts[labels] += count
    return counts
