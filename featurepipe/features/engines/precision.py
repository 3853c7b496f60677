"""In which precision features are computed, and networks trained."""

import json
import logging
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from featurepipe.errors import NotReadableError, UnknownNameError, UsageError
from featurepipe.features.engines import probes
from featurepipe.features.engines.engine_choice import gpu_has_bfloat16, has_gpu_driver
from featurepipe.features.engines.open_engine import open_engine
from featurepipe.features.headless import HeadlessNetwork
from featurepipe.files import read_file, replacing

logger = logging.getLogger(__name__)

TRAINING_PRECISIONS = ("float32", "bfloat16", "float16")
PRECISIONS = (*TRAINING_PRECISIONS, "int8")

_VERDICT_BYTES = 10_000
_UNREADABLE = (
    OSError, ValueError, ArithmeticError, LookupError, TypeError, RecursionError, NotReadableError,
)  # fmt: skip


def require_precision(
    name: str, network: HeadlessNetwork | None = None, engine: str = "openvino"
) -> None:
    """Stop unless a precision of features exists, and is possible for a network.

    Parameters
    ----------
    name : {"auto", "float32", "bfloat16", "float16", "int8"}
    network : HeadlessNetwork, optional
        Whose features are to be computed.
    engine : {"openvino", "keras"}
        What is to compute them.

    Raises
    ------
    UnknownNameError
        If there is no such precision.
    UsageError
        If features of random weights are to be computed in float16, or Keras is to compute
        in int8.
    """
    _require_known(name, PRECISIONS)
    if network is None or network.backbone.kind == "descriptor":
        return
    if name == "int8" and engine != "openvino":
        raise UsageError(
            "int8 features are computed by OpenVINO on the processor, not by Keras. Use --engine "
            "openvino, or another --precision."
        )
    if name == "float16" and network.weights.kind == "random":
        raise UsageError(
            "Features of random weights can be smaller than the smallest float16. Use --precision "
            "bfloat16 or float32."
        )


def _require_known(name: str, known: tuple[str, ...]) -> None:
    if name not in (*known, "auto"):
        raise UnknownNameError("precision", name, (*known, "auto"))


def feature_precision(name: str, engine: str, network: HeadlessNetwork) -> str:
    """The precision in which features are computed.

    Parameters
    ----------
    name : {"auto", "float32", "bfloat16", "float16", "int8"}
        ``"auto"``: bfloat16 where the hardware computes it natively and the features of generated
        pictures stay within their tolerance in it; else float32.
    engine : {"openvino", "keras"}
    network : HeadlessNetwork

    Raises
    ------
    UnknownNameError, UsageError
        As `require_precision`.
    """
    require_precision(name, network, engine)
    if network.backbone.kind == "descriptor":
        return "float32"
    return native_precision(engine, network) if name == "auto" else name


def training_precision(name: str) -> str:
    """The precision in which networks are trained.

    Parameters
    ----------
    name : {"auto", "float32", "bfloat16", "float16"}
        ``"auto"``: on a GPU bfloat16 where it is computed natively, else float16; on a CPU
        float32.

    Raises
    ------
    UnknownNameError
        If there is no such precision.
    """
    _require_known(name, TRAINING_PRECISIONS)
    if name != "auto":
        return name
    # The driver is asked first, since Keras takes seconds to import.
    if not has_gpu_driver():
        return "float32"
    from featurepipe.features.engines.quiet_keras import computes_on_gpu

    if not computes_on_gpu():
        return "float32"
    return "bfloat16" if gpu_has_bfloat16() else "float16"


def native_precision(engine: str, network: HeadlessNetwork) -> str:
    """The fastest precision that this machine computes natively and that keeps the features.

    Parameters
    ----------
    engine : {"openvino", "keras"}
        What runs the network.
    network : HeadlessNetwork

    Returns
    -------
    str
        ``"bfloat16"`` if the engine computes it natively here and the features of the
        probes stay within their tolerance; else ``"float32"``.
    """
    if not _has_bfloat16(engine):
        return "float32"
    distance = _bfloat16_distance(engine, network)
    if distance <= probes.tolerance("bfloat16"):
        return "bfloat16"
    logger.info(
        "Computing %s in float32: bfloat16 would move its features by %.0f %% of the distance "
        "between images; at most %.0f %% is allowed.",
        network.backbone.name,
        100 * distance,
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
    # What cannot be read is measured again.
    with suppress(*_UNREADABLE):
        return float(json.loads(read_file(verdict, _VERDICT_BYTES))["bfloat16_distance"])
    pictures = probes.probe_images(network.input_size)
    features = {
        precision: open_engine(
            network, batch_size=len(pictures), precision=precision, engine=engine
        ).embed(pictures)
        for precision in ("float32", "bfloat16")
    }
    distance = probes.distance(features["bfloat16"], features["float32"], "bfloat16")
    with replacing(verdict) as beside:
        beside.write_text(json.dumps({"bfloat16_distance": distance}))
    return distance


def _verdict_file(engine: str, network: HeadlessNetwork) -> Path:
    return network.cache_file("precision", ".json", versions=_engine_versions(engine))


def _engine_versions(engine: str) -> dict[str, str]:
    if engine == "openvino":
        return {"openvino": version("openvino")}
    from featurepipe.features.engines.quiet_keras import library_versions

    return library_versions()
