"""fit(): cached features -> fitted heads, one run for each backbone and split."""

import json
import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import effective_n_jobs

from featurepipe.errors import FitError, UnknownNameError, UsageError, WorkspaceError
from featurepipe.features.backbones import find_backbone
from featurepipe.features.cached import CachedFeatures, digests_in_all, open_caches
from featurepipe.features.store import FeatureStore
from featurepipe.manifest import Manifest
from featurepipe.models.answers.finishing import FittedHeads
from featurepipe.models.answers.head_model import HeadModel
from featurepipe.models.answers.row_chunks import RowChunks
from featurepipe.models.heads.fit_memory import FitMemory, available_memory, in_words, parse_memory
from featurepipe.models.heads.fitting import fit_heads
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.heads.streaming import plan_chunks, stream_heads
from featurepipe.models.heads.tuning import describe_tuned
from featurepipe.models.studies.feature_choice import OBJECTIVES
from featurepipe.predictions import Predictions
from featurepipe.progress import Progress
from featurepipe.provenance import library_versions, machine
from featurepipe.reports.figures import accuracies, reliability
from featurepipe.runs.feature_set import FeatureSet, one_store_set
from featurepipe.runs.fitted_on import INPUTS, input_facts, inputs_table
from featurepipe.runs.run_folder import save_run
from featurepipe.splits import Split
from featurepipe.workflows.curves import CURVE, curve_of
from featurepipe.workflows.dividing import find_splits, look_for_duplicates, wanted_split
from featurepipe.workflows.feature_sets import AUTO, chosen_feature_set, named_feature_set
from featurepipe.workflows.leaks import warn_of_imagenet_classes, warn_of_near_duplicates
from featurepipe.workflows.runs import (
    labelled_manifest,
    n_labelled,
    predictions_of,
    run_names,
    summary,
)
from featurepipe.workspace import Workspace

logger = logging.getLogger(__name__)


def fit(
    *,
    head: str = "bagged-sgd",
    solver: str | None = None,
    backbone: str | Sequence[str] = (),
    task: str = "per-attribute",
    features: str | None = None,
    objective: str | None = None,
    calibrate: str = HeadSettings.calibrate,
    thresholds: str | None = None,
    variance_threshold: str | None = None,
    tune: bool = False,
    test_size: float | None = None,
    hold_out: Sequence[str] = (),
    hold_out_each: bool = False,
    repeats: int | None = None,
    group: str | None = None,
    group_duplicates: bool = False,
    allow_partial: bool = False,
    curve: bool = False,
    attributes: Sequence[str] = (),
    labels: Path | str | None = None,
    label_separator: str | None = None,
    workspace: Path | str = ".",
    n_jobs: int = -1,
    memory: str | None = None,
    seed: int | None = None,
) -> pd.DataFrame:
    """Fit heads on cached features, and predict the test rows once.

    Parameters
    ----------
    head : str
        ``bagged-sgd``, ``logistic`` or ``knn``.
    solver : str, optional
        ``sklearn`` fits bagged SGD literally by scikit-learn, which takes some hundred
        times as long; default: ``minibatch``.
    backbone : str or sequence of str
        Backbones whose features to fit on; default: every store. Each store gives a run.
    task : {"per-attribute", "multi-label", "joint"}
        One head an attribute, one OneVsRest head over all labels, or one head over the
        combinations of classes.
    features : str, optional
        One run whose heads read what is named here: ``store+store`` for all attributes,
        ``attribute=store+store,…`` for each, or ``auto``, which tries all stores and their
        pairs on training rows. A store is ``backbone:view``, ``backbone`` for the view rgb,
        or the name of its file.
    objective : {"balanced", "unseen", "seen"}, optional
        What ``auto`` looks for: accuracy on combinations of classes that were not trained
        on, on those that were, or (default) their mean.
    calibrate : {"auto", "sigmoid", "isotonic", "temperature", "none"}
        How scores become probabilities; fitted out of fold on training rows. ``auto`` is
        temperature for exclusive classes, and sigmoid for labels of sets.
    thresholds : str, optional
        What the thresholds of labels in sets are chosen for, out of fold: ``f1``,
        ``precision=0.9`` or ``recall=0.8``; default: 0.5 each.
    variance_threshold : str, optional
        ``"1%"`` of the mean variance (default), or an absolute variance such as ``"0.01"``.
    tune : bool
        Choose penalty, variance threshold and scaling for each head on folds of the rows
        that it is fitted on; see `featurepipe.models.heads.tuning`.
    test_size, hold_out, repeats, group, seed
        Make a split, or find the same one again; if none is given, the
        workspace's first split serves. See `featurepipe.splits.SplitSettings`.
        `seed` (default 0) is also that of the heads.
    hold_out_each : bool
        Hold out in turn every combination whose classes occur in others too: a
        split for each, the same as `hold_out` of it gives.
    group_duplicates : bool
        Keep images that are nearly the same on one side of the split, by the first
        of the stores that can tell.
    allow_partial : bool
        Leave out images of which a store that is read has no features yet.
    curve : bool
        Fit on growing parts of the training rows too, and say whether more images would
        help; see `featurepipe.models.studies.learning_curve`. Takes about 15 times as long.
    attributes, labels, label_separator
        Relabel the images; see `featurepipe.manifest.read_manifest`.
    workspace : Path or str
    n_jobs : int
        Processor cores to use; -1: all.
    memory : str, optional
        What fitting may take besides the libraries and the manifest, such as ``4GB``. Where that
        is too little for all training features and the copies that fits make of them, they are
        read from the stores in chunks, of which bagged SGD makes several passes; see
        `featurepipe.models.heads.fit_memory.FitMemory`. Near-duplicates are then not looked for.
        Default: all in memory.

    Returns
    -------
    pandas.DataFrame
        One row per new run and attribute, and ``all``: ``run, backbone, view,
        split, attribute, n_train, selection_accuracy, fit_s``. Test figures are
        for `report`.

    Raises
    ------
    FeaturepipeError
        If anything given cannot be used; see `featurepipe.errors`.
    """
    if tune and variance_threshold is not None:
        raise UsageError(
            f"--tune and --variance-threshold {variance_threshold} contradict each other: --tune "
            "chooses the threshold. Give one of them."
        )
    if curve and memory is not None:
        raise UsageError(
            f"--curve and --memory {memory} contradict each other: a learning curve reads all "
            "features at once. Give one of them."
        )
    settings = HeadSettings.of(
        head=head,
        solver=solver,
        task=task,
        calibrate=calibrate,
        thresholds=thresholds,
        variance_threshold=variance_threshold or HeadSettings.variance_threshold,
        tune=tune,
        seed=seed or 0,
    )
    budget = None if memory is None else parse_memory(memory)
    place = Workspace(workspace)
    with place.writing():
        manifest = labelled_manifest(place, attributes, labels, group, label_separator)
        stores = _choose_stores(place, [backbone] if isinstance(backbone, str) else backbone)
        _require_one_feature_set(features, objective, task)
        caches = _read_caches(stores, features, manifest)
        digests = digests_in_all(caches, len(manifest), allow_partial=allow_partial)
        warn_of_imagenet_classes(manifest, [cache.key["weights"]["kind"] for cache in caches])
        asked = wanted_split(
            test_size, hold_out, hold_out_each, repeats, group, group_duplicates, seed
        )
        found = look_for_duplicates(manifest, caches, digests, budget, group_duplicates)
        splits = find_splits(place, manifest, digests, asked, hold_out_each, found)
        for split in splits:
            if found is not None:
                warn_of_near_duplicates(place, split, found)
        infos = [
            _fit_run(place, manifest, feature_set, split, settings, n_jobs, budget, curve)
            for split in splits
            for feature_set in _feature_sets(
                features, objective, caches, manifest, split, seed, n_jobs
            )
        ]
    return summary(infos)


def _choose_stores(place: Workspace, backbones: Sequence[str]) -> list[Path]:
    stores = place.stores()
    if not stores:
        raise WorkspaceError(
            f"The workspace {place.root} holds no features yet. Make some: featurepipe extract"
        )
    if not backbones:
        return stores
    wanted = {find_backbone(name).name for name in backbones}
    of_backbone: dict[str, list[Path]] = {}
    for path in stores:
        with FeatureStore.open(path) as store:
            of_backbone.setdefault(store.key["backbone"], []).append(path)
    for name in sorted(wanted - set(of_backbone)):
        raise UnknownNameError(
            "features of backbone",
            name,
            of_backbone,
            f"Make them: featurepipe extract --backbone {name}",
        )
    return [path for name in of_backbone if name in wanted for path in of_backbone[name]]


def _require_one_feature_set(features: str | None, objective: str | None, task: str) -> None:
    if objective and features != AUTO:
        raise UsageError(
            f"--objective {objective} says what --features auto looks for. Add --features auto, or "
            "leave it out."
        )
    if features and task != "per-attribute" and (features == AUTO or "=" in features):
        raise UsageError(
            f"--features {features} is a choice for each attribute, but --task {task} fits one "
            "head for all of them. Name the stores that it reads, such as --features "
            "mobilenet_v2:grey+hsv_histogram."
        )


def _read_caches(
    stores: Sequence[Path], features: str | None, manifest: Manifest
) -> Sequence[CachedFeatures]:
    """The stores that heads shall read, or choose among."""
    caches = open_caches(stores, manifest.ids.tolist())
    if features in (None, AUTO):
        return caches
    return named_feature_set(features, caches, manifest.attribute_names).caches


def _feature_sets(
    features: str | None,
    objective: str | None,
    caches: Sequence[CachedFeatures],
    manifest: Manifest,
    split: Split,
    seed: int | None,
    n_jobs: int,
) -> list[FeatureSet]:
    """What heads shall read; each feature_set gives a run."""
    attributes = manifest.attribute_names
    if features is None:
        return [one_store_set(cache, attributes) for cache in caches]
    if features != AUTO:
        return [named_feature_set(features, caches, attributes)]
    _require_rows(caches, split)
    train = split.rows("train")
    ids = split.ids[train]
    return [
        chosen_feature_set(
            caches,
            ids,
            manifest.labels(ids),
            split.groups[train],
            objective=objective or OBJECTIVES[0],
            seed=seed or 0,
            n_jobs=n_jobs,
        )
    ]


def _fit_run(
    place: Workspace,
    manifest: Manifest,
    feature_set: FeatureSet,
    split: Split,
    settings: HeadSettings,
    n_jobs: int,
    budget: int | None,
    curve: bool,
) -> dict[str, Any]:
    """Fit and save; what the run is."""
    info, model, predictions, selection = fit_once(
        manifest, feature_set, split, settings, n_jobs, budget
    )
    info |= input_facts(feature_set, split)
    files = {INPUTS: inputs_table(feature_set, split)}
    if curve:
        facts, files[CURVE] = curve_of(manifest, feature_set, split, settings, n_jobs)
        info |= facts
    save_run(place.run(info["run"]), info, model, predictions, selection, files)
    return info


def fit_once(
    manifest: Manifest,
    feature_set: FeatureSet,
    split: Split,
    settings: HeadSettings,
    n_jobs: int,
    budget: int | None = None,
) -> tuple[dict[str, Any], HeadModel, Predictions, Predictions]:
    """Fit, and predict the test rows once.

    Returns
    -------
    info, model, predictions, selection
        As `featurepipe.runs.run_folder.save_run` takes them.
    """
    _require_rows(feature_set.caches, split)
    train = split.rows("train")
    needed = _needed_memory(manifest, feature_set, split, settings)
    if budget is None:
        chunk_rows = None
        _warn_of_memory(needed, n_jobs)
    else:
        chunk_rows = plan_chunks(settings, needed, budget)
        n_jobs = min(effective_n_jobs(n_jobs), needed.fits_within(budget) or n_jobs)
    names = run_names(
        f"{feature_set.title}-{settings.head}",
        "" if settings.task == "per-attribute" else settings.task,
        {"run": feature_set.reads, "family": feature_set.asked_for},
        [
            json.dumps(asdict(settings), sort_keys=True),
            *([] if chunk_rows is None else [f"in chunks of {chunk_rows}"]),
        ],
        split,
        manifest,
    )
    name = names["run"]
    started = time.perf_counter()
    model, out_of_fold, uncalibrated = _fit_heads(
        name, manifest, feature_set, split, settings, n_jobs, chunk_rows
    )
    fit_s = time.perf_counter() - started
    for attribute, tuned in model.tuned.items():
        logger.info("Tuned %s of %s: %s.", attribute, name, describe_tuned(tuned))
    tested = np.concatenate([split.rows("test"), split.rows("unseen")])
    reader = feature_set.of(split.ids[tested])
    scores, p_values, head_s = RowChunks(reader, chunk_rows or len(reader)).predict(model)
    head_ms = 1000 * head_s / len(reader)
    selection = predictions_of(manifest, split, train, model, out_of_fold)
    raw = predictions_of(manifest, split, train, model, uncalibrated)
    info = {
        **names,
        **_provenance(feature_set, split, settings),
        "attributes": list(manifest.attribute_names),
        "n_train": n_labelled(selection.labels, settings.task),
        "selection_accuracy": accuracies(selection),
        "reliability": {"uncalibrated": reliability(raw), "calibrated": reliability(selection)},
        "extract_images_per_s": feature_set.images_per_s,
        "memory_bytes": budget,
        "chunk_rows": chunk_rows,
        "fit_s": fit_s,
        "predict_ms_per_image": head_ms + 1000 / feature_set.images_per_s,
    }
    if settings.tune:
        info["tuned"] = model.tuned
    predictions = predictions_of(manifest, split, tested, model, scores, p_values)
    return info, model, predictions, selection


def _fit_heads(
    title: str,
    manifest: Manifest,
    feature_set: FeatureSet,
    split: Split,
    settings: HeadSettings,
    n_jobs: int,
    chunk_rows: int | None,
) -> FittedHeads:
    train = split.rows("train")
    ids = split.ids[train]
    with ExitStack() as stack:
        bar: list[Progress] = []

        def advance(n_done: int, n_total: int) -> None:
            # How many there are is known once the first is done.
            if not bar:
                unit = "fit" if chunk_rows is None else "chunk"
                bar.append(stack.enter_context(Progress(n_total, title, unit)))
            bar[0].advance()

        labels, groups = manifest.labels(ids), split.groups[train]
        how = {"columns": feature_set.columns, "n_jobs": n_jobs, "progress": advance}
        if chunk_rows is None:
            return fit_heads(feature_set.read(ids), labels, groups, settings, **how)
        rows = RowChunks(feature_set.of(ids), chunk_rows)
        return stream_heads(rows, labels, groups, settings, **how)


def _needed_memory(
    manifest: Manifest, feature_set: FeatureSet, split: Split, settings: HeadSettings
) -> FitMemory:
    train = feature_set.of(split.ids[split.rows("train")])
    labels = manifest.labels(train.ids)
    return FitMemory.of(labels, train.n_features, settings.task, settings.n_folds)


def _warn_of_memory(needed: FitMemory, n_jobs: int) -> None:
    bytes_, available = needed.in_memory(effective_n_jobs(n_jobs)), available_memory()
    if bytes_ > available / 2:
        logger.warning(
            "Fitting may take %s of the %s of memory that are available. --memory SIZE bounds it: "
            "bagged SGD then reads features in chunks where they are too many.",
            in_words(bytes_),
            in_words(available),
        )


def _require_rows(caches: Sequence[CachedFeatures], split: Split) -> None:
    for cache in caches:
        missing = [image_id for image_id in split.ids if image_id not in cache.row_of]
        if missing:
            raise FitError(
                f"{cache.path} has no features of {len(missing)} of the {len(split.ids)} images of "
                f"the split {split.name}, such as {missing[0]!r}, which another store has. Extract "
                "again with --retry-refused."
            )


def _provenance(feature_set: FeatureSet, split: Split, settings: HeadSettings) -> dict[str, Any]:
    return {
        **feature_set.facts(),
        "head": settings.head,
        "task": settings.task,
        "settings": asdict(settings),
        "split": split.name,
        "split_number": split.number,
        "series": split.series,
        "versions": library_versions("numpy", "numba", "scipy", "scikit-learn", "skops"),
        "machine": machine(),
    }
