"""Backbones as OpenVINO graphs: converted once, then kept in the user's cache.

TensorFlow always does the conversion, whatever the backend of Keras: graphs from
PyTorch, or from Keras' own OpenVINO backend, run at a third of the speed, since they
transpose every feature map, and those of JAX cannot be converted. As a process cannot
change its backend, TensorFlow then runs in a separate process.
"""

import logging
import shutil
import tempfile
import zlib
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from featurepipe.errors import NotReadableError
from featurepipe.features.engines.conversion_process import run_conversion
from featurepipe.features.engines.engine_choice import import_keras_engine
from featurepipe.features.headless import HeadlessNetwork
from featurepipe.features.weights import MAX_WEIGHTS_BYTES
from featurepipe.files import read_file, replacing, require_readable

logger = logging.getLogger(__name__)

_FORMAT = 3
_CHECKSUM = ".crc32"
_CHECKSUM_BYTES = 100


def graph_file(network: HeadlessNetwork) -> Path:
    """The graph of a network for OpenVINO; converted now if the user's cache has no sound one.

    Its input is uint8 pixels, its output float32 features; the batch size is variable.

    Parameters
    ----------
    network : HeadlessNetwork

    Returns
    -------
    Path
        An `.xml` file; its weights are beside it as `.bin`.

    Raises
    ------
    UsageError, WeightsError
        As `keras_engine.build_graph`.
    ExtractionError
        If it cannot be converted.
    """
    made_by = {"format": _FORMAT, "openvino": version("openvino")}
    graph = network.cache_file("graphs", ".xml", made_by=made_by)
    name = network.backbone.name
    if not graph.exists():
        logger.info("Converting %s for OpenVINO; the graph is kept in the cache …", name)
        _convert(network, graph)
    elif not _is_sound(graph):
        logger.warning("The graph of %s in the cache is damaged: converting it again …", name)
        _convert(network, graph)
    return graph


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


def _convert(network: HeadlessNetwork, graph: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder, "graph.xml")
        if network.graph is None:
            _convert_keras(network, exported)
        else:
            _convert_file(network, exported)
        # The graph comes last, so that its weights are there whenever it is.
        exported.with_suffix(_CHECKSUM).write_text(_checksum(exported))
        for suffix in (".bin", _CHECKSUM, ".xml"):
            with replacing(graph.with_suffix(suffix)) as beside:
                shutil.copyfile(exported.with_suffix(suffix), beside)


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
