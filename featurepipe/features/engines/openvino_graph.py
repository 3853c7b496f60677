"""Backbones as OpenVINO graphs: converted once, then kept in the user's cache.

The graph in int8 is made from that in float32, and kept beside it.

TensorFlow always does the conversion, whatever the backend of Keras: graphs from
PyTorch, or from Keras' own OpenVINO backend, run at a third of the speed, since they
transpose every feature map, and those of JAX cannot be converted. As a process cannot
change its backend, TensorFlow then runs in a separate process.
"""

import importlib.util
import logging
import shutil
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from featurepipe.errors import NotReadableError, UsageError
from featurepipe.features.engines.conversion_process import run_conversion
from featurepipe.features.engines.engine_choice import import_keras_engine
from featurepipe.features.headless import HeadlessNetwork
from featurepipe.features.weights import MAX_WEIGHTS_BYTES
from featurepipe.files import read_file, replacing, require_readable
from featurepipe.words import counted

logger = logging.getLogger(__name__)

_FORMAT = 3
# Another number whenever the calibration or its pictures change.
_INT8_FORMAT = 1
_CHECKSUM = ".crc32"
_CHECKSUM_BYTES = 100


def graph_file(network: HeadlessNetwork, precision: str = "float32") -> Path:
    """The graph of a network for OpenVINO; converted now if the user's cache has no sound one.

    Its input is uint8 pixels, its output float32 features; the batch size is variable.

    Parameters
    ----------
    network : HeadlessNetwork
    precision : str
        ``"int8"`` has a graph of its own; all others share one.

    Returns
    -------
    Path
        An `.xml` file; its weights are beside it as `.bin`.

    Raises
    ------
    UsageError, WeightsError
        As `keras_engine.build_graph`; also if int8 needs NNCF and it is not installed.
    ExtractionError
        If it cannot be converted.
    """
    made_by = {"format": _FORMAT, "openvino": version("openvino")}
    is_int8 = precision == "int8"
    if is_int8:
        # Not by the version of NNCF, so that a graph is found where NNCF is not installed.
        made_by["int8"] = _INT8_FORMAT
    graph = network.cache_file("graphs", ".xml", made_by=made_by)
    name = network.backbone.name
    if graph.exists():
        if _is_sound(graph):
            return graph
        logger.warning("The graph of %s in the cache is damaged: converting it again …", name)
    if is_int8:
        _require_nncf(name)
        float_graph = graph_file(network)
        logger.info("Converting %s to int8; the graph is kept in the cache …", name)
        _keep(graph, lambda exported: _quantise(name, float_graph, exported))
    else:
        logger.info("Converting %s for OpenVINO; the graph is kept in the cache …", name)
        _keep(graph, lambda exported: _convert(network, exported))
    return graph


def _require_nncf(name: str) -> None:
    if importlib.util.find_spec("nncf") is None:
        raise UsageError(
            f"{name} in int8 is not in the cache yet, and NNCF, which converts it, is not "
            "installed. Run: pip install 'featurepipe[int8]'. Or use another --precision."
        )


def _is_sound(graph: Path) -> bool:
    """Whether graph and weights are those that were written."""
    try:
        kept = read_file(graph.with_suffix(_CHECKSUM), _CHECKSUM_BYTES)
        return kept.decode() == _checksum(graph)
    except (OSError, ValueError, NotReadableError):
        return False


def _checksum(graph: Path) -> str:
    crc32 = 0
    for path in (graph, graph.with_suffix(".bin")):
        require_readable(path, MAX_WEIGHTS_BYTES)
        with path.open("rb") as file:
            while chunk := file.read(2**20):
                crc32 = zlib.crc32(chunk, crc32)
    return f"{crc32:08x}"


def _keep(graph: Path, make: Callable[[Path], None]) -> None:
    """Make a graph, and move it with its weights and checksum into the cache."""
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder, "graph.xml")
        make(exported)
        # The graph comes last, so that its weights are there whenever it is.
        exported.with_suffix(_CHECKSUM).write_text(_checksum(exported))
        for suffix in (".bin", _CHECKSUM, ".xml"):
            with replacing(graph.with_suffix(suffix)) as beside:
                shutil.copyfile(exported.with_suffix(suffix), beside)


def _convert(network: HeadlessNetwork, exported: Path) -> None:
    if network.graph is None:
        _convert_keras(network, exported)
    else:
        _convert_file(network, exported)


def _convert_keras(network: HeadlessNetwork, exported: Path) -> None:
    # The only place where the OpenVINO engine needs Keras.
    keras_engine = import_keras_engine()
    if keras_engine.backend() == "tensorflow":
        keras_engine.export_graph(network, exported)
        return
    if network.weights.kind == "random":
        # Each backend draws different numbers; these are those of this process.
        path = exported.with_name("random.weights.h5")
        keras_engine.save_weights(network, path)
        drawn = replace(network.weights, kind="file", path=path)
        network = replace(network, weights=drawn)
    _convert_elsewhere(network, exported)


def _convert_elsewhere(network: HeadlessNetwork, exported: Path) -> None:
    weights = network.weights
    run_conversion(
        "convert_keras",
        network.backbone.name,
        "Use --engine keras.",
        backbone=network.backbone.name,
        weights=asdict(weights) | {"path": str(weights.path)},
        size_px=network.size_px,
        pooling=network.pooling,
        exported=str(exported),
    )


def _convert_file(network: HeadlessNetwork, exported: Path) -> None:
    graph, weights = network.graph, network.weights
    assert graph is not None
    how: dict[str, Any] = {
        "exported": str(exported),
        "size_px": network.size_px,
        "pooling": network.pooling,
        "normalisation": graph.normalisation.text,
        "prefix_tokens": graph.prefix_tokens,
    }
    if weights.kind == "preset":
        advice = "Choose another preset, or export the network to a file."
        how |= {"source": weights.preset, "sha256": weights.sha256}
        run_conversion("convert_preset", weights.preset, advice, **how)
        return
    assert weights.path is not None
    run_conversion(
        "convert_file",
        weights.path.name,
        "Export it again, with a smaller opset or without a part that is not needed.",
        path=str(weights.path.absolute()),
        output=graph.output,
        **how,
    )


def _quantise(name: str, graph: Path, exported: Path) -> None:
    n_float = run_conversion(
        "quantise", name, "Use another --precision.", graph=str(graph), exported=str(exported)
    )
    if n_float:
        logger.info(
            "%s of %s stay in float32, since int8 would move the features too far.",
            counted(n_float, "layer"),
            name,
        )
