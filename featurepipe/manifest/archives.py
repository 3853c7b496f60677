"""Labels that lie beside images in an archive, in WebDataset's layout.

Files of one basename up to its first dot are one sample: ``000017.jpg``, with
``000017.cls`` (the class as text) and ``000017.json`` (an object).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from featurepipe.manifest.folders import DEFAULT_ATTRIBUTE
from featurepipe.manifest.tables import Cell, Columns, cell_of
from featurepipe.manifest.words import counted, examples

LABEL_SUFFIXES = (".cls", ".json")


def sample_columns(ids: Sequence[str], texts: Mapping[str, bytes]) -> tuple[Columns, list[str]]:
    """Columns about images out of the label files of their samples.

    Parameters
    ----------
    ids : sequence of str
        Image ids.
    texts : mapping of str to bytes
        Label files by their names.

    Returns
    -------
    columns : dict of str to list of (tuple of str or None)
        In the order of `ids`: ``label`` out of ``.cls``; out of ``.json`` one for
        each entry that is a string, number or bool, or a list of strings somewhere.
        Empty if there are no labels.
    findings : list of str
    """
    samples: dict[str, dict[str, Cell]] = {}
    unreadable = []
    # Of two that say the same thing, `.cls` counts: it has but one meaning.
    for name in sorted(texts, key=lambda name: name.lower().endswith(".cls")):
        try:
            said = _cells(name, texts[name])
        except (ValueError, RecursionError):
            unreadable.append(name)
        else:
            samples.setdefault(_sample(name), {}).update(said)
    found = [samples.get(_sample(image_id), {}) for image_id in ids]
    names = dict.fromkeys(name for cells in found for name in cells)
    columns = {name: [cells.get(name) for cells in found] for name in names}
    if not unreadable:
        return columns, []
    return columns, [
        f"{counted(unreadable, 'label file')} left out, being no UTF-8 text or JSON object: "
        f"{examples(unreadable)}"
    ]


def _sample(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _cells(name: str, text: bytes) -> dict[str, Cell]:
    if name.lower().endswith(".cls"):
        said: dict[str, Any] = {DEFAULT_ATTRIBUTE: text.decode("utf-8-sig").strip()}
    else:
        said = json.loads(text)
    if not isinstance(said, dict):
        raise ValueError("no object")
    cells = {key: cell_of(value) for key, value in said.items() if key.strip() and _labels(value)}
    return {key: cell for key, cell in cells.items() if cell is not None}


def _labels(value: Any) -> bool:
    """Whether a value may name classes."""
    if isinstance(value, list):
        return all(isinstance(item, str) for item in value)
    return isinstance(value, str | int | float)
