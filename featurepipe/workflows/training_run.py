"""One network trained on one split: from images to a saved run."""

import hashlib
import logging
import math
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurepipe.errors import FitError, RunError
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
from featurepipe.reports.board import Costs
from featurepipe.reports.figures import accuracies, reliability
from featurepipe.runs.fitted_on import split_facts
from featurepipe.runs.naming import Digests, digests_of, reserve_name
from featurepipe.runs.run_facts import Calibration, NetworkShape, PixelInput, StartingNetwork
from featurepipe.runs.run_folder import NewRun, Run, load_run, save_run
from featurepipe.runs.run_info import NetworkRunInfo
from featurepipe.runs.split_predictions import n_labelled, predictions_of
from featurepipe.splits import Split
from featurepipe.workflows.material import Material, Rows
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
) -> Run:
    """Train and save, unless that was done before.

    Parameters
    ----------
    place, manifest, pixels, split, settings, headless
        See `Material`.
    resume : bool
        As in `featurepipe.train`.

    Returns
    -------
    Run

    Raises
    ------
    FitError, RunError, UsageError
        As `featurepipe.models.networks.training_loop.train_network` and the checks before it.
    KeyboardInterrupt
        If interrupted; after an epoch is complete, the run is saved first.
    """
    material = Material.of(manifest, pixels, split, settings, headless)
    digests = _digests(material)
    folder = place.run(reserve_name(place, _title(material), digests.run))
    kept = _complete_run(folder) if resume else None
    if kept is not None:
        logger.info("Run %s is complete; --no-resume trains it again.", kept.name)
        return kept
    with fresh_keras():
        network = build_network(settings, material.outputs, headless)
        checkpoints = CheckpointFolder(place.training(digests.run), _plan(material, network))
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
        new = _new_run(folder.name, digests, material, network, training, checkpoints.folder)
        run = save_run(folder, new)
    if training.ended_by == "interrupt":
        raise KeyboardInterrupt
    shutil.rmtree(checkpoints.folder, ignore_errors=True)
    return run


def _complete_run(folder: Path) -> Run | None:
    """The run that is there, unless its training was interrupted or it is damaged."""
    if not folder.exists():
        return None
    try:
        run = load_run(folder)
    except RunError as error:
        logger.warning("%s", error)
        return None
    is_complete = isinstance(run.info, NetworkRunInfo) and run.info.ended_by != "interrupt"
    return run if is_complete else None


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


def _new_run(
    name: str,
    digests: Digests,
    material: Material,
    network: "Network",
    training: "Training",
    scratch: Path,
) -> NewRun:
    """Let the trained network answer; what is to be saved."""
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
    costs = Costs(
        extract_images_per_s=None,
        fit_s=training.seconds,
        predict_ms_per_image=1000 * (read_s / len(tested) + decode_s),
        n_parameters=network.n_parameters,
        epochs=len(training.history),
        peak_memory_bytes=training.peak_bytes,
    )
    model_file = scratch / NETWORK_FILE
    network.model.save(model_file)
    return NewRun(
        info=NetworkRunInfo(
            digest=digests.run,
            family=digests.family,
            **_provenance(material, network, training),
            selection_accuracy=accuracies(selection),
            reliability=Calibration.model_validate(
                {"uncalibrated": reliability(raw), "calibrated": reliability(selection)}
            ),
            costs=costs,
        ),
        model=fitted.model,
        predictions=predictions_of(
            material.manifest, split, tested, fitted.model, scores,
            fitted.model.p_values(answers, scores),
        ),
        selection=selection,
        files={NETWORK_FILE: model_file, **_curves(training.history, name)},
    )  # fmt: skip


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


def _title(material: Material) -> str:
    settings, headless = material.settings, material.headless
    backbone = [] if headless is None else [headless.backbone.name]
    task = [] if settings.task == settings.spec.task else [settings.task]
    return "-".join([*backbone, settings.network, *task])


def _digests(material: Material) -> Digests:
    headless, pixels = material.headless, material.pixels
    shared = [None if headless is None else headless.identity(), pixels.key]
    inputs = [*shared, material.pixels_sha256]
    settings = asdict(material.settings)
    return digests_of(inputs, shared, settings, material.split, material.manifest)


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
        "settings": settings,
        "backbone": dict.fromkeys(every, "" if headless is None else headless.backbone.name),
        "view": {**views, ALL: "+".join(dict.fromkeys(views.values()))},
        "weights": dict.fromkeys(every, "none" if headless is None else headless.weights.label),
        "begins_from": None
        if headless is None
        else StartingNetwork(**headless.identity(), weights_source=headless.weights.source),
        "network": NetworkShape(
            size_px=material.pixels.size_px,
            outputs={output.layer: output.n_classes for output in network.outputs},
            same=_same(network),
        ),
        "split": split_facts(material.split),
        "pixels": PixelInput(recipe=material.pixels.key, sha256=material.pixels_sha256),
        "attributes": tuple(labels),
        "n_train": n_labelled(labels, settings.task),
        "n_validation": len(material.validation),
        "best_epoch": int(history["epoch"][history["best"]].iloc[0]),
        "batch_size": training.batch_size,
        "ended_by": training.ended_by,
        "versions": library_versions("numpy", "scipy", "scikit-learn", "skops")
        | network.library_versions,
        "machine": machine(),
    }


def _same(network: "Network") -> tuple[float, float] | None:
    if network.same is None:
        return None
    kernel, bias = network.same.get_weights()
    return float(kernel[0, 0]), float(bias[0])
