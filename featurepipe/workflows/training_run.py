"""One network trained on one split: from images to a saved run."""

import hashlib
import json
import logging
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurepipe.errors import FitError
from featurepipe.features.extraction.pixel_cache import PixelCache
from featurepipe.features.headless import HeadlessNetwork
from featurepipe.manifest import Manifest
from featurepipe.models.answers.finishing import FittedHeads
from featurepipe.models.networks.building import build_network, fresh_keras
from featurepipe.models.networks.checkpoints import CheckpointFolder
from featurepipe.models.networks.logistic_start import logistic_top
from featurepipe.models.networks.network_heads import embedding_columns, finish_network
from featurepipe.models.networks.network_settings import NetworkSettings
from featurepipe.models.networks.saved import NETWORK_FILE
from featurepipe.predictions import ALL
from featurepipe.provenance import library_versions, machine
from featurepipe.reports.figures import accuracies, reliability
from featurepipe.runs.fitted_on import split_facts
from featurepipe.runs.run_folder import load_run, save_run
from featurepipe.splits import Split
from featurepipe.workflows.material import Material, Rows
from featurepipe.workflows.runs import n_labelled, predictions_of, run_names
from featurepipe.workflows.starting import cached_features
from featurepipe.workspace import Workspace

if TYPE_CHECKING:
    from featurepipe.models.networks.network import Network
    from featurepipe.models.networks.training_loop import Training

logger = logging.getLogger(__name__)

HISTORY = "history.csv"


def train_run(
    place: Workspace,
    manifest: Manifest,
    pixels: PixelCache,
    split: Split,
    settings: NetworkSettings,
    headless: HeadlessNetwork | None,
    *,
    resume: bool,
) -> dict[str, Any]:
    """Train and save, unless that was done before.

    Parameters
    ----------
    place, manifest, pixels, split, settings, headless
        See `Material`.
    resume : bool
        As in `featurepipe.train`.

    Returns
    -------
    dict
        What the run is.

    Raises
    ------
    FitError, RunError, UsageError
        As `featurepipe.models.networks.training_loop.train_network` and the checks before it.
    KeyboardInterrupt
        If interrupted; after an epoch is complete, the run is saved first.
    """
    material = Material.of(manifest, pixels, split, settings, headless)
    names = _names(material)
    folder = place.run(names["run"])
    if resume and (folder / "run.json").exists():
        kept = load_run(folder).info
        if kept["ended_by"] != "interrupt":
            logger.info("Run %s is complete; --no-resume trains it again.", folder.name)
            return kept
    with fresh_keras():
        network = build_network(settings, material.outputs, headless)
        checkpoints = CheckpointFolder(
            folder.with_name(f".{folder.name}.training"), _plan(material, network)
        )
        if not resume:
            shutil.rmtree(checkpoints.folder, ignore_errors=True)
        logger.info(
            "Training %s: %d images, %d of them to validate; %s parameters%s.",
            folder.name,
            len(material.train),
            len(material.validation),
            f"{network.n_parameters:,}",
            "; going on from the last checkpoint" if checkpoints.exists else "",
        )
        training = _train(place, material, network, checkpoints, resume=resume)
        info = _save(folder, names, material, network, training, checkpoints.folder)
    if training.ended_by == "interrupt":
        raise KeyboardInterrupt
    shutil.rmtree(checkpoints.folder, ignore_errors=True)
    return info


def _train(
    place: Workspace,
    material: Material,
    network: "Network",
    checkpoints: CheckpointFolder,
    *,
    resume: bool,
) -> "Training":
    from featurepipe.models.networks.training_loop import train_network

    settings, fitted, features = material.settings, material.fitted, None
    if material.headless is not None:
        ids = material.split.ids[material.train]
        features = cached_features(place, material.headless, ids)
        goes_on = resume and checkpoints.exists
        if features is not None and not goes_on:
            _begin_from_logistic(material, network, features[fitted])
        if features is None and not settings.augments:
            rows = network.read_in_batches(
                lambda places: material.pixels.read(ids[places]), len(ids), settings.batch_size
            )
            features = rows[:, network.outputs[-1].columns.stop :]
    return train_network(
        network,
        material.part(fitted, features),
        material.part(material.validation, features),
        settings,
        checkpoints,
        resume=resume,
    )


def _begin_from_logistic(
    material: Material, network: "Network", features: NDArray[np.float32]
) -> None:
    fitted = material.fitted
    labels = {name: each.take(fitted) for name, each in material.labels.items()}
    groups = material.split.groups[material.train][fitted]
    try:
        tops = logistic_top(features, labels, groups, network.outputs, material.settings.seed)
    except FitError as error:
        # Without the validation images, a class may have too few for what a network can learn from.
        logger.info("The top begins from random weights: %s", error)
        return
    logger.info("The top begins from a logistic regression on cached features.")
    network.set_top(tops)


def _save(
    folder: Path,
    names: dict[str, str],
    material: Material,
    network: "Network",
    training: "Training",
    scratch: Path,
) -> dict[str, Any]:
    """Let the trained network answer, and write everything; what the run is."""
    split, validation = material.split, material.train[material.validation]
    rows, _ = _read(material, network, validation, training.batch_size)
    fitted = _finish(material, network, rows, training)
    tested = np.concatenate([split.rows("test"), split.rows("unseen")])
    answers, read_s = _read(material, network, tested, training.batch_size)
    scores = fitted.model.predict(answers)
    selection = predictions_of(
        material.manifest, split, validation, fitted.model, fitted.out_of_fold
    )
    raw = predictions_of(material.manifest, split, validation, fitted.model, fitted.uncalibrated)
    decode_s = 0.0 if math.isnan(material.pixels.images_per_s) else 1 / material.pixels.images_per_s
    info = {
        **names,
        **_provenance(material, network, training),
        "selection_accuracy": accuracies(selection),
        "reliability": {"uncalibrated": reliability(raw), "calibrated": reliability(selection)},
        "predict_ms_per_image": 1000 * (read_s / len(tested) + decode_s),
    }
    model_file = scratch / NETWORK_FILE
    network.model.save(model_file)
    save_run(
        folder,
        info,
        fitted.model,
        predictions_of(
            material.manifest, split, tested, fitted.model, scores,
            fitted.model.p_values(answers, scores),
        ),
        selection,
        {NETWORK_FILE: model_file, **_curves(training.history, folder.name)},
    )  # fmt: skip
    return info


def _read(
    material: Material, network: "Network", rows: Rows, batch_size: int
) -> tuple[NDArray[np.float32], float]:
    """Scores and embeddings of some of the split's images, and the seconds that took."""
    ids = material.split.ids[rows]
    started = time.perf_counter()
    read = network.read_in_batches(
        lambda places: material.pixels.read(ids[places]), len(ids), batch_size
    )
    return read, time.perf_counter() - started


def _finish(
    material: Material, network: "Network", rows: NDArray[np.float32], training: "Training"
) -> FittedHeads:
    columns = embedding_columns(network.outputs, network.embedding_widths)
    # One head over all labels reads every embedding once.
    everything = tuple(dict.fromkeys(block for blocks in columns.values() for block in blocks))
    questions = [
        replace(question, columns=columns.get(question.name, everything))
        for question in material.questions
    ]
    validation = material.validation
    return finish_network(
        rows,
        training.scores,
        network.outputs,
        questions,
        validation,
        material.targets.take(validation),
        {name: each.take(validation) for name, each in material.labels.items()},
        material.split.groups[material.train][validation],
        material.settings,
    )


def _curves(history: pd.DataFrame, title: str) -> dict[str, bytes]:
    # matplotlib takes a second to import, and heads have no use for it.
    from featurepipe.reports.plots import plot_training

    shown = history.drop(columns=["attributes_loss", "stage_number"])
    table = shown.to_csv(index=False, float_format="%.6g").encode()
    return {HISTORY: table, **plot_training(shown, title)}


def _names(material: Material) -> dict[str, str]:
    settings, headless = material.settings, material.headless
    begins = None if headless is None else headless.identity()
    pixel_key = material.pixels.key.as_dict()
    reads = [begins, pixel_key, material.pixels_sha256]
    title = settings.network if headless is None else f"{headless.backbone.name}-{settings.network}"
    task = "" if settings.task == settings.spec.task else settings.task
    decides = [json.dumps(asdict(settings), sort_keys=True)]
    return run_names(
        title, task, {"run": reads, "family": [begins, pixel_key]}, decides,
        material.split, material.manifest,
    )  # fmt: skip


def _plan(material: Material, network: "Network") -> dict[str, Any]:
    """What a checkpoint must be of, so that a training can go on from it."""
    shapes = [tuple(variable.shape) for variable in network.variables]
    return {
        "network": material.settings.network,
        "classes": {name: list(each.classes) for name, each in material.labels.items()},
        "weights": hashlib.sha256(repr(shapes).encode()).hexdigest(),
    }


def _provenance(material: Material, network: "Network", training: "Training") -> dict[str, Any]:
    settings, headless, labels = material.settings, material.headless, material.labels
    history = training.history
    every = [*labels, ALL]
    views = {name: settings.branch_of(name) if settings.spec.branches else "rgb" for name in labels}
    return {
        "head": settings.network,
        "task": settings.task,
        "settings": asdict(settings),
        "backbone": dict.fromkeys(every, "" if headless is None else headless.backbone.name),
        "view": {**views, ALL: "+".join(dict.fromkeys(views.values()))},
        "weights": dict.fromkeys(every, "none" if headless is None else headless.weights.label),
        "begins_from": None
        if headless is None
        else {**headless.identity(), "weights_source": headless.weights.source},
        "network": {
            "size_px": material.pixels.size_px,
            "outputs": {output.layer: output.n_classes for output in network.outputs},
            "same": _same(network),
        },
        "split": material.split.name,
        "split_number": material.split.number,
        "series": material.split.series,
        **split_facts(material.split),
        "pixels": {
            "recipe": material.pixels.key.as_dict(),
            "sha256": material.pixels_sha256,
        },
        "attributes": list(labels),
        "n_train": n_labelled(labels, settings.task),
        "n_validation": len(material.validation),
        "fit_s": training.seconds,
        "epochs": len(history),
        "best_epoch": int(history["epoch"][history["best"]].iloc[0]),
        "n_parameters": network.n_parameters,
        "peak_memory_bytes": training.peak_bytes,
        "batch_size": training.batch_size,
        "ended_by": training.ended_by,
        "versions": library_versions("numpy", "scipy", "scikit-learn", "skops")
        | network.library_versions,
        "machine": machine(),
    }


def _same(network: "Network") -> Sequence[float] | None:
    if network.same is None:
        return None
    kernel, bias = network.same.get_weights()
    return [float(kernel[0, 0]), float(bias[0])]
