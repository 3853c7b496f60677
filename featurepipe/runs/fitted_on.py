"""What a run was fitted on, as it keeps it."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from featurepipe.errors import RunError
from featurepipe.features.cached import CachedFeatures
from featurepipe.files import read_file
from featurepipe.provenance import checksum_digest
from featurepipe.reports.csv_text import csv_text
from featurepipe.runs.feature_set import FeatureSet
from featurepipe.runs.run_facts import SplitFacts, StoreInput
from featurepipe.runs.run_folder import Run
from featurepipe.runs.run_info import HeadRunInfo
from featurepipe.splits import Split
from featurepipe.words import one_line

INPUTS = "inputs.csv"

_ROWS_AT_ONCE = 10_000

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
    digest = hashlib.sha256()
    # The text of three lists, but not all of it at once: of a million images it takes 60 MB.
    for before, column in (("[", split.ids), (", ", split.parts), (", ", split.groups)):
        digest.update(f"{before}[".encode())
        for start in range(0, len(column), _ROWS_AT_ONCE):
            items = repr(column[start : start + _ROWS_AT_ONCE].tolist())[1:-1]
            digest.update(f"{', ' if start else ''}{items}".encode())
        digest.update(b"]")
    digest.update(b"]")
    return digest.hexdigest()


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
