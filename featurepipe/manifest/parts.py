"""Predefined splits: a column or folders name the training images."""

from collections import Counter
from collections.abc import Collection, Sequence

from featurepipe.errors import ManifestError
from featurepipe.manifest.cells import Columns
from featurepipe.manifest.folders import Folders, drop_shared_levels, without_top

SPLIT_COLUMN = "split"

REASON_COLUMN = "why"
"""Column of the tables that `featurepipe next` writes; it holds no labels."""

_GIVEN_PARTS = {
    "train": "train", "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test",
}  # fmt: skip


def split_folders(folders: list[Folders]) -> tuple[list[str] | None, list[Folders]]:
    """Separate the folders of a predefined split, such as ``train`` and ``test``.

    Parameters
    ----------
    folders : list of tuple of str
        Names of the folders that each image lies in, from the top down.

    Returns
    -------
    names : list of str or None
        Split folder of each image; None if the folders define no split.
    folders : list of tuple of str
        The remaining folders, which name classes.
    """
    tops = {path[0].lower() for path in folders if path}
    if "train" not in tops or len(tops) == 1 or not tops <= set(_GIVEN_PARTS):
        return None, folders
    name_of = {path: path[0].lower() if path else "train" for path in set(folders)}
    return [name_of[path] for path in folders], drop_shared_levels(without_top(folders))


def split_column(columns: Columns) -> list[str] | None:
    """Values of the table column ``split``; None without that column.

    Parameters
    ----------
    columns : dict of str to list of (tuple of str or None)

    Raises
    ------
    ManifestError
        If it holds an unknown value.
    """
    if SPLIT_COLUMN not in columns:
        return None
    cells = columns[SPLIT_COLUMN]
    name_of = {cell: cell[0].strip().lower() if cell else "train" for cell in set(cells)}
    unknown = sorted(set(name_of.values()) - set(_GIVEN_PARTS))
    if unknown:
        raise ManifestError(
            f"The column {SPLIT_COLUMN!r} contains {unknown[0]!r}. Expected one of "
            f"{', '.join(_GIVEN_PARTS)}. Correct the value, or rename the column."
        )
    return [name_of[cell] for cell in cells]


def are_parts(names: Collection[str]) -> bool:
    """Whether the values of a column are those of a split.

    Parameters
    ----------
    names : collection of str
        Its distinct values.
    """
    lower = {name.lower() for name in names}
    return "train" in lower and len(lower) > 1 and lower <= set(_GIVEN_PARTS)


def given_parts(
    names: list[str] | None, counts: Sequence[int]
) -> tuple[list[str] | None, list[str]]:
    """``"train"`` or ``"test"`` for each kind of images.

    Parameters
    ----------
    names : list of str or None
        Value of the column or folder of each kind; None without a predefined split.
    counts : sequence of int
        Number of images of each kind.

    Returns
    -------
    parts : list of str or None
        None without a predefined split, or if all images are on one side.
    findings : list of str
    """
    if names is None:
        return None, []
    sides = [_GIVEN_PARTS[name] for name in names]
    n_of: Counter[str] = Counter()
    for side, count in zip(sides, counts, strict=True):
        n_of[side] += count
    if len(n_of) == 1:
        return None, [f'Ignoring the column "{SPLIT_COLUMN}": every value is "{sides[0]}"']
    validation = "train" if "test" in n_of else "test"
    parts = [validation if side == "validation" else side for side in sides]
    n_validation = n_of.pop("validation", 0)
    n_of[validation] += n_validation
    finding = f"Predefined split: {n_of['train']} train and {n_of['test']} test images"
    if n_validation:
        finding += f"; validation images ({n_validation}) count as {validation}"
    return parts, [finding]
