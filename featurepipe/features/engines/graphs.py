"""Backbones as OpenVINO graphs: converted once, then kept in the user's cache.

Whatever Keras computes with, TensorFlow converts: graphs that come by way of
PyTorch, or of Keras' own OpenVINO backend, compute the same at a third of the
speed, since they turn the axes of every map, and JAX's cannot be converted at
all. As a process cannot change its backend, TensorFlow then has one of its own.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

from featurepipe.errors import ExtractionError, FeaturepipeError, UsageError, WeightsError
from featurepipe.features.backbones import BackboneSpec
from featurepipe.features.engines.caching import cached_file
from featurepipe.features.weights import Weights
from featurepipe.files import replacing

logger = logging.getLogger(__name__)

_FORMAT = 2
_CONVERSION = "featurepipe.features.engines.conversion"


def graph_file(backbone: BackboneSpec, weights: Weights, *, size: int, pooling: str) -> Path:
    """The graph of a backbone for OpenVINO, from the user's cache or put there now.

    uint8 pixels go in, float32 features come out; the batch is left open.

    Parameters
    ----------
    backbone : BackboneSpec
    weights : Weights
    size : int
        Side of the square input, in pixels.
    pooling : str
        ``"avg"``, ``"max"``, or the name of a layer.

    Returns
    -------
    Path
        An `.xml` file; its weights lie beside it as `.bin`.

    Raises
    ------
    UsageError, WeightsError
        As `keras_engine.build_graph`.
    ExtractionError
        If it cannot be converted.
    """
    made_by = {"format": _FORMAT, "openvino": version("openvino")}
    graph = cached_file(
        "graphs", ".xml", backbone, weights, size=size, pooling=pooling, made_by=made_by
    )
    if not graph.exists():
        logger.info("Converting %s for OpenVINO, this once …", backbone.name)
        _convert(backbone, weights, size, pooling, graph)
    return graph


def _convert(
    backbone: BackboneSpec, weights: Weights, size: int, pooling: str, graph: Path
) -> None:
    # The only place where the OpenVINO engine needs Keras.
    from featurepipe.features.engines import keras_engine

    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder, "graph.xml")
        if keras_engine.backend() == "tensorflow":
            keras_engine.export_graph(backbone, weights, size, pooling, exported)
        else:
            if weights.kind == "random":
                # Each backend draws other numbers; a Keras engine of this process has these.
                path = Path(folder, "random.weights.h5")
                keras_engine.save_weights(backbone, weights, size, path)
                weights = replace(weights, kind="file", path=path)
            _convert_elsewhere(backbone, weights, size, pooling, exported)
        # The graph's file comes last: where it is, its weights are.
        for suffix in (".bin", ".xml"):
            with replacing(graph.with_suffix(suffix)) as beside:
                shutil.copyfile(exported.with_suffix(suffix), beside)


def _convert_elsewhere(
    backbone: BackboneSpec, weights: Weights, size: int, pooling: str, exported: Path
) -> None:
    task = {
        "backbone": backbone.name,
        "weights": asdict(weights) | {"path": str(weights.path)},
        "size": size,
        "pooling": pooling,
        "exported": str(exported),
    }
    done = subprocess.run(
        [sys.executable, "-m", _CONVERSION, json.dumps(task)],
        env=os.environ | {"KERAS_BACKEND": "tensorflow"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode != 0:
        raise _error_of(done, backbone)


def _error_of(done: "subprocess.CompletedProcess[str]", backbone: BackboneSpec) -> FeaturepipeError:
    """What the other process raised, as far as it was raised on purpose."""
    last_line = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    name, _, text = last_line.partition(": ")
    kinds = {kind.__name__: kind for kind in (UsageError, WeightsError)}
    if name in kinds:
        return kinds[name](text)
    return ExtractionError(
        f"{backbone.name} could not be converted for OpenVINO ({last_line[:200]}). Give "
        "--engine keras."
    )
