"""What a run was fitted on: kept with it, and held against what there is now."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurepipe.errors import RunError
from featurepipe.features.cached import CachedFeatures
from featurepipe.manifest import Labels, Manifest
from featurepipe.manifest.words import counted
from featurepipe.runs.feature_set import FeatureSet
from featurepipe.runs.run_folder import Run
from featurepipe.splits import Split, SplitSettings

INPUTS = "inputs.csv"


def input_facts(feature_set: FeatureSet, split: Split) -> dict[str, Any]:
    """What `run.json` keeps of a run's inputs, as JSON values.

    Parameters
    ----------
    feature_set : FeatureSet
    split : Split

    Returns
    -------
    dict
        ``objective`` of a choice by trial; ``split_settings``, ``split_repeat`` and
        ``split_sha256`` (over ids, parts and groups); ``stores`` that were read or
        tried, each with ``name``, ``recipe`` and ``features_sha256``, over the rows'
        checksums in the split's order.
    """
    return {
        "objective": feature_set.objective,
        **split_facts(split),
        "stores": [
            {
                "name": cache.name,
                "recipe": cache.key.as_dict(),
                "features_sha256": checksum_digest(cache.checksums(split.ids)),
            }
            for cache in _consulted(feature_set)
        ],
    }


def split_facts(split: Split) -> dict[str, Any]:
    """What `run.json` keeps of a split beside its name, as JSON values."""
    return {
        "split_settings": asdict(split.settings),
        "split_repeat": split.repeat,
        "split_sha256": _split_digest(split),
    }


def checksum_digest(checksums: NDArray[np.uint32]) -> str:
    """SHA-256, in hexadecimal, over the checksums of rows: ndarray of shape (n_images,), uint32."""
    return hashlib.sha256(checksums.astype("<u4").tobytes()).hexdigest()


def inputs_table(feature_set: FeatureSet, split: Split) -> bytes:
    """The checksum of each image in each store that was read or tried, as CSV."""
    table = pd.DataFrame({"image": split.ids})
    for cache in _consulted(feature_set):
        table[cache.name] = cache.checksums(split.ids)
    return table.to_csv(index=False).encode()


def kept_split(run: Run) -> Split:
    """The split by which a run was fitted, out of the run itself.

    Raises
    ------
    RunError
        If the run's files do not fit each other.
    """
    both = (run.predictions, run.selection)
    ids = np.concatenate([each.ids for each in both]).astype(object)
    parts = np.concatenate([each.parts for each in both]).astype(object)
    groups = np.concatenate([each.groups for each in both])
    order = np.argsort(ids)
    info = run.info
    split = Split(
        name=info["split"],
        settings=SplitSettings(**info["split_settings"]),
        repeat=info["split_repeat"],
        ids=ids[order],
        parts=parts[order],
        groups=groups[order],
        number=info["split_number"],
    )
    if _split_digest(split) != info["split_sha256"]:
        raise RunError(
            f"Run {run.folder.name!r} is damaged: its predictions are not of the split that its "
            "run.json names. Expected a run that featurepipe fit has written; fit it again."
        )
    return split


def kept_caches(run: Run, caches: Sequence[CachedFeatures]) -> list[CachedFeatures]:
    """The stores that a run read or tried, by their recipes and under their names then.

    Parameters
    ----------
    run : Run
    caches : sequence of CachedFeatures
        What there is now; those that are gone are left out.
    """
    return [
        replace(cache, name=kept["name"])
        for kept in run.info["stores"]
        for cache in caches
        if cache.key.as_dict() == kept["recipe"]
    ]


def changed_inputs(
    run: Run, split: Split, caches: Sequence[CachedFeatures], manifest: Manifest
) -> list[str]:
    """What is no longer as it was when a run was fitted, each in words.

    Parameters
    ----------
    run : Run
    split : Split
        `kept_split` of the run.
    caches : sequence of CachedFeatures
        `kept_caches` of the run.
    manifest : Manifest

    Returns
    -------
    list of str
        Empty if nothing has changed.
    """
    gone = sorted(set(split.ids) - set(manifest.ids))
    if gone:
        return [f"{_some(gone)} no longer in the manifest"]
    return [*_changed_labels(run, manifest), *_changed_features(run, split, caches)]


def _changed_labels(run: Run, manifest: Manifest) -> Iterator[str]:
    names, kept = list(manifest.attribute_names), run.info["attributes"]
    if names != kept:
        yield f"the attributes are {', '.join(names)}, not {', '.join(kept)}"
        return
    for predictions in (run.selection, run.predictions):
        now = manifest.labels(predictions.ids.astype(object))
        for name, then in predictions.labels.items():
            differ = [a != b for a, b in zip(_cells(now[name]), _cells(then), strict=True)]
            if changed := predictions.ids[differ].tolist():
                yield f"labels of {name!r} changed: {_some(changed)}"
            elif now[name].classes != then.classes:
                yield f"the classes of {name!r} are other ones: {', '.join(now[name].classes)}"


def _changed_features(run: Run, split: Split, caches: Sequence[CachedFeatures]) -> Iterator[str]:
    found = {cache.name: cache for cache in caches}
    kept = pd.read_csv(run.folder / INPUTS).set_index("image")
    for name in kept.columns:
        if name not in found:
            yield f"there is no store of the features {name} any more"
            continue
        missing = [image for image in split.ids if image not in found[name].row_of]
        if missing:
            yield f"{found[name].path} lacks features: {_some(missing)}"
            continue
        same = found[name].checksums(split.ids) == kept.loc[split.ids.tolist(), name].to_numpy()
        if changed := split.ids[~same].tolist():
            yield f"features in {found[name].path} changed: {_some(changed)}"


def _consulted(feature_set: FeatureSet) -> tuple[CachedFeatures, ...]:
    return feature_set.tried or feature_set.caches


def _cells(labels: Labels) -> list[tuple[str, ...] | None]:
    names = np.array(labels.classes, dtype=object)
    return [
        tuple(names[row]) if labelled else None
        for row, labelled in zip(labels.indicator, labels.labelled, strict=True)
    ]


def _some(images: Sequence[str]) -> str:
    return f"{counted(images, 'image')}, such as {images[0]!r}"


def _split_digest(split: Split) -> str:
    text = repr([split.ids.tolist(), split.parts.tolist(), split.groups.tolist()])
    return hashlib.sha256(text.encode()).hexdigest()
