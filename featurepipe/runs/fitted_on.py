"""What a run was fitted on, and whether that has changed since."""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from featurepipe.errors import FeaturepipeError, RunError
from featurepipe.features.cached import CachedFeatures
from featurepipe.files import read_file
from featurepipe.manifest import Labels, Manifest
from featurepipe.models.networks.saved import NETWORK_FILE
from featurepipe.provenance import checksum_digest
from featurepipe.runs.feature_set import FeatureSet
from featurepipe.runs.run_facts import SplitFacts, StoreInput
from featurepipe.runs.run_files import HEADS_FILE
from featurepipe.runs.run_folder import Run
from featurepipe.runs.run_info import HeadRunInfo
from featurepipe.splits import Split
from featurepipe.words import counted, examples, one_line
from featurepipe.workspace import Workspace

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
    return table.to_csv(index=False).encode()


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


def split_problems(runs: Sequence[Run], workspace: Workspace) -> list[str]:
    """What is wrong with the saved splits of runs, in words; each split is read once.

    Parameters
    ----------
    runs : sequence of Run
    workspace : Workspace
        Splits that are gone from it play no role: a run keeps its own.

    Returns
    -------
    list of str
        Empty if every split is as it was.
    """
    by_split: dict[str, list[Run]] = {}
    for run in runs:
        by_split.setdefault(run.info.split.name, []).append(run)
    problems = []
    for name, members in sorted(by_split.items()):
        path = workspace.split(name)
        if not path.exists():
            continue
        try:
            digest = split_sha256(Split.load(path))
        except FeaturepipeError as error:
            problems.append(str(error))
            continue
        if others := [run.name for run in members if run.info.split.sha256 != digest]:
            problems.append(
                f"The split {path} has changed since it was used for {counted(others, 'run')} "
                f"({examples(others)}). Their figures are those of the old split; fit them again."
            )
    return problems


def run_problems(run: Run, workspace: Workspace) -> list[str]:
    """Everything that is wrong with the files of a run and its split, one line each.

    Parameters
    ----------
    run : Run
    workspace : Workspace
    """
    is_network = run.network is not None
    names = {*run.info.files, HEADS_FILE, NETWORK_FILE if is_network else INPUTS}
    problems = [problem for name in sorted(names) for problem in _problems_of(run.file, name)]
    if not problems:
        problems += _problems_of(lambda: run.model)
        if not is_network:
            problems += _problems_of(_require_inputs, run)
    return [*problems, *split_problems([run], workspace)]


def _problems_of(check: Callable[..., object], *arguments: object) -> list[str]:
    try:
        check(*arguments)
    except FeaturepipeError as error:
        return [str(error)]
    return []


def _require_inputs(run: Run) -> None:
    """Stop if the run's split or the checksums of its features are not those in its run.json."""
    assert isinstance(run.info, HeadRunInfo)
    kept = _kept_checksums(run, kept_split(run))
    for store in run.info.stores:
        if checksum_digest(kept[store.name].to_numpy()) != store.features_sha256:
            raise RunError(
                f"Run {run.name!r} is damaged: the checksums of {store.name} in "
                f"{run.folder / INPUTS} do not belong to its run.json. Fit it again."
            )


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
    kept = _kept_checksums(run, split)
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


def _kept_checksums(run: Run, split: Split) -> pd.DataFrame:
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


def _cells(labels: Labels) -> list[tuple[str, ...] | None]:
    names = np.array(labels.classes, dtype=object)
    return [
        tuple(names[row]) if labelled else None
        for row, labelled in zip(labels.indicator, labels.labelled, strict=True)
    ]


def _some(images: Sequence[str]) -> str:
    return f"{counted(images, 'image')}, such as {images[0]!r}"
