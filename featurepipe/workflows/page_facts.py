"""What the page shows, read from a workspace: runs, images, labels and splits."""

import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from featurepipe.errors import FeaturepipeError
from featurepipe.features.imagenet import imagenet_classes_among
from featurepipe.features.store import FeatureStore, StoreKey
from featurepipe.files import read_file
from featurepipe.manifest import Manifest
from featurepipe.models.studies.near_duplicates import DuplicateSearch
from featurepipe.predictions import ALL
from featurepipe.reports.page.page_data import PageData, PageSplit
from featurepipe.reports.page.page_run import PageRun
from featurepipe.reports.page.thumbnails import Thumbnails
from featurepipe.reports.run_sections import run_sections
from featurepipe.runs.changes import Present
from featurepipe.runs.fitted_on import kept_split, split_sha256
from featurepipe.runs.run_folder import Run
from featurepipe.runs.run_info import HeadRunInfo
from featurepipe.sources import is_url
from featurepipe.splits import Split
from featurepipe.workflows.info import facts_of_run
from featurepipe.workflows.training_run import HISTORY
from featurepipe.workspace import Workspace

_THUMBNAIL_BYTES = 2_500_000
_MAX_HISTORY_BYTES = 10**8
_ON_ONE_LINE = 10**6
# The page shows these in its own way.
_NOT_PROVENANCE = ("accuracy", "changed", "made by", "next")


def page_run(run: Run, changed: Sequence[str]) -> PageRun:
    """A run as the page shows it.

    Parameters
    ----------
    run : Run
    changed : sequence of str
        How the present labels and images differ from those that it was fitted on.
    """
    info = run.info
    facts = facts_of_run(run, changed)
    said = {
        label: " ".join(" ".join(lines).split())
        for label, lines in run_sections(facts, _ON_ONE_LINE)
        if lines
    }
    calibration = info.reliability
    is_of_heads = isinstance(info, HeadRunInfo)
    return PageRun(
        name=run.name,
        split=info.split.name,
        is_network=not is_of_heads,
        is_current=not changed,
        predictions=run.predictions,
        selection=run.selection,
        reads=facts["reads"] if is_of_heads else dict.fromkeys(info.attributes, ("pixels",)),
        uncalibrated={
            name: of.model_dump(mode="json") for name, of in calibration.uncalibrated.items()
        },
        calibrated={
            name: of.model_dump(mode="json") for name, of in calibration.calibrated.items()
        },
        trials=[trial.model_dump(mode="json") for trial in info.feature_trials]
        if isinstance(info, HeadRunInfo)
        else (),
        learning_curve=_curve(info) if isinstance(info, HeadRunInfo) else (),
        history=_history(run),
        provenance={
            **{label: words for label, words in said.items() if label not in _NOT_PROVENANCE},
            **({"changed since": "; ".join(changed)} if changed else {}),
            "machine": info.machine,
        },
        command=said["made by"],
    )


def page_data(runs: Sequence[Run], present: Present | None) -> PageData | None:
    """Images and labels as the page shows them.

    Parameters
    ----------
    runs : sequence of Run
    present : Present or None

    Returns
    -------
    PageData or None
        None without a manifest that can be read.
    """
    if present is None:
        return None
    manifest, home = present.manifest, present.workspace
    labels = manifest.labels()
    refused, unknown = _refused(runs, home)
    knows_imagenet = any(
        kind not in ("random", "none") for run in runs for kind in run.info.weights[ALL].split("+")
    )
    classes = dict.fromkeys(name for truth in labels.values() for name in truth.classes)
    first_of_split: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: run.info.split.number):
        first_of_split.setdefault(run.info.split.name, run)
    found = _Duplicates(home)
    splits = {name: _page_split(run, manifest, home, found) for name, run in first_of_split.items()}
    return PageData(
        root=manifest.root,
        labels=labels,
        n_images=len(manifest),
        refused=refused,
        unknown_stores=unknown,
        imagenet_classes=imagenet_classes_among(classes) if knows_imagenet else (),
        findings=manifest.findings,
        splits={name: split for name, split in splits.items() if split is not None},
    )


def thumbnails(present: Present | None) -> Thumbnails:
    """Pictures of the workspace's images; none of images at a URL, which take long to fetch.

    Parameters
    ----------
    present : Present or None
    """
    source = None
    if present is not None and not is_url(present.manifest.root):
        with suppress(FeaturepipeError):
            source = present.manifest.images()

    def read(image_id: str) -> bytes:
        if source is None:
            raise FileNotFoundError(image_id)
        return source.read(image_id)

    return Thumbnails(read, _THUMBNAIL_BYTES)


class _Duplicates:
    """Near-duplicates that the workspace remembers; nothing is searched."""

    def __init__(self, home: Workspace) -> None:
        self._home = home
        self._files = [path for path in home.stores() if home.found_duplicates(path.stem).exists()]

    def across(self, split: Split) -> list[tuple[str, str]] | None:
        """Pairs across training and other images; None if nothing is remembered of them."""
        part_of = dict(zip(split.ids.tolist(), split.parts.tolist(), strict=True))
        for path in self._files:
            with suppress(FeaturepipeError, OSError):
                search = DuplicateSearch.among(self._home, path, split.ids_divided)
                known = search.remembered()
                if known is not None:
                    return [(first, second) for first, second in known.across(part_of).ids]
        return None


def _page_split(
    run: Run, manifest: Manifest, home: Workspace, found: _Duplicates
) -> PageSplit | None:
    split = _split_of(run, home)
    if split is None:
        return None
    part_of = dict(zip(split.ids.tolist(), split.parts.tolist(), strict=True))
    _, sizes = np.unique(split.groups, return_counts=True)
    settings = split.settings
    return PageSplit(
        name=split.name,
        parts=np.array([part_of.get(image, "") for image in manifest.ids], dtype=object),
        held_out=settings.hold_out,
        left_out=len(split.left_out),
        n_groups=int((sizes > 1).sum()),
        n_grouped=int(sizes[sizes > 1].sum()),
        group=settings.group,
        groups_duplicates=settings.group_duplicates,
        leaks=found.across(split),
        findings=split.findings,
    )


def _split_of(run: Run, home: Workspace) -> Split | None:
    """The split by which a run was fitted; None if it is gone or another one."""
    with suppress(FeaturepipeError):
        split = Split.load(home.split(run.info.split.name))
        if split_sha256(split) == run.info.split.sha256:
            return split
    with suppress(FeaturepipeError):
        return kept_split(run)
    return None


def _refused(runs: Sequence[Run], home: Workspace) -> tuple[dict[str, str], list[str]]:
    """Images that the stores of the runs refused, and the stores that are gone."""
    read: dict[str, StoreKey] = {}
    for run in runs:
        if isinstance(run.info, HeadRunInfo):
            read |= {store.name: store.recipe for store in run.info.stores}
        else:
            recipe = run.info.pixels.recipe
            read[f"pixels {recipe.size_px} px"] = recipe
    refused_by_key = _refused_by_key((*home.stores(), *home.pixel_caches()))
    known = [recipe for recipe in read.values() if recipe in refused_by_key]
    refused = {image: why for recipe in known for image, why in refused_by_key[recipe].items()}
    gone = [name for name, recipe in read.items() if recipe not in refused_by_key]
    return dict(sorted(refused.items())), gone


def _refused_by_key(paths: Sequence[Path]) -> Mapping[StoreKey, Mapping[str, str]]:
    refused = {}
    for path in paths:
        # Neither a damaged store nor one that is being written hinders a report.
        with suppress(FeaturepipeError, OSError), FeatureStore.open(path) as store:
            refused[store.key] = store.refused()
    return refused


def _curve(info: HeadRunInfo) -> list[dict[str, float | int | str]]:
    return [
        {
            "attribute": point.attribute,
            "n_train": point.n_train,
            "accuracy": point.accuracy,
            "accuracy_sd": point.accuracy_spread,
        }
        for point in info.curve
    ]


def _history(run: Run) -> pd.DataFrame | None:
    if HISTORY not in run.info.files:
        return None
    try:
        content = read_file(run.file(HISTORY), _MAX_HISTORY_BYTES)
        return pd.read_csv(io.BytesIO(content))
    # What a damaged table raises depends on what is wrong with it.
    except (FeaturepipeError, ValueError, OSError):
        return None
