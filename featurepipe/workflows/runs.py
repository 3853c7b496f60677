"""What fitted heads and trained networks have in common as runs."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurepipe.errors import FitError, WorkspaceError
from featurepipe.manifest import Labels, Manifest
from featurepipe.models.answers.head_model import HeadModel
from featurepipe.predictions import ALL, Predictions
from featurepipe.progress import tell
from featurepipe.splits import Split
from featurepipe.workspace import Workspace


def labelled_manifest(
    place: Workspace,
    attributes: Sequence[str],
    labels: Path | str | None,
    group: str | None,
    label_separator: str | None,
) -> Manifest:
    """The workspace's images, relabelled if that is asked for.

    Parameters
    ----------
    place : Workspace
    attributes, labels, group, label_separator
        As in `featurepipe.fit`.

    Raises
    ------
    WorkspaceError
        If the workspace holds no images.
    FitError
        If they have no labels.
    """
    if not place.manifest.exists():
        raise WorkspaceError(
            f"The workspace {place.root} holds no images yet. Begin with: "
            "featurepipe extract FOLDER"
        )
    manifest = Manifest.load(place.manifest)
    if attributes or labels or (group and group != manifest.group_column):
        manifest = manifest.relabelled(
            attributes=tuple(attributes),
            labels=labels,
            group=group,
            label_separator=label_separator,
        )
        tell(manifest.findings)
        manifest.save(place.manifest)
    if not manifest.attribute_names:
        raise FitError(
            f"The {len(manifest)} images below {manifest.root} have no labels. Put them in one "
            "folder a class, or give a table: featurepipe fit --labels TABLE.csv"
        )
    return manifest


def run_names(
    title: str,
    task: str,
    reads: Mapping[str, Any],
    decides: Sequence[str],
    split: Split,
    manifest: Manifest,
) -> dict[str, str]:
    """Names of a run and of its family: the same on the other splits of the series.

    The same for the same inputs, split, labels and settings; else others.

    Parameters
    ----------
    title : str
        What the names begin with.
    task : str
        Named where it is not ``""``.
    reads : mapping of str to Any
        What is read, as JSON values: ``run``, and for the family what was asked for.
    decides : sequence of str
        Everything else that decides what is fitted.
    split : Split
    manifest : Manifest
    """
    labels = manifest.table.loc[split.ids.tolist(), list(manifest.attribute_names)]
    told = repr([labels.columns.tolist(), labels.to_numpy().tolist()])
    divides = {
        "run": [split.name, split.ids.tolist(), split.parts.tolist()],
        "family": [split.series, sorted([*split.ids, *split.left_out])],
    }
    names = {}
    for kind, divided in divides.items():
        # The settings first, as ever: a run keeps its name.
        decided = [json.dumps(reads[kind], sort_keys=True), decides[0], told, *decides[1:]]
        digest = hashlib.sha256("\n".join([*decided, repr(divided)]).encode()).hexdigest()[:6]
        names[kind] = "-".join(filter(None, (title, task, digest)))
    return names


def predictions_of(
    manifest: Manifest,
    split: Split,
    rows: NDArray[np.intp],
    model: HeadModel,
    scores: dict[str, NDArray[np.float64]],
    p_values: dict[str, NDArray[np.float64]] | None = None,
) -> Predictions:
    """What a model said of some of a split's images, beside the truth.

    Parameters
    ----------
    manifest : Manifest
    split : Split
    rows : ndarray of shape (n_images,), intp
        Positions in the split.
    model : HeadModel
    scores, p_values
        As in `Predictions`.
    """
    ids = split.ids[rows]
    return Predictions.of(
        ids=ids.astype(np.str_),
        parts=split.parts[rows].astype(np.str_),
        groups=split.groups[rows],
        task=model.task,
        labels=manifest.labels(ids),
        scores=scores,
        thresholds=model.thresholds,
        p_values=p_values or {},
    )


def n_labelled(labels: Mapping[str, Labels], task: str) -> dict[str, int]:
    """How many images can be fitted on: for each attribute, and for all of them together.

    Parameters
    ----------
    labels : mapping of str to Labels
        Of the training images.
    task : str
        Where one head reads all labels, it reads only images that have them all.
    """
    counts = {name: int(each.labelled.sum()) for name, each in labels.items()}
    n_all = int(np.all([each.labelled for each in labels.values()], axis=0).sum())
    if task != "per-attribute":
        return dict.fromkeys([*counts, ALL], n_all)
    return {**counts, ALL: n_all}


def summary(infos: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """What `fit` returns of some runs."""
    return pd.DataFrame(
        [
            {
                "run": info["run"],
                "backbone": info["backbone"][attribute],
                "view": info["view"][attribute],
                "split": info["split"],
                "attribute": attribute,
                "n_train": info["n_train"][attribute],
                "selection_accuracy": info["selection_accuracy"][attribute],
                "fit_s": info["fit_s"],
            }
            for info in infos
            for attribute in [*info["attributes"], ALL]
        ]
    )
