"""predictions.npz and selection.npz: predictions as plain arrays, checked when they are read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurepipe.array_archives import (
    MAX_BYTES,
    load_arrays,
    require_array,
    require_distinct,
)
from featurepipe.errors import RunError
from featurepipe.files import replacing, require_readable
from featurepipe.manifest import Labels
from featurepipe.predictions import Predictions, Task
from featurepipe.words import one_line


def save_predictions(path: Path, predictions: Predictions) -> None:
    """Write an ``.npz`` file of plain arrays. An interrupted write leaves no file.

    Parameters
    ----------
    path : Path
    predictions : Predictions

    Raises
    ------
    DiskFullError
        If the disk is full.
    """
    arrays = {
        "ids": predictions.ids.astype(np.str_, copy=False),
        "parts": predictions.parts.astype(np.str_, copy=False),
        "groups": predictions.groups.astype(np.int64),
        "task": np.array(predictions.task.value),
        "attributes": np.array(list(predictions.labels), dtype=np.str_),
    }
    for position, (name, labels) in enumerate(predictions.labels.items()):
        arrays[f"classes_{position}"] = np.array(labels.classes, dtype=np.str_)
        arrays[f"exclusive_{position}"] = np.array(labels.exclusive)
        arrays[f"indicator_{position}"] = labels.indicator
        arrays[f"labelled_{position}"] = labels.labelled
        arrays[f"scores_{position}"] = predictions.scores[name]
        arrays[f"p_values_{position}"] = predictions.p_values[name]
        arrays[f"image_p_values_{position}"] = predictions.image_p_values[name]
        arrays[f"thresholds_{position}"] = predictions.thresholds[name]
    with replacing(path) as beside, beside.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def load_predictions(path: Path) -> Predictions:
    """Read what `save_predictions` wrote; nothing in the file is executed.

    Parameters
    ----------
    path : Path

    Raises
    ------
    RunError
        If the file is missing, damaged or of another kind.
    """
    require_readable(path, MAX_BYTES)
    try:
        return _from_arrays(load_arrays(path))
    # What a damaged or forged archive raises depends on what is wrong with it.
    except Exception as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else "cannot be read"
        raise RunError(
            f"The predictions {path} {reason} ({one_line(error)}). Fit or train the run again."
        ) from error


def _from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Predictions:
    attributes = require_array(arrays, "attributes", "U", None)
    require_distinct("attributes", attributes)
    ids = require_array(arrays, "ids", "U", None)
    n = len(ids)
    labels = {
        name: _labels(arrays, position, name, n)
        for position, name in enumerate(attributes.tolist())
    }
    widths = {name: len(truth.classes) for name, truth in labels.items()}
    columns = list(enumerate(widths.items()))
    predictions = Predictions(
        ids=ids,
        parts=require_array(arrays, "parts", "U", n),
        groups=require_array(arrays, "groups", "i", n),
        task=Task(str(require_array(arrays, "task", "U"))),
        labels=labels,
        scores={
            name: require_array(arrays, f"scores_{position}", "f", n, width)
            for position, (name, width) in columns
        },
        thresholds={
            name: require_array(arrays, f"thresholds_{position}", "f", width)
            for position, (name, width) in columns
        },
        p_values={
            name: require_array(arrays, f"p_values_{position}", "f", n)
            for position, (name, _) in columns
        },
        image_p_values={
            name: require_array(arrays, f"image_p_values_{position}", "f", n)
            for position, (name, _) in columns
        },
    )
    require_distinct("ids", ids)
    return predictions


def _labels(arrays: Mapping[str, NDArray[Any]], position: int, name: str, n_images: int) -> Labels:
    """The truth for an attribute, from the arrays of a file."""
    classes = require_array(arrays, f"classes_{position}", "U", None)
    require_distinct(f"classes_{position}", classes)
    if not len(classes):
        raise ValueError(f"classes_{position} is empty")
    labels = Labels(
        attribute=name,
        classes=tuple(classes.tolist()),
        exclusive=bool(require_array(arrays, f"exclusive_{position}", "b")),
        indicator=require_array(arrays, f"indicator_{position}", "b", n_images, len(classes)),
        labelled=require_array(arrays, f"labelled_{position}", "b", n_images),
    )
    n_given = labels.indicator.sum(axis=1)
    if (n_given[~labels.labelled] > 0).any() or (
        labels.exclusive and (n_given[labels.labelled] != 1).any()
    ):
        raise ValueError(f"indicator_{position} does not fit labelled_{position}")
    return labels
