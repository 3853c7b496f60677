"""Rows of a table, and the images that they name."""

from collections.abc import Callable, Collection, Sequence

from featurepipe.errors import ManifestError
from featurepipe.manifest.attribute_columns import used_columns
from featurepipe.manifest.cells import Columns
from featurepipe.manifest.csv_tables import data_as_header
from featurepipe.manifest.labelling import Labelling
from featurepipe.manifest.matching import Matches, PathFinder
from featurepipe.manifest.parts import SPLIT_COLUMN
from featurepipe.manifest.tables import Table, read_table
from featurepipe.sources import parent_place
from featurepipe.words import counted, examples


def read_listed(
    place: str,
    labelling: Labelling,
    exists: Callable[[str], bool],
    list_ids: Callable[[], Collection[str]] | None,
) -> tuple[list[str], Columns, list[str]]:
    """Images listed in a table, with the columns of the table.

    Parameters
    ----------
    place : str
        Path or URL of the table; its paths are relative to its folder.
    labelling : Labelling
        What the columns are wanted for.
    exists : callable
        Tells whether an image exists at a path relative to the table's folder.
    list_ids : callable or None
        Paths of all images below the table's folder; None if they cannot be listed.

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
    root, table = parent_place(place), read_table(place)
    finder = PathFinder(root, [root], exists, list_ids or list, any_folder=False)
    matches, columns, findings = _matched(
        table,
        table.path_columns() if list_ids else table.named_path_columns(),
        finder,
        f"exists below {root}",
        "Move the table beside the images, or pass the folder of the images as the source and the "
        "table with --labels.",
    )
    ids = sorted(matches.rows)
    columns, said = _one_row_each(ids, matches.rows, columns, table, labelling)
    findings += said
    if matches.lost:
        findings.append(
            f"Ignoring {counted(matches.lost, 'row')} of {table.name} without a file below {root}: "
            f"{examples(matches.lost)}"
        )
    return ids, columns, findings


def read_columns(
    place: str, ids: list[str], root: str, labelling: Labelling, *, all_images: bool = True
) -> tuple[list[str], Columns, list[str]]:
    """Columns of a table, for images that are already listed.

    Parameters
    ----------
    place : str
        Path or URL of the table. Its paths are absolute, relative to `root` or to its folder, or
        unique file names.
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
    table, known = read_table(place), set(ids)
    finder = PathFinder(
        root, [root, parent_place(place)], known.__contains__, lambda: ids, any_folder=True
    )
    matches, columns, findings = _matched(
        table,
        table.path_columns(),
        finder,
        f"names an image below {root}",
        "Expected paths relative to that folder, or unique file names.",
    )
    rows = matches.rows
    has_labels = bool(used_columns(columns, labelling) - {SPLIT_COLUMN, labelling.group})
    keeps_all = all_images or not has_labels
    kept = ids if keeps_all else [image_id for image_id in ids if image_id in rows]
    columns, said = _one_row_each(kept, rows, columns, table, labelling)
    findings += said
    if matches.lost:
        findings.append(
            f"Ignoring {counted(matches.lost, 'row')} of {table.name} without an image below "
            f"{root}: {examples(matches.lost)}"
        )
    if len(kept) < len(ids):
        left_out = [image_id for image_id in ids if image_id not in rows]
        findings.append(
            f"Ignoring {counted(left_out, 'image')} below {root} that {table.name} does not "
            f"name: {examples(left_out)}. Use --all-images to include them"
        )
    return kept, columns, findings


def _matched(
    table: Table, candidates: Sequence[str], finder: PathFinder, what: str, advice: str
) -> tuple[Matches, Columns, list[str]]:
    """The images that rows name, the other columns, and findings about both."""
    named = table.named_path_columns()
    for column in candidates:
        matches = finder.match(table.paths(column))
        if not matches.rows:
            continue
        if column not in named and finder.match([column]).rows:
            raise data_as_header(table.name, column)
        columns = {name: cells for name, cells in table.columns.items() if name != column}
        findings = [*table.findings]
        if matches.differences:
            findings.append(
                f"Matched paths of {table.name} that differ from the images: {matches.differences}"
            )
        return matches, columns, findings
    if not named:
        raise table.without_paths()
    lost = [path for path in table.paths(named[0]) if path]
    raise ManifestError(
        f"None of the {len(lost):,} paths in the column {named[0]!r} of {table.place} {what}, "
        f"for example {examples(lost)}. {finder.cause(lost[0])} {advice}"
    )


def _one_row_each(
    ids: list[str],
    rows: dict[str, list[int]],
    columns: Columns,
    table: Table,
    labelling: Labelling,
) -> tuple[Columns, list[str]]:
    """Columns with one cell per image, and findings.

    Where the rows of an image differ in a column that is not used now, its cell is None, so
    that neither value is used later.
    """
    firsts = [rows[image_id][0] if image_id in rows else None for image_id in ids]
    repeated = [place for place, image_id in enumerate(ids) if len(rows.get(image_id, ())) > 1]
    used = used_columns(columns, labelling)
    merged: Columns = {}
    for name, cells in columns.items():
        values = [None if row is None else cells[row] for row in firsts]
        differing = [
            place for place in repeated if len({cells[row] for row in rows[ids[place]]}) > 1
        ]
        if differing and name in used:
            raise ManifestError(
                f"{table.place} has several rows with different values of {name!r} for "
                f"{counted(differing, 'image')}: {examples([ids[place] for place in differing])}. "
                "Keep one row per image, and separate several labels in one cell by "
                f"{labelling.label_separator!r}."
            )
        for place in differing:
            values[place] = None
        # A column without any value left is dropped, such as boxes, of which images have several.
        if name in used or not differing or any(values):
            merged[name] = values
    if not repeated:
        return merged, []
    return merged, [
        f"{counted(repeated, 'image')} of {table.name} with several identical rows: "
        f"{examples([ids[place] for place in repeated])}"
    ]
