"""Labels stored beside the images of an archive, in WebDataset's layout.

Files whose names are equal up to the first dot form one sample: ``000017.jpg``,
``000017.cls`` (the class as text) and ``000017.json`` (an object).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from featurepipe.manifest.cells import Cell, Columns, cell_of
from featurepipe.manifest.folders import DEFAULT_ATTRIBUTE
from featurepipe.words import counted, examples, is_utf8

LABEL_SUFFIXES = (".cls", ".json")


def sample_columns(ids: Sequence[str], texts: Mapping[str, bytes]) -> tuple[Columns, list[str]]:
    """Label columns of images, read from the label files of their samples.

    Parameters
    ----------
    ids : sequence of str
        Image ids.
    texts : mapping of str to bytes
        Contents of the label files by name.

    Returns
    -------
    columns : dict of str to list of (tuple of str or None)
        In the order of `ids`: ``label`` from ``.cls`` files, and from ``.json`` files one
        column for each key with a string, number, bool or list of strings. Empty if there
        are no labels.
    findings : list of str
    """
    if not texts:
        return {}, []
    samples: dict[str, dict[str, Cell]] = {}
    unreadable = []
    # `.cls` files come last and win: they can only hold the class.
    for name in sorted(texts, key=lambda name: name.lower().endswith(".cls")):
        try:
            labels = _cells(name, texts[name])
        except (ValueError, RecursionError):
            unreadable.append(name)
        else:
            samples.setdefault(_sample(name), {}).update(labels)
    cells_by_image = [samples.get(_sample(image_id), {}) for image_id in ids]
    names = dict.fromkeys(name for cells in cells_by_image for name in cells)
    columns = {name: [cells.get(name) for cells in cells_by_image] for name in names}
    if not unreadable:
        return columns, []
    return columns, [
        f"Ignoring {counted(unreadable, 'invalid label file')} (not UTF-8 text or a JSON object): "
        f"{examples(unreadable)}"
    ]


def _sample(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _cells(name: str, text: bytes) -> dict[str, Cell]:
    if name.lower().endswith(".cls"):
        entries: dict[str, Any] = {DEFAULT_ATTRIBUTE: text.decode("utf-8-sig").strip()}
    else:
        entries = json.loads(text)
        # JSON can escape halves of characters, which no text file can hold.
        if not is_utf8(json.dumps(entries, ensure_ascii=False)):
            raise ValueError("not UTF-8")
    if not isinstance(entries, dict):
        raise ValueError("not an object")
    cells = {
        key: cell_of(value) for key, value in entries.items() if key.strip() and _is_label(value)
    }
    return {key: cell for key, cell in cells.items() if cell is not None}


def _is_label(value: Any) -> bool:
    """Whether a value can name classes."""
    if isinstance(value, list):
        return all(isinstance(item, str) for item in value)
    return isinstance(value, str | int | float)
