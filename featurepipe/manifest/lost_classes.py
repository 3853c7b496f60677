"""Classes that have images, of which none can be read."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from itertools import compress

from featurepipe.errors import ManifestError
from featurepipe.image_types import how_to_read, unread_types
from featurepipe.manifest.cells import Columns
from featurepipe.manifest.image_labels import Labelled, class_counts, label_images
from featurepipe.manifest.kinds import N_FIRST, KindCounter, Kinds
from featurepipe.manifest.manifest_rows import ManifestRows
from featurepipe.words import counted


def lost_classes(rows: ManifestRows, refused: Collection[str]) -> dict[str, dict[str, list[str]]]:
    """Classes of which all images were refused.

    Without a label table, only the ids of refused images and of one group are in memory.

    Parameters
    ----------
    rows : ManifestRows
    refused : collection of str
        Ids of the images.

    Returns
    -------
    dict of str to dict of str to list of str
        By attribute and class: ids of its images, sorted. Attributes without such a class are
        left out.
    """
    columns: Columns = {}
    if rows.columns:
        ids, columns = rows.read_all()
        kinds = Kinds.of(ids, columns)
    else:
        kinds = _kinds_with(rows, refused)
    labelled = label_images(kinds, columns, rows.about.labelling)
    lost = {}
    for name in labelled.attribute_names:
        cells = labelled.cells[name]
        of_class: dict[str, list[str]] = defaultdict(list)
        for image_id, kind in zip(kinds.ids, kinds.kind_of, strict=True):
            if image_id in refused:
                for label in cells[kind] or ():
                    of_class[label].append(image_id)
        counts = class_counts(cells, kinds.counts)
        lost[name] = {
            label: of_class[label]
            for label in sorted(of_class)
            if len(of_class[label]) == counts[label]
        }
    return {name: images_of for name, images_of in lost.items() if images_of}


def _kinds_with(rows: ManifestRows, wanted: Collection[str]) -> Kinds:
    """The kinds of all images by folder, with the ids of the wanted ones and the first ones."""
    counter = KindCounter()
    ids: list[str] = []
    kind_of: list[int] = []
    for _, chunk in rows.chunks():
        for image_id in chunk.to_pylist():
            kind = counter.add(image_id)
            if image_id in wanted or counter.counts[kind] <= N_FIRST:
                ids.append(image_id)
                kind_of.append(kind)
    return counter.kinds(ids, kind_of)


def require_readable_classes(
    read: Labelled,
    label_every: Callable[[], tuple[Kinds, Labelled]],
    is_read: Callable[[str], bool],
) -> None:
    """Stop if a class has images, but none of a type that is read.

    Parameters
    ----------
    read : Labelled
        Labels of the kinds of images that are read.
    label_every : callable
        Gives the kinds of the images of all types, and their labels.
    is_read : callable
        Whether an image is of a type that is read, by its id; true of all images of a kind or none.

    Raises
    ------
    ManifestError
        With the classes and the types of their images.
    """
    try:
        kinds, every = label_every()
    except ManifestError:
        # Images that are not read lie where no class is.
        return
    reads = [is_read(kinds.firsts[kind]) for kind in range(len(kinds.counts))]
    for name in read.attribute_names:
        if name not in every.cells:
            return
        cells = every.cells[name]
        if list(compress(cells, reads)) != list(read.cells[name]):
            # Folders beside those of the classes, such as one of raw files for all of them.
            return
    for name in every.attribute_names:
        kinds_of: dict[str, set[int]] = defaultdict(set)
        readable: set[str] = set()
        for kind, cell in enumerate(every.cells[name]):
            for label in cell or ():
                kinds_of[label].add(kind)
            if reads[kind]:
                readable.update(cell or ())
        lost = {label: kinds_of[label] for label in sorted(kinds_of.keys() - readable)}
        if lost:
            raise _lost(name, lost, kinds)


def _lost(attribute: str, kinds_of: Mapping[str, set[int]], kinds: Kinds) -> ManifestError:
    classes = [
        f"{name!r} ({unread_types(kinds.suffixes(sorted(chosen)))})"
        for name, chosen in kinds_of.items()
    ]
    return ManifestError(
        f"No image of {counted(classes, 'label')} of {attribute!r} can be read: "
        f"{', '.join(classes)}. To use them, "
        f"{how_to_read(kinds.suffixes(set().union(*kinds_of.values())))}. Else move them out of "
        "the source."
    )
