"""What a run was fitted on, and whether that has changed since."""

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from featurepipe.errors import RunError
from featurepipe.features.cached import CachedFeatures
from featurepipe.files import read_file
from featurepipe.manifest import Labels, Manifest
from featurepipe.provenance import checksum_digest
from featurepipe.reports.csv_text import csv_text
from featurepipe.runs.feature_set import FeatureSet
from featurepipe.runs.run_facts import SplitFacts, StoreInput
from featurepipe.runs.run_folder import Run
from featurepipe.runs.run_info import HeadRunInfo
from featurepipe.splits import Split
from featurepipe.words import counted, one_line

INPUTS = "inputs.csv"

MAX_BYTES = 2 * 10**9
"""Largest inputs.csv that is read: about 20 million images."""


def store_facts(feature_set: FeatureSet, split: Split) -> tuple[StoreInput, ...]:
    """What a run keeps of the stores that it read or tried.

    Parameters
    ----------
    feature_set : FeatureSet
    split : Split
        The digests are over the checksums of its images' rows, in its order.
    """
    return tuple(
        StoreInput(
            name=cache.name,
            recipe=cache.key,
            features_sha256=checksum_digest(cache.checksums(split.ids)),
        )
        for cache in feature_set.consulted
    )


def split_facts(split: Split) -> SplitFacts:
    """What a run keeps of its split.

    Parameters
    ----------
    split : Split
    """
    return SplitFacts(
        name=split.name,
        number=split.number,
        series=split.series,
        settings=split.settings,
        repeat=split.repeat,
        sha256=split_sha256(split),
    )


def split_sha256(split: Split) -> str:
    """SHA-256 of image ids, parts and groups of a split, in hexadecimal.

    Parameters
    ----------
    split : Split
    """
    text = repr([split.ids.tolist(), split.parts.tolist(), split.groups.tolist()])
    return hashlib.sha256(text.encode()).hexdigest()


def inputs_table(feature_set: FeatureSet, split: Split) -> bytes:
    """The checksum of each image in each store that was read or tried, as CSV.

    Parameters
    ----------
    feature_set : FeatureSet
    split : Split
    """
    table = pd.DataFrame({"image": split.ids})
    for cache in feature_set.consulted:
        table[cache.name] = cache.checksums(split.ids)
    return csv_text(table, "%.6g").encode()


def kept_split(run: Run) -> Split:
    """The split by which a run was fitted, as the run itself keeps it.

    Parameters
    ----------
    run : Run

    Raises
    ------
    RunError
        If the run's files contradict each other.
    """
    answered = (run.predictions, run.selection)
    ids = np.concatenate([predictions.ids for predictions in answered]).astype(object)
    parts = np.concatenate([predictions.parts for predictions in answered]).astype(object)
    groups = np.concatenate([predictions.groups for predictions in answered])
    order = np.argsort(ids)
    facts = run.info.split
    split = Split(
        name=facts.name,
        settings=facts.settings,
        repeat=facts.repeat,
        ids=ids[order],
        parts=parts[order],
        groups=groups[order],
        number=facts.number,
    )
    if split_sha256(split) != facts.sha256:
        raise RunError(
            f"Run {run.name!r} is damaged: its predictions do not belong to the split in its "
            "run.json. Fit it again."
        )
    return split


def kept_checksums(run: Run, split: Split) -> pd.DataFrame:
    """The checksum of each image of a run in each store that was read or tried.

    Parameters
    ----------
    run : Run
        A run of heads.
    split : Split
        From `kept_split`.

    Returns
    -------
    pandas.DataFrame
        Indexed by image, one column of uint32 for each store.

    Raises
    ------
    RunError
        If the table is missing, or does not fit the run.
    """
    path = run.file(INPUTS)
    assert isinstance(run.info, HeadRunInfo)
    names = [store.name for store in run.info.stores]
    types = {"image": str, **dict.fromkeys(names, np.uint32)}
    try:
        content = io.BytesIO(read_file(path, MAX_BYTES))
        table = pd.read_csv(content, dtype=types, keep_default_na=False)
        if table.columns.tolist() != list(types):
            raise ValueError(f"its columns are {', '.join(table.columns)}")
        if table["image"].tolist() != split.ids.tolist():
            raise ValueError("its images are not those of the split")
    # What a damaged table raises depends on what is wrong with it.
    except Exception as error:
        raise RunError(
            f"Run {run.name!r} is damaged: {path} cannot be read ({one_line(error)}). Fit it again."
        ) from error
    return table.set_index("image")


def kept_caches(info: HeadRunInfo, caches: Sequence[CachedFeatures]) -> list[CachedFeatures]:
    """The caches that a run read or tried, under the names that they had then.

    Parameters
    ----------
    info : HeadRunInfo
    caches : sequence of CachedFeatures
        The present ones; those that are gone are missing in the result.
    """
    return [
        replace(cache, name=store.name)
        for store in info.stores
        for cache in caches
        if cache.key == store.recipe
    ]


def changed_inputs(
    run: Run, split: Split, caches: Sequence[CachedFeatures], manifest: Manifest
) -> list[str]:
    """What has changed since a run was fitted, in words.

    Parameters
    ----------
    run : Run
    split : Split
        From `kept_split`.
    caches : sequence of CachedFeatures
        From `kept_caches`.
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
    names, kept = manifest.attribute_names, run.info.attributes
    if names != kept:
        yield f"the attributes are now {', '.join(names)} instead of {', '.join(kept)}"
        return
    for predictions in (run.selection, run.predictions):
        now = manifest.labels(predictions.ids.astype(object))
        for name, then in predictions.labels.items():
            differ = [a != b for a, b in zip(_cells(now[name]), _cells(then), strict=True)]
            if changed := predictions.ids[differ].tolist():
                yield f"labels of {name!r} changed: {_some(changed)}"
            elif now[name].classes != then.classes:
                yield f"the classes of {name!r} are now {', '.join(now[name].classes)}"


def _changed_features(run: Run, split: Split, caches: Sequence[CachedFeatures]) -> Iterator[str]:
    cache_of = {cache.name: cache for cache in caches}
    kept = kept_checksums(run, split)
    for name in kept.columns:
        cache = cache_of.get(name)
        if cache is None:
            yield f"there is no store of the features {name} any more"
            continue
        missing = [image for image in split.ids if image not in cache.row_of]
        if missing:
            yield f"{cache.path} lacks features: {_some(missing)}"
            continue
        same = cache.checksums(split.ids) == kept[name].to_numpy()
        if changed := split.ids[~same].tolist():
            yield f"features in {cache.path} changed: {_some(changed)}"


def _cells(labels: Labels) -> list[tuple[str, ...] | None]:
    names = np.array(labels.classes, dtype=object)
    return [
        tuple(names[row]) if labelled else None
        for row, labelled in zip(labels.indicator, labels.labelled, strict=True)
    ]


def _some(images: Sequence[str]) -> str:
    return f"{counted(images, 'image')}, such as {images[0]!r}"
