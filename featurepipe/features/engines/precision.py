"""The fastest precision that the hardware has and that keeps the features."""

import json
import logging
from importlib.metadata import version
from pathlib import Path

from featurepipe.features.engines import probes
from featurepipe.features.engines.graph_cache import cached_file
from featurepipe.features.engines.hardware import gpu_has_bfloat16
from featurepipe.features.engines.open_engine import open_engine
from featurepipe.features.headless import HeadlessNetwork
from featurepipe.files import replacing

logger = logging.getLogger(__name__)


def native_precision(engine: str, network: HeadlessNetwork) -> str:
    """The fastest precision that this machine has and that keeps the features.

    Parameters
    ----------
    engine : {"openvino", "keras"}
        What runs the network.
    network : HeadlessNetwork

    Returns
    -------
    str
        ``"bfloat16"`` if the engine computes it natively here and the probes'
        features stay within their tolerance; else ``"float32"``.
    """
    if not _has_bfloat16(engine):
        return "float32"
    found = _bfloat16_distance(engine, network)
    if found <= probes.tolerance("bfloat16"):
        return "bfloat16"
    logger.info(
        "Computing %s in float32: bfloat16 would move its features by %.0f %% of the distance "
        "between images, at most %.0f %% is allowed.",
        network.backbone.name,
        100 * found,
        100 * probes.tolerance("bfloat16"),
    )
    return "float32"


def _has_bfloat16(engine: str) -> bool:
    if engine == "openvino":
        from featurepipe.features.engines.openvino_engine import cpu_has_bfloat16

        return cpu_has_bfloat16()
    if not gpu_has_bfloat16():
        return False
    from featurepipe.features.engines.quiet_keras import computes_on_gpu

    return computes_on_gpu()


def _bfloat16_distance(engine: str, network: HeadlessNetwork) -> float:
    """How far bfloat16 moves the probes' features; measured once and kept."""
    verdict = _verdict_file(engine, network)
    if verdict.exists():
        return float(json.loads(verdict.read_text())["bfloat16_distance"])
    pictures = probes.probe_images(network.input_size)
    features = {
        precision: open_engine(
            network, batch_size=len(pictures), precision=precision, engine=engine
        ).embed(pictures)
        for precision in ("float32", "bfloat16")
    }
    found = probes.distance(features["bfloat16"], features["float32"], "bfloat16")
    with replacing(verdict) as beside:
        beside.write_text(json.dumps({"bfloat16_distance": found}))
    return found


def _verdict_file(engine: str, network: HeadlessNetwork) -> Path:
    return cached_file("precision", ".json", network, versions=_engine_versions(engine))


def _engine_versions(engine: str) -> dict[str, str]:
    if engine == "openvino":
        return {"openvino": version("openvino")}
    from featurepipe.features.engines.quiet_keras import library_versions

    return library_versions()
