"""Labels from table columns or folder names."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from featurepipe.errors import ManifestError, UnknownNameError, UsageError
from featurepipe.manifest.folders import (
    DEFAULT_ATTRIBUTE,
    drop_shared_levels,
    folder_labels,
    folders_of,
)
from featurepipe.manifest.parts import (
    REASON_COLUMN,
    SPLIT_COLUMN,
    given_parts,
    split_column,
    split_folders,
)
from featurepipe.manifest.tables import Cell, Columns
from featurepipe.words import counted, examples

Cells = dict[str, Sequence[Any]]
_FLAG_COLUMN = re.compile(r"([^=:]+)[=:](.+)")
# As spreadsheets and pandas write 0 and 1, also beside empty cells.
_FLAGS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}


@dataclass(frozen=True)
class Labelling:
    """How to make labels from table columns or folder names.

    Attributes
    ----------
    attributes : tuple of str
        Names of the attributes; empty for all.
    group : str or None
        Column whose values name images that belong together, such as a patient.
    label_separator : str
        Separator between labels in one cell; empty for one label a cell.
    """

    attributes: tuple[str, ...] = ()
    group: str | None = None
    label_separator: str = "|"

    def __post_init__(self) -> None:
        names = [*self.attributes, *([] if self.group is None else [self.group])]
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            group = "" if self.group is None else f" and --group {self.group}"
            raise UsageError(
                f"{repeated[0]!r} appears twice in --attributes {','.join(self.attributes)}{group}."
                " Name each column once."
            )
        if SPLIT_COLUMN in names:
            raise UsageError(
                f"{SPLIT_COLUMN!r} cannot be an attribute or a group: that column defines "
                "the train/test split. Rename the column."
            )


def label_images(
    ids: list[str], columns: Columns, labelling: Labelling
) -> tuple[Cells, tuple[str, ...], list[str]]:
    """Label images by their table columns or folder names.

    Parameters
    ----------
    ids : list of str
        Image ids; their folders give the labels if no column does.
    columns : dict of str to list of (tuple of str or None)
        Columns of a table, in the order of `ids`; may be empty.
    labelling : Labelling

    Returns
    -------
    cells : dict of str to sequence
        As in `Manifest`.
    attribute_names : tuple of str
    findings : list of str

    Raises
    ------
    ManifestError, UnknownNameError, UsageError
        If the labels do not match the request.
    """
    folders = drop_shared_levels([folders_of(image_id) for image_id in ids])
    named_parts, folders = split_folders(folders)
    parts, findings = given_parts(split_column(columns) or named_parts)
    labels = _column_labels(columns, labelling) or folder_labels(folders, labelling.attributes)
    _refuse_empty(labels)
    cells: Cells = {**labels}
    if labelling.group is not None:
        cells[labelling.group] = _group_values(columns, labelling.group, labels)
    if parts:
        cells[SPLIT_COLUMN] = parts
    return cells, tuple(labels), findings + _unlabelled(labels, ids)


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
    plan = _attribute_columns(columns, labelling)
    used = {name for attribute, flags in plan.items() for name in flags or (attribute,)}
    return used | {SPLIT_COLUMN, labelling.group or SPLIT_COLUMN}


def _refuse_empty(labels: Columns) -> None:
    for name, cells in labels.items():
        if not any(cells):
            raise ManifestError(
                f"Attribute {name!r} has no label for any of the {len(cells)} images. Fill its "
                "column, or choose other --attributes."
            )


def _unlabelled(labels: Columns, ids: list[str]) -> list[str]:
    if not labels:
        return [f"{counted(ids, 'image')} without a label: {examples(ids)}"]
    findings = []
    for name, cells in labels.items():
        missing = [image_id for image_id, cell in zip(ids, cells, strict=True) if cell is None]
        if missing:
            findings.append(
                f"{counted(missing, 'image')} without a label for {name!r}: {examples(missing)}"
            )
    return findings


def _group_values(columns: Columns, group: str, labels: Columns) -> list[str | None]:
    if group not in columns:
        hint = "" if columns else "Folder names give no groups. Pass a table with --labels."
        raise UnknownNameError("group column", group, columns, hint)
    if group in labels:
        raise UsageError(f"{group!r} is both a group and an attribute. Rename the column.")
    return [" ".join(cell).strip() if cell else None for cell in columns[group]]


def _column_labels(columns: Columns, labelling: Labelling) -> Columns:
    """Labels of each attribute; empty if no column holds labels."""
    return {
        attribute: _gathered(columns, flags)
        if flags
        else [_class_names(cell, labelling.label_separator) for cell in columns[attribute]]
        for attribute, flags in _attribute_columns(columns, labelling).items()
    }


def _attribute_columns(columns: Columns, labelling: Labelling) -> dict[str, dict[str, str]]:
    """Attributes and their columns: `{column: class}` of 0/1 columns, or `{}` for one column."""
    no_labels = (labelling.group, SPLIT_COLUMN, REASON_COLUMN)
    free = [name for name in columns if name not in no_labels]
    flags = [name for name in free if _are_flags(columns[name])]
    plan: dict[str, dict[str, str]] = {name: {} for name in free}
    for name in flags:
        match = _FLAG_COLUMN.fullmatch(name)
        if match:
            del plan[name]
            plan.setdefault(match[1].strip(), {})[name] = match[2].strip()
    if not free:
        return {}
    if labelling.attributes:
        return _chosen(plan, labelling.attributes)
    plain_flags = {name: name for name in flags if name in plan}
    if len(plain_flags) >= 2 and DEFAULT_ATTRIBUTE not in plan:
        plan = {name: where for name, where in plan.items() if name not in plain_flags}
        plan[DEFAULT_ATTRIBUTE] = plain_flags
    return plan


def _chosen(plan: dict[str, dict[str, str]], names: tuple[str, ...]) -> dict[str, dict[str, str]]:
    unknown = [name for name in names if name not in plan]
    if unknown:
        raise UnknownNameError("attribute", unknown[0], plan, "Name a column of the table.")
    return {name: plan[name] for name in names}


def _are_flags(cells: list[Cell]) -> bool:
    present = [cell for cell in cells if cell is not None]
    return bool(present) and all(len(cell) == 1 and cell[0].lower() in _FLAGS for cell in present)


def _gathered(columns: Columns, flags: dict[str, str]) -> list[Cell]:
    """Labels from 0/1 columns; an empty cell counts as 0, unless the whole row is empty."""
    rows = zip(*(columns[name] for name in flags), strict=True)
    return [
        tuple(
            sorted(
                label
                for label, cell in zip(flags.values(), row, strict=True)
                if cell and _FLAGS[cell[0].lower()]
            )
        )
        if any(row)
        else None
        for row in rows
    ]


def _class_names(cell: Cell, separator: str) -> Cell:
    if not cell:
        return cell
    parts = [part for text in cell for part in (text.split(separator) if separator else [text])]
    return tuple(sorted({part.strip() for part in parts if part.strip()})) or None
