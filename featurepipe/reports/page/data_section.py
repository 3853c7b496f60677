"""Images, labels and splits as a page shows them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from featurepipe.manifest import Labels
from featurepipe.reports.page.isolated_names import named, sentence
from featurepipe.reports.page.page_data import PageData, PageSplit
from featurepipe.reports.page.svg import Scale, box
from featurepipe.words import counted, examples

PARTS = {"train": "training", "test": "test", "unseen": "held out"}
_MAX_GRID = 24
_MAX_LISTED = 60
_BAR_PX, _BAR_HEIGHT_PX = 120, 12
_COLOURS = {"train": "var(--series-1)", "test": "var(--series-2)", "unseen": "var(--series-3)"}


@dataclass(frozen=True)
class ClassCount:
    """A class, its images in each part, and a bar of them."""

    name: str
    counts: dict[str, int]
    bar: Markup


@dataclass(frozen=True)
class ClassTable:
    """The classes of an attribute.

    Attributes
    ----------
    attribute, summary : str
    parts : dict of str to str
        Headings of the parts that have images.
    classes : list of ClassCount
    """

    attribute: str
    summary: str
    parts: dict[str, str]
    classes: list[ClassCount]


@dataclass(frozen=True)
class Grid:
    """How many images each combination of two exclusive attributes has.

    Attributes
    ----------
    row_attribute, column_attribute : str
    columns : tuple of str
    rows : list of (str, list of (int, bool))
        For each class its counts, and whether the combination is held out.
    """

    row_attribute: str
    column_attribute: str
    columns: tuple[str, ...]
    rows: list[tuple[str, list[tuple[int, bool]]]]


def data_facts(data: PageData, split: PageSplit | None) -> dict[str, Markup]:
    """What there is to say of images and splits, by heading.

    Parameters
    ----------
    data : PageData
    split : PageSplit or None
        That of the answer; None if it is gone.
    """
    facts = {"Images": sentence(f"{data.n_images:,} in {named(data.root)}")}
    unlabelled = [
        f"{counted(int(n), 'image')} without {named(name)}"
        for name, labels in data.labels.items()
        if (n := (~labels.labelled).sum())
    ]
    if unlabelled:
        facts["Not labelled"] = sentence(", ".join(unlabelled[:6]))
    if split is not None:
        facts["Split"] = sentence(_split_text(split))
        if split.held_out:
            names = [named(name) for name in split.held_out]
            facts["Held out"] = sentence(
                f"{', '.join(names[:20])}{', …' if len(names) > 20 else ''}: training never sees "
                "such images"
            )
        facts["Kept together"] = sentence(_groups_text(split))
        facts["Leaks"] = sentence(_leaks_text(split))
    if data.imagenet_classes:
        known = [named(name) for name in data.imagenet_classes]
        facts["Seen in pretraining?"] = sentence(
            f"{', '.join(known[:10])}{', …' if len(known) > 10 else ''}: a class of ImageNet has "
            "the same name. Weights trained on ImageNet have seen such images before."
        )
    facts["Refused images"] = sentence(_refused_text(data))
    return facts


def class_tables(data: PageData, split: PageSplit | None) -> list[ClassTable]:
    """Distribution of the classes over the parts of a split.

    Parameters
    ----------
    data : PageData
    split : PageSplit or None
        None counts all images.
    """
    return [
        _class_table(name, labels, split)
        for name, labels in data.labels.items()
        if len(labels.classes)
    ]


def combination_grid(data: PageData) -> Grid | None:
    """Combinations of two exclusive attributes; None unless there are two of a size to show.

    Parameters
    ----------
    data : PageData
    """
    names = data.exclusive
    if len(names) != 2:
        return None
    # A page has more room downwards than sideways.
    across, down = sorted(names, key=lambda name: len(data.labels[name].classes))
    columns, rows = data.labels[across].classes, data.labels[down].classes
    if len(columns) > _MAX_GRID or len(rows) > 2 * _MAX_GRID:
        return None
    first = data.labels[down].indicator.astype(np.intp)
    counts = first.T @ data.labels[across].indicator.astype(np.intp)
    held_out = _held_out(data)
    order = [names.index(down), names.index(across)]

    def is_held_out(*classes: str) -> bool:
        return "_".join(classes[order.index(place)] for place in range(2)) in held_out

    return Grid(
        row_attribute=down,
        column_attribute=across,
        columns=columns,
        rows=[
            (
                row,
                [
                    (int(n), is_held_out(row, column))
                    for n, column in zip(counts[place], columns, strict=True)
                ],
            )
            for place, row in enumerate(rows)
        ],
    )


def combination_list(data: PageData) -> tuple[list[tuple[str, int, bool]], int, int]:
    """The combinations of all exclusive attributes with the most images.

    Parameters
    ----------
    data : PageData

    Returns
    -------
    combinations : list of (str, int, bool)
        Name, images, and whether it is held out in a split; at most 60, held-out ones first.
    n_combinations : int
        How many there are.
    n_possible : int
        How many the classes could make.
    """
    truth = [data.labels[name] for name in data.exclusive]
    if len(truth) < 2:
        return [], 0, 0
    labelled = np.flatnonzero(np.all([labels.labelled for labels in truth], axis=0))
    codes = np.stack([labels.codes[labelled] for labels in truth], axis=1)
    counts = Counter(map(tuple, codes.tolist()))
    held_out = _held_out(data)
    named_counts = [
        ("_".join(of.classes[code] for of, code in zip(truth, key, strict=True)), n)
        for key, n in counts.items()
    ]
    shown = sorted(
        ((name, n, name in held_out) for name, n in named_counts),
        key=lambda found: (not found[2], -found[1], found[0]),
    )
    n_possible = int(np.prod([len(labels.classes) for labels in truth], dtype=object))
    return shown[:_MAX_LISTED], len(shown), n_possible


def _held_out(data: PageData) -> set[str]:
    return {name for split in data.splits.values() for name in split.held_out}


def _class_table(name: str, labels: Labels, split: PageSplit | None) -> ClassTable:
    masks = (
        {"": np.ones(len(labels), bool)}
        if split is None
        else {part: split.parts == part for part in PARTS if (split.parts == part).any()}
    )
    counts = {part: labels.indicator[mask].sum(axis=0) for part, mask in masks.items()}
    totals = np.sum(list(counts.values()), axis=0)
    scale = Scale(0, max(int(totals.max()), 1), 0, _BAR_PX)
    classes = [
        ClassCount(
            label,
            {part: int(of_part[place]) for part, of_part in counts.items()},
            _bar({part: int(of_part[place]) for part, of_part in counts.items()}, scale),
        )
        for place, label in enumerate(labels.classes)
    ]
    kind = "" if labels.exclusive else "; an image may have several"
    summary = f"{counted(labels.classes, 'class', 'classes')}{kind}"
    if len(classes) > 1:
        fewest, most = int(totals.min()), int(totals.max())
        images = counted(fewest, "image")
        summary += f"; {images} each" if fewest == most else f"; from {images} to {most:,}"
    headings = {part: PARTS.get(part, "images") for part in masks}
    return ClassTable(name, summary, headings, classes)


def _bar(counts: dict[str, int], scale: Scale) -> Markup:
    boxes, start = [], 0
    for part, n in counts.items():
        if n:
            width = scale(start + n) - scale(start)
            colour = _COLOURS.get(part, "var(--series-1)")
            boxes.append(box(scale(start), 1, width, _BAR_HEIGHT_PX - 2, colour=colour))
        start += n
    # The numbers beside say the same.
    return Markup(
        '<svg width="{w}" height="{h}" viewBox="0 0 {w} {h}" aria-hidden="true">{}</svg>'
    ).format(Markup().join(boxes), w=_BAR_PX, h=_BAR_HEIGHT_PX)


def _split_text(split: PageSplit) -> str:
    counts = {part: int((split.parts == part).sum()) for part in PARTS}
    said = [f"{n:,} {PARTS[part]}" for part, n in counts.items() if n]
    left_out = f"; {counted(split.left_out, 'image')} left out" if split.left_out else ""
    return f"{named(split.name)}: {', '.join(said)}{left_out}"


def _groups_text(split: PageSplit) -> str:
    kinds = ["identical files"]
    if split.group:
        kinds.append(f"images of one {named(split.group)}")
    if split.groups_duplicates:
        kinds.append("near-duplicates")
    what = kinds[0] if len(kinds) == 1 else f"{', '.join(kinds[:-1])} and {kinds[-1]}"
    if not split.n_groups:
        return f"{what}: none found"
    return (
        f"{what}: {counted(split.n_grouped, 'image')} in {counted(split.n_groups, 'group')}, each "
        "on one side of the split"
    )


def _leaks_text(split: PageSplit) -> str:
    if split.groups_duplicates:
        return "none: near-duplicates are on one side of the split"
    if split.leaks is None:
        return "near-duplicates across training and test were not searched for"
    if not split.leaks:
        return "no near-duplicates across training and test images"
    first, second = split.leaks[0]
    return (
        f"{counted(split.leaks, 'pair')} of near-duplicates across training and test images, such "
        f"as {named(first)} and {named(second)}: fit with --group-duplicates to keep them together"
    )


def _refused_text(data: PageData) -> str:
    unknown = ""
    if data.unknown_stores:
        names = examples([named(name) for name in data.unknown_stores])
        unknown = f"; unknown for features that are gone ({names})"
    if not data.refused:
        return f"none{unknown}"
    return f"{len(data.refused):,}{unknown}, listed below"


def findings(data: PageData, split: PageSplit | None) -> Sequence[str]:
    """What featurepipe noticed about images, labels and the split.

    Parameters
    ----------
    data : PageData
    split : PageSplit or None
    """
    return [*data.findings, *(split.findings if split is not None else ())]
