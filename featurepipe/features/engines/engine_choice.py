"""Which engine and which precision a name such as `auto` stands for."""

import importlib.util

from featurepipe.errors import UnknownNameError, UsageError
from featurepipe.features.engines.hardware import has_gpu_driver
from featurepipe.features.engines.precision import native_precision
from featurepipe.features.headless import HeadlessNetwork

ENGINES = ("openvino", "keras")
PRECISIONS = ("float32", "bfloat16", "float16")


def choose_engine(name: str = "auto") -> str:
    """The engine that a name asks for.

    Parameters
    ----------
    name : {"auto", "openvino", "keras"}
        ``"auto"``: Keras where it computes on a GPU, else OpenVINO where it is
        installed, else Keras.

    Raises
    ------
    UnknownNameError
        If there is no such engine.
    """
    if name == "auto":
        has_openvino = importlib.util.find_spec("openvino") is not None
        return "openvino" if has_openvino and not _keras_computes_on_gpu() else "keras"
    if name not in ENGINES:
        raise UnknownNameError("engine", name, (*ENGINES, "auto"))
    return name


def _keras_computes_on_gpu() -> bool:
    # The driver is asked first, since Keras takes seconds to import.
    if not has_gpu_driver():
        return False
    try:
        from featurepipe.features.engines.quiet_keras import computes_on_gpu
    except ImportError:
        return False
    return computes_on_gpu()


def choose_precision(name: str, engine: str, network: HeadlessNetwork) -> str:
    """The precision that a name asks for.

    Parameters
    ----------
    name : {"auto", "float32", "bfloat16", "float16"}
        ``"auto"``: what the hardware runs natively, if the features of
        generated pictures keep to their tolerance in it; else float32.
    engine : {"openvino", "keras"}
    network : HeadlessNetwork

    Raises
    ------
    UnknownNameError
        If there is no such precision.
    UsageError
        If float16 is asked for with random weights.
    """
    if name not in (*PRECISIONS, "auto"):
        raise UnknownNameError("precision", name, (*PRECISIONS, "auto"))
    if name == "float16" and network.weights.kind == "random":
        raise UsageError(
            "Features of random weights can be smaller than float16 has numbers. Give --precision "
            "bfloat16 or float32."
        )
    if network.backbone.kind == "descriptor":
        return "float32"
    if name != "auto":
        return name
    return native_precision(engine, network)
