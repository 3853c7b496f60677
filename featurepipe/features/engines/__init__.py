"""Engines: what runs a backbone. One file an engine, one small protocol."""

import importlib.util
import os
from pathlib import Path
from typing import Any

from featurepipe.errors import UnknownNameError, UsageError
from featurepipe.features.backbones import BackboneSpec
from featurepipe.features.engines.descriptors import HsvHistogram
from featurepipe.features.engines.protocol import Engine
from featurepipe.features.weights import Weights

__all__ = ["ENGINES", "PRECISIONS", "Engine", "choose_engine", "choose_precision", "open_engine"]

ENGINES = ("openvino", "keras")
PRECISIONS = ("float32", "bfloat16", "float16")

# Of the drivers of NVIDIA and AMD; asking them takes no library.
_GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/kfd"))


def choose_engine(name: str = "auto") -> str:
    """The engine that a name asks for.

    Parameters
    ----------
    name : {"auto", "openvino", "keras"}
        ``"auto"``: Keras where there is a GPU, else OpenVINO where it is
        installed, else Keras.

    Raises
    ------
    UnknownNameError
        If there is no such engine.
    """
    if name == "auto":
        has_gpu = any(device.exists() for device in _GPU_DEVICES)
        has_openvino = importlib.util.find_spec("openvino") is not None
        return "openvino" if has_openvino and not has_gpu else "keras"
    if name not in ENGINES:
        raise UnknownNameError("engine", name, (*ENGINES, "auto"))
    return name


def choose_precision(
    name: str, engine: str, backbone: BackboneSpec, weights: Weights, *, size: int, pooling: str
) -> str:
    """The precision that a name asks for.

    Parameters
    ----------
    name : {"auto", "float32", "bfloat16", "float16"}
        ``"auto"``: what the hardware runs natively, if the features of
        generated pictures keep to their tolerance in it; else float32.
    engine : {"openvino", "keras"}
    backbone : BackboneSpec
    weights : Weights
    size : int
    pooling : str

    Raises
    ------
    UnknownNameError
        If there is no such precision.
    UsageError
        If float16 is asked for with random weights.
    """
    if name not in (*PRECISIONS, "auto"):
        raise UnknownNameError("precision", name, (*PRECISIONS, "auto"))
    if name == "float16" and weights.kind == "random":
        raise UsageError(
            "Features of random weights can be smaller than float16 has numbers. Give --precision "
            "bfloat16 or float32."
        )
    if backbone.kind == "descriptor":
        return "float32"
    if name != "auto":
        return name
    if engine == "openvino":
        from featurepipe.features.engines.openvino_engine import native_precision

        return native_precision(backbone, weights, size, pooling)
    return "float32"


def open_engine(
    backbone: BackboneSpec,
    weights: Weights,
    *,
    size: int | None = None,
    pooling: str = "avg",
    batch_size: int = 32,
    precision: str = "float32",
    engine: str = "keras",
) -> Engine:
    """Load a backbone with its weights.

    Parameters
    ----------
    backbone : BackboneSpec
    weights : Weights
    size : int, optional
        Side of the square input, in pixels; default: the backbone's own.
    pooling : str
        ``"avg"``, ``"max"`` or the name of a layer.
    batch_size : int
        Images computed at once.
    precision : {"float32", "bfloat16", "float16"}
    engine : {"openvino", "keras"}
        What runs it, unless it is a descriptor.

    Raises
    ------
    UsageError
        If the backbone cannot be that small, has no such pooling, or Keras
        cannot be loaded.
    UnknownNameError
        If `pooling` names no layer.
    WeightsError
        If the weights do not fit the backbone.
    """
    if backbone.kind == "descriptor":
        return HsvHistogram(backbone, size=size, pooling=pooling)
    settings: dict[str, Any] = {
        "size": size,
        "pooling": pooling,
        "batch_size": batch_size,
        "precision": precision,
    }
    try:
        if engine == "openvino":
            from featurepipe.features.engines.openvino_engine import OpenVinoEngine

            return OpenVinoEngine(backbone, weights, **settings)
        from featurepipe.features.engines.keras_engine import KerasEngine

        return KerasEngine(backbone, weights, **settings)
    except ImportError as error:
        backend = os.environ.get("KERAS_BACKEND", "tensorflow")
        raise UsageError(
            f"Keras cannot be loaded with the backend {backend!r} ({error}). Install it, or set "
            "KERAS_BACKEND to one that is installed."
        ) from error
