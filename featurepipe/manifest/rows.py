"""Matches rows of a table with images."""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import PurePath

from featurepipe.errors import ManifestError
from featurepipe.manifest.labelling import Labelling, used_columns
from featurepipe.manifest.parts import SPLIT_COLUMN
from featurepipe.manifest.tables import Columns, read_table
from featurepipe.sources import is_url, name_of, parent_place
from featurepipe.words import counted, examples


def read_listed(
    table: str, labelling: Labelling, exists: Callable[[str], bool]
) -> tuple[list[str], Columns, list[str]]:
    """Images listed in a table, with the columns of the table.

    Parameters
    ----------
    table : str
        Path or URL; its paths are relative to its folder.
    labelling : Labelling
        What the columns are wanted for.
    exists : callable
        Tells whether an image exists at a path relative to the table's folder.

    Returns
    -------
    ids : list of str, sorted
        POSIX paths of the images that exist, relative to the table's folder.
    columns : dict of str to list of (tuple of str or None)
        In the order of `ids`.
    findings : list of str

    Raises
    ------
    ManifestError
        If the table cannot be used, or none of its images exists.
    """
    root = parent_place(table)
    paths, columns = read_table(table)
    rows, lost = _rows_by_image(paths, lambda path: _find_below(root, path, [root], exists))
    if not rows:
        raise ManifestError(
            f"None of the {len(paths)} images of {table} exists below {root}, for example "
            f"{examples(lost)}. Move the table beside the images, or pass the folder of the images "
            "as the source and the table with --labels."
        )
    ids = sorted(rows)
    columns, findings = _one_row_each(ids, rows, columns, table, labelling)
    if lost:
        findings.append(
            f"Ignoring {counted(lost, 'row')} of {name_of(table)} without a file below {root}: "
            f"{examples(lost)}"
        )
    return ids, columns, findings


def read_columns(
    table: str, ids: list[str], root: str, labelling: Labelling, *, all_images: bool = True
) -> tuple[list[str], Columns, list[str]]:
    """Columns of a table, for images that are already listed.

    Parameters
    ----------
    table : str
        Path or URL. Its paths are absolute, relative to `root` or to its folder, or unique
        file names.
    ids : list of str
        Ids of the images.
    root : str
        What the ids are relative to, as in `Manifest`.
    labelling : Labelling
        What the columns are wanted for.
    all_images : bool
        Whether to keep images without a row. Else they are left out, with a finding, if the
        table has labels; a table of groups or of a split alone never leaves any out.

    Returns
    -------
    ids : list of str, sorted
        The images that are kept.
    columns : dict of str to list of (tuple of str or None)
        In the order of the images kept.
    findings : list of str

    Raises
    ------
    ManifestError
        If the table cannot be used, or names none of the images.
    """
    paths, columns = read_table(table)
    known, names = set(ids), [image_id.rpartition("/")[2] for image_id in ids]
    name_counts = Counter(names)
    by_name = {
        name: image_id for name, image_id in zip(names, ids, strict=True) if name_counts[name] == 1
    }
    rows, lost = _rows_by_image(
        paths,
        lambda path: (
            _find_below(root, path, [root, parent_place(table)], known.__contains__)
            or by_name.get(path)
        ),
    )
    if not rows:
        raise ManifestError(
            f"None of the {len(paths)} rows of {table} names an image below {root}, for example "
            f"{examples(lost)}. Expected paths relative to that folder, or unique file names."
        )
    has_labels = bool(used_columns(columns, labelling) - {SPLIT_COLUMN, labelling.group})
    keeps_all = all_images or not has_labels
    kept = ids if keeps_all else [image_id for image_id in ids if image_id in rows]
    columns, findings = _one_row_each(kept, rows, columns, table, labelling)
    if lost:
        findings.append(
            f"Ignoring {counted(lost, 'row')} of {name_of(table)} without an image below {root}: "
            f"{examples(lost)}"
        )
    if len(kept) < len(ids):
        left_out = [image_id for image_id in ids if image_id not in rows]
        findings.append(
            f"Ignoring {counted(left_out, 'image')} below {root} that {name_of(table)} does not "
            f"name: {examples(left_out)}. Use --all-images to include them"
        )
    return kept, columns, findings


def _rows_by_image(
    paths: list[str], find: Callable[[str], str | None]
) -> tuple[dict[str, list[int]], list[str]]:
    """Table rows of each image, and the paths without an image."""
    rows: dict[str, list[int]] = {}
    lost = []
    for row, path in enumerate(paths):
        image_id = find(path)
        if image_id is None:
            lost.append(path or "(empty)")
        else:
            rows.setdefault(image_id, []).append(row)
    return rows, lost


def _find_below(
    root: str, path: str, folders: Iterable[str], known: Callable[[str], bool]
) -> str | None:
    """Id of the image below `root` at a path relative to one of `folders`."""
    top = os.path.normpath(root)
    for folder in folders:
        place = PurePath(os.path.normpath(path if is_url(path) else PurePath(folder, path)))
        if path and place != PurePath(top) and place.is_relative_to(top):
            image_id = place.relative_to(top).as_posix()
            if known(image_id):
                return image_id
    return None


def _one_row_each(
    ids: list[str], rows: dict[str, list[int]], columns: Columns, table: str, labelling: Labelling
) -> tuple[Columns, list[str]]:
    """Columns with one cell per image, and findings.

    Where the rows of an image differ in a column that is not used now, its cell is None, so
    that neither value is used later.
    """
    repeated = [image_id for image_id in ids if len(rows.get(image_id, ())) > 1]
    used = used_columns(columns, labelling)
    merged: Columns = {}
    for name, cells in columns.items():
        merged[name] = []
        for image_id in ids:
            values = {cells[row] for row in rows.get(image_id, ())}
            if len(values) > 1 and name in used:
                raise ManifestError(
                    f"{table} has several rows for the image {image_id!r} with different values of "
                    f"{name!r}. Keep one row per image, and separate several labels in one cell by "
                    f"{labelling.label_separator!r}."
                )
            merged[name].append(values.pop() if len(values) == 1 else None)
    if not repeated:
        return merged, []
    return merged, [
        f"{counted(repeated, 'image')} of {name_of(table)} with several identical rows: "
        f"{examples(repeated)}"
    ]
