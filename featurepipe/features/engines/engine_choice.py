"""Which engine `auto` stands for, and what is known about GPUs without a framework.

A GPU's driver does not mean that Keras can use the GPU, since its backend may be
built for the CPU alone: `quiet_keras.computes_on_gpu` tells.
"""

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from featurepipe.errors import UnknownNameError, UsageError

ENGINES = ("openvino", "keras")

# Devices of the drivers of NVIDIA and AMD on Linux.
_GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/kfd"))
# The device through which Linux inside Windows (WSL) reaches a GPU of any make.
_WINDOWS_GPU = Path("/dev/dxg")
# Ampere, NVIDIA's first generation that computes bfloat16.
_BFLOAT16_CAPABILITY = 8


def choose_engine(name: str = "auto") -> str:
    """The engine that a name stands for.

    Parameters
    ----------
    name : {"auto", "openvino", "keras"}
        ``"auto"``: Keras where it computes on a GPU, else OpenVINO where it is
        installed, else Keras.

    Raises
    ------
    UnknownNameError
        If there is no such engine.
    UsageError
        If it is not installed.
    """
    if name not in (*ENGINES, "auto"):
        raise UnknownNameError("engine", name, (*ENGINES, "auto"))
    has_openvino = importlib.util.find_spec("openvino") is not None
    if name == "openvino" and not has_openvino:
        raise UsageError("OpenVINO is not installed. Install openvino, or use --engine keras.")
    if name != "auto":
        return name
    return "openvino" if has_openvino and not _keras_computes_on_gpu() else "keras"


def import_keras_engine() -> Any:
    """The module of the Keras engine; importing it imports Keras and its backend.

    Raises
    ------
    UsageError
        If Keras cannot be imported with its backend.
    """
    try:
        from featurepipe.features.engines import keras_engine
    except ImportError as error:
        backend = os.environ.get("KERAS_BACKEND", "tensorflow")
        raise UsageError(
            f"Keras cannot be loaded with the backend {backend!r} ({error}). Install it, or set "
            "KERAS_BACKEND to one that is installed."
        ) from error
    return keras_engine


def has_gpu_driver() -> bool:
    """Whether there is the driver of a GPU that Keras might use."""
    if any(device.exists() for device in _GPU_DEVICES):
        return True
    # Only there, since NVIDIA's library takes a while to import.
    on_windows = sys.platform == "win32" or _WINDOWS_GPU.exists()
    return on_windows and bool(_nvidia_capabilities())


def gpu_has_bfloat16() -> bool:
    """Whether every GPU is known to compute bfloat16 natively; no GPU of AMD is known to."""
    return min(_nvidia_capabilities(), default=0) >= _BFLOAT16_CAPABILITY


def _keras_computes_on_gpu() -> bool:
    # The driver is asked first, since Keras takes seconds to import.
    if not has_gpu_driver():
        return False
    try:
        from featurepipe.features.engines.quiet_keras import computes_on_gpu
    except ImportError:
        return False
    return computes_on_gpu()


def _nvidia_capabilities() -> list[int]:
    """Major compute capability of each NVIDIA GPU."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        gpus = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        return [pynvml.nvmlDeviceGetCudaComputeCapability(gpu)[0] for gpu in gpus]
    finally:
        pynvml.nvmlShutdown()
