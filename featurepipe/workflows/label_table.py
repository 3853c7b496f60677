"""A table of labels: first the images to label, then those that have labels."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurepipe.manifest import REASON_COLUMN, SPLIT_COLUMN, Manifest
from featurepipe.manifest.tables import Cell
from featurepipe.runs.run_folder import Run


def label_table(
    run: Run,
    manifest: Manifest,
    ids: NDArray[np.object_],
    cells: Mapping[str, Sequence[Cell]],
    reasons: Sequence[str],
) -> pd.DataFrame:
    """The images to label with their suggested classes, then all images that have labels.

    Parameters
    ----------
    run : Run
        Its test images stay test images, by the column ``split``, if a table can give its split:
        one without groups and without held-out combinations.
    manifest : Manifest
    ids : ndarray of shape (n_images,), str objects
        Images to label.
    cells : mapping of str to sequence of (tuple of str or None)
        Their suggested classes for each attribute.
    reasons : sequence of str

    Returns
    -------
    pandas.DataFrame
        Of text: ``path, why``, one column for each exclusive attribute, and for sets of labels
        one of 0 and 1 for each label; the group column; ``split``. Empty where unknown.
    """
    labels = manifest.labels()
    has_label = np.any([truth.labelled for truth in labels.values()], axis=0)
    known = np.flatnonzero(has_label & ~np.isin(manifest.ids, ids)).tolist()
    columns = {
        "path": [*ids, *manifest.ids[known]],
        REASON_COLUMN: [*reasons, *[""] * len(known)],
    }
    for name, truth in labels.items():
        all_cells = [*cells[name], *(manifest.cells[name][row] for row in known)]
        columns |= _columns(name, truth.classes, all_cells, exclusive=truth.exclusive)
    if manifest.group_column is not None:
        group_of = dict(zip(manifest.ids, manifest.cells[manifest.group_column], strict=True))
        columns[manifest.group_column] = [group_of.get(name) or "" for name in columns["path"]]
    settings = run.info.split.settings
    if settings.group is None and not settings.hold_out:
        tested = set(run.predictions.ids.tolist())
        columns[SPLIT_COLUMN] = ["test" if name in tested else "train" for name in columns["path"]]
    return pd.DataFrame(columns)


def _columns(
    attribute: str, classes: Sequence[str], cells: Sequence[Cell], *, exclusive: bool
) -> dict[str, list[str]]:
    if exclusive:
        return {attribute: ["|".join(cell or ()) for cell in cells]}
    # Unlike one cell of labels, columns of 0 and 1 can say that none of the labels applies.
    return {
        f"{attribute}={label}": ["" if cell is None else str(int(label in cell)) for cell in cells]
        for label in classes
    }
