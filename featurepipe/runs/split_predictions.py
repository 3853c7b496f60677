"""What a model says of the images of a split, beside the truth."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from featurepipe.manifest import Labels
from featurepipe.models.answers.head_model import HeadModel
from featurepipe.predictions import ALL, Predictions
from featurepipe.splits import Split


def predictions_of(
    labels: dict[str, Labels],
    split: Split,
    rows: NDArray[np.intp],
    model: HeadModel,
    scores: dict[str, NDArray[np.float64]],
    p_values: dict[str, NDArray[np.float64]] | None = None,
) -> Predictions:
    """Predictions for some of the images of a split.

    Parameters
    ----------
    labels : dict of str to Labels
        Their labels.
    split : Split
    rows : ndarray of shape (n_images,), intp
        Positions in the split.
    model : HeadModel
    scores, p_values : dict of str to ndarray
        See `Predictions`.
    """
    ids = split.ids[rows]
    return Predictions.of(
        ids=ids.astype(np.str_),
        parts=split.parts[rows].astype(np.str_),
        groups=split.groups[rows],
        task=model.task,
        labels=labels,
        scores=scores,
        thresholds=model.thresholds,
        p_values=p_values or {},
        image_p_values=model.image_p_values(p_values or {}),
    )


def n_labelled(labels: Mapping[str, Labels], task: str) -> dict[str, int]:
    """Numbers of images that heads are fitted on, by attribute and for ``"all"``.

    Parameters
    ----------
    labels : mapping of str to Labels
        Labels of the training images.
    task : str
        A head for all labels only uses images that have them all.
    """
    n_complete = int(np.all([truth.labelled for truth in labels.values()], axis=0).sum())
    if task != "per-attribute":
        return dict.fromkeys([*labels, ALL], n_complete)
    counts = {name: int(truth.labelled.sum()) for name, truth in labels.items()}
    return {**counts, ALL: n_complete}
