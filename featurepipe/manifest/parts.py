"""Splits that images come with: a column or folders say which are for training."""

from collections import Counter

from featurepipe.errors import ManifestError
from featurepipe.manifest.folders import Folders, step_over
from featurepipe.manifest.tables import Columns

SPLIT_COLUMN = "split"

_GIVEN_PARTS = {
    "train": "train", "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test",
}  # fmt: skip


def split_folders(folders: list[Folders]) -> tuple[list[str] | None, list[Folders]]:
    """Folders of a given split, such as ``train`` and ``test``, and those below them.

    Parameters
    ----------
    folders : list of tuple of str
        Names of the folders that each image lies in, from the top down.

    Returns
    -------
    names : list of str or None
        The split's folder of each image; None if the folders are no split.
    folders : list of tuple of str
        What is left to name classes.
    """
    tops = {path[0].lower() for path in folders if path}
    if "train" not in tops or len(tops) == 1 or not tops <= set(_GIVEN_PARTS):
        return None, folders
    names = [path[0].lower() if path else "train" for path in folders]
    return names, step_over([path[1:] for path in folders])


def split_column(columns: Columns) -> list[str] | None:
    """What a table's column ``split`` says of each image; None if it has none.

    Parameters
    ----------
    columns : dict of str to list of (tuple of str or None)

    Raises
    ------
    ManifestError
        If it names an unknown part.
    """
    if SPLIT_COLUMN not in columns:
        return None
    names = [cell[0].strip().lower() if cell else "train" for cell in columns[SPLIT_COLUMN]]
    unknown = sorted(set(names) - set(_GIVEN_PARTS))
    if unknown:
        raise ManifestError(
            f"Column {SPLIT_COLUMN!r} holds {unknown[0]!r}, expected one of "
            f"{', '.join(_GIVEN_PARTS)}. Mend it, or rename the column."
        )
    return names


def given_parts(names: list[str] | None) -> tuple[list[str] | None, list[str]]:
    """``"train"`` or ``"test"`` for each image.

    Parameters
    ----------
    names : list of str or None
        What a column or folders call each image's part; None if nothing does.

    Returns
    -------
    parts : list of str or None
        None if there is no split, or one of a single part.
    findings : list of str
    """
    if names is None:
        return None, []
    kinds = [_GIVEN_PARTS[name] for name in names]
    counts = Counter(kinds)
    if len(counts) == 1:
        return None, [f"Every image's {SPLIT_COLUMN!r} is {kinds[0]!r}: taken for no split"]
    validation = "train" if "test" in counts else "test"
    parts = [validation if kind == "validation" else kind for kind in kinds]
    finding = f"Given split: {parts.count('train')} train and {parts.count('test')} test images"
    if counts["validation"]:
        finding += f"; validation images ({counts['validation']}) count as {validation}"
    return parts, [finding]
