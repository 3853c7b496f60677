"""A trained network as a run: its name, its answers, and what is to be saved."""

import logging
import math
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from featurepipe.models.networks.material import Material
from featurepipe.models.networks.network_heads import finish_network
from featurepipe.models.networks.saved import NETWORK_FILE
from featurepipe.predictions import ALL
from featurepipe.provenance import library_versions, machine
from featurepipe.reports.board import Costs
from featurepipe.reports.figures import accuracies, reliability
from featurepipe.runs.fitted_on import split_facts
from featurepipe.runs.naming import Digests, digests_of
from featurepipe.runs.run_facts import Calibration, NetworkShape, PixelInput, StartingNetwork
from featurepipe.runs.run_folder import NewRun
from featurepipe.runs.run_info import NetworkRunInfo
from featurepipe.runs.split_predictions import n_labelled, predictions_of

if TYPE_CHECKING:
    from featurepipe.models.networks.network import Network
    from featurepipe.models.networks.training_loop import Training

logger = logging.getLogger(__name__)

HISTORY = "history.csv"
LIBRARIES = ("numpy", "scipy", "scikit-learn", "skops")
"""Distributions that decide a run, beside Keras and its backend."""


# One BLAS thread, so that answers do not depend on the number of cores; PyTorch keeps its own.
@threadpool_limits.wrap(limits=1, user_api="blas")
def new_run(
    material: Material,
    network: "Network",
    training: "Training",
    name: str,
    digests: Digests,
    scratch: Path,
) -> NewRun:
    """Let a trained network answer.

    Parameters
    ----------
    material : Material
    network : Network
        Trained.
    training : Training
    name : str
        Name of the run.
    digests : Digests
    scratch : Path
        A folder, into which the network is saved.

    Returns
    -------
    NewRun
        What is to be saved.
    """
    split, validation = material.split, material.train[material.validation]
    rows, _ = _read(material, network, validation, training.batch_size)
    fitted = finish_network(material, network, rows, training)
    tested = np.concatenate([split.rows("test"), split.rows("unseen")])
    answers, read_s = _read(material, network, tested, training.batch_size)
    scores = fitted.model.predict(answers)
    labels = material.manifest.labels(split.ids[validation])
    selection = predictions_of(labels, split, validation, fitted.model, fitted.out_of_fold)
    raw = replace(selection, scores=fitted.uncalibrated)
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
            material.manifest.labels(split.ids[tested]), split, tested, fitted.model, scores,
            fitted.model.p_values(answers, scores),
        ),
        selection=selection,
        files={NETWORK_FILE: model_file, **_curves(training.history, name)},
    )  # fmt: skip


def _read(
    material: Material, network: "Network", rows: NDArray[np.intp], batch_size: int
) -> tuple[NDArray[np.float32], float]:
    """Scores and embeddings of some images of the split, and the seconds to compute them."""
    ids = material.split.ids[rows]
    started = time.perf_counter()
    vectors = network.score_and_embed_in_batches(
        lambda positions: material.pixels.read(ids[positions]), len(ids), batch_size
    )
    return vectors, time.perf_counter() - started


def _curves(history: pd.DataFrame, title: str) -> dict[str, bytes]:
    # Matplotlib takes a second to import, and only networks need it.
    from featurepipe.reports.plots import plot_training

    shown = history.drop(columns=["attributes_loss", "stage_number"])
    table = shown.to_csv(index=False, float_format="%.6g").encode()
    return {HISTORY: table, **plot_training(shown, title)}


def title_of(material: Material) -> str:
    """The name of a run, without a number.

    Parameters
    ----------
    material : Material
    """
    settings, headless = material.settings, material.headless
    backbone = [] if headless is None else [headless.backbone.name]
    task = [] if settings.task == settings.spec.task else [settings.task]
    return "-".join([*backbone, settings.network, *task])


def digests_of_training(material: Material) -> Digests:
    """Digests of everything that decides a run.

    Parameters
    ----------
    material : Material
    """
    headless, pixels = material.headless, material.pixels
    shared = [None if headless is None else headless.identity(), pixels.key.as_dict()]
    settings = asdict(material.settings)
    return digests_of(
        [*shared, material.pixels_sha256, settings],
        [*shared, settings],
        material.split,
        material.manifest,
    )


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
        "versions": library_versions(*LIBRARIES) | network.library_versions,
        "machine": machine(),
    }


def _same(network: "Network") -> tuple[float, float] | None:
    if network.same is None:
        return None
    kernel, bias = network.same.get_weights()
    return float(kernel[0, 0]), float(bias[0])
