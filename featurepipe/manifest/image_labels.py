"""Labels of images, from table columns or folder names."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any, NamedTuple

from featurepipe.errors import ManifestError, UnknownNameError, UsageError
from featurepipe.manifest.attribute_columns import Plan, attribute_columns, is_yes
from featurepipe.manifest.cells import Cell, Columns, class_names
from featurepipe.manifest.folders import Folders, drop_shared_levels, folder_labels, names_in
from featurepipe.manifest.kinds import Kinds
from featurepipe.manifest.labelling import Labelling
from featurepipe.manifest.labels import ALL
from featurepipe.manifest.parts import SPLIT_COLUMN, given_parts, split_column, split_folders
from featurepipe.words import counted, examples, listed

Cells = dict[str, Sequence[Any]]


class Labelled(NamedTuple):
    """Labels of kinds of images.

    Attributes
    ----------
    cells : dict of str to sequence
        As in `Manifest`, but one for each kind.
    attribute_names : tuple of str
    findings : list of str
    """

    cells: Cells
    attribute_names: tuple[str, ...]
    findings: list[str]


def label_images(kinds: Kinds, columns: Columns, labelling: Labelling) -> Labelled:
    """Label images by their table columns or folder names.

    Parameters
    ----------
    kinds : Kinds
        Their folders give the labels if no column does.
    columns : dict of str to list of (tuple of str or None)
        Columns of a table, in the order of the kinds, each of one image; may be empty.
    labelling : Labelling

    Raises
    ------
    ManifestError, UnknownNameError, UsageError
        If the labels do not match the request.
    """
    named_parts, folders = split_folders(drop_shared_levels(_folders(kinds)))
    parts, findings = given_parts(split_column(columns) or named_parts, kinds.counts)
    plan, ignored = attribute_columns(columns, labelling)
    labels = _column_labels(columns, plan, labelling.label_separator)
    labels = labels or folder_labels(folders, labelling.attributes)
    _refuse_reserved(labels)
    _refuse_empty(labels, kinds.n_images)
    counts = {name: class_counts(cells, kinds.counts) for name, cells in labels.items()}
    findings += [*ignored, *_unlabelled(labels, kinds), *_similar_classes(counts)]
    labels, left_out = _without_rare_classes(labels, counts, labelling.min_per_class)
    cells: Cells = {**labels}
    if labelling.group is not None:
        cells[labelling.group] = _group_values(columns, labelling.group, labels)
    if parts:
        cells[SPLIT_COLUMN] = parts
    return Labelled(cells, tuple(labels), findings + left_out)


def _folders(kinds: Kinds) -> list[Folders]:
    """Names of the folders that the images of each kind lie in; equal ones are one object."""
    names = {folder: names_in(folder) for folder in set(kinds.folders)}
    return [names[folder] for folder in kinds.folders]


def class_counts(cells: Sequence[Cell], counts: Sequence[int]) -> Counter[str]:
    """How many images have each class.

    Parameters
    ----------
    cells : sequence of (tuple of str or None)
        Class names of each kind of images; None where the label is missing.
    counts : sequence of int
        Number of images of each kind.
    """
    n_of: Counter[Cell] = Counter()
    for cell, count in zip(cells, counts, strict=True):
        n_of[cell] += count
    found: Counter[str] = Counter()
    for cell, count in n_of.items():
        found.update(dict.fromkeys(cell or (), count))
    return found


def _refuse_reserved(labels: Columns) -> None:
    if ALL in labels:
        raise ManifestError(
            f"An attribute cannot be named {ALL!r}: results use that name for all attributes "
            "together. Rename it, or choose other --attributes."
        )


def _refuse_empty(labels: Columns, n_images: int) -> None:
    for name, cells in labels.items():
        if not any(cells):
            raise ManifestError(
                f"Attribute {name!r} has no label for any of the {n_images} images. Fill its "
                "column, or choose other --attributes."
            )


def _unlabelled(labels: Columns, kinds: Kinds) -> list[str]:
    if not labels:
        every = kinds.first_ids([True] * len(kinds.counts))
        return [
            f"{counted(kinds.n_images, 'image')} without a label: {examples(every)}. To learn "
            "classes, put each in a folder of its own, or pass --labels: one class cannot be told "
            "from another"
        ]
    findings = []
    for name, cells in labels.items():
        is_missing = [cell is None for cell in cells]
        n_missing = sum(compress(kinds.counts, is_missing))
        if n_missing:
            findings.append(
                f"{counted(n_missing, 'image')} without a label for {name!r}: "
                f"{examples(kinds.first_ids(is_missing))}"
            )
    return findings


def _similar_classes(counts_of: Mapping[str, Counter[str]]) -> list[str]:
    """Classes that a person would call the same."""
    findings = []
    for name, counts in counts_of.items():
        alike = defaultdict(list)
        for label in sorted(counts):
            alike[" ".join(label.casefold().split())].append(f"{label!r} ({counts[label]:,})")
        similar = [" and ".join(group) for group in alike.values() if len(group) > 1]
        if similar:
            findings.append(
                f"Classes of {name!r} differ only in case or spaces: {listed(similar)}. If they "
                "are the same, correct the labels"
            )
    return findings


def _without_rare_classes(
    labels: Columns, counts_of: Mapping[str, Counter[str]], least: int
) -> tuple[Columns, list[str]]:
    """Labels without the classes of fewer than `least` images, and which these are."""
    kept: Columns = {}
    findings = []
    for name, cells in labels.items():
        counts = counts_of[name]
        rare = {label: counts[label] for label in sorted(counts) if counts[label] < least}
        if len(rare) == len(counts):
            raise ManifestError(
                f"No class of {name!r} has the {least} images that --min-per-class {least} asks "
                f"for: the largest has {max(counts.values())}. Set a smaller number."
            )
        # Of a set, the other labels remain, if only that there are none.
        lone = None if all(len(cell) == 1 for cell in cells if cell is not None) else ()
        kept[name] = [
            cell
            if cell is None or rare.keys().isdisjoint(cell)
            else tuple(label for label in cell if label not in rare) or lone
            for cell in cells
        ]
        if rare:
            findings.append(
                f"Leaving out {counted(rare, 'class', 'classes')} of {name!r} with fewer than "
                f"{counted(least, 'image')}: "
                + listed(f"{label!r} ({count})" for label, count in rare.items())
            )
    return kept, findings


def _group_values(columns: Columns, group: str, labels: Columns) -> list[str | None]:
    if group not in columns:
        hint = "" if columns else "Folder names give no groups. Pass a table with --labels."
        raise UnknownNameError("group column", group, columns, hint)
    if group in labels:
        raise UsageError(f"{group!r} is both a group and an attribute. Rename the column.")
    name_of = {cell: " ".join(cell).strip() if cell else None for cell in set(columns[group])}
    return [name_of[cell] for cell in columns[group]]


def _column_labels(columns: Columns, plan: Plan, separator: str) -> Columns:
    """Labels of each attribute."""
    return {
        attribute: _gathered(columns, flags) if flags else _named(columns[attribute], separator)
        for attribute, flags in plan.items()
    }


def _named(cells: list[Cell], separator: str) -> list[Cell]:
    # There are far fewer classes than images.
    names = {cell: class_names(cell, separator) for cell in set(cells)}
    return [names[cell] for cell in cells]


def _gathered(columns: Columns, flags: dict[str, str]) -> list[Cell]:
    """Labels from 0/1 columns; an empty cell counts as 0, unless the whole row is empty."""
    known: dict[Cell, Cell] = {}
    gathered = []
    for row in zip(*(columns[name] for name in flags), strict=True):
        names = (label for label, cell in zip(flags.values(), row, strict=True) if is_yes(cell))
        labels = tuple(sorted(names)) if any(row) else None
        gathered.append(known.setdefault(labels, labels))
    return gathered
