"""GPUs, as their drivers know them: asking these takes no framework and no time.

A driver does not yet mean that Keras can use the GPU, since its backend may be
built for the CPU alone: `quiet_keras.computes_on_gpu` tells.
"""

import ctypes
import sys
from pathlib import Path

# Of the drivers of NVIDIA and AMD on Linux.
_GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/kfd"))
# Part of NVIDIA's driver. Windows and WSL have it, and have no such devices.
_NVML = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
# Ampere, the first of NVIDIA's generations that computes bfloat16.
_BFLOAT16_CAPABILITY = 8


def has_gpu_driver() -> bool:
    """Whether there is the driver of a GPU that Keras might use."""
    return any(device.exists() for device in _GPU_DEVICES) or bool(_nvidia_capabilities())


def gpu_has_bfloat16() -> bool:
    """Whether every GPU is known to compute bfloat16 natively; of AMD's none is known."""
    return min(_nvidia_capabilities(), default=0) >= _BFLOAT16_CAPABILITY


def _nvidia_capabilities() -> list[int]:
    """Major compute capability of each NVIDIA GPU."""
    try:
        nvml = ctypes.CDLL(_NVML)
    except OSError:
        return []
    if nvml.nvmlInit_v2() != 0:
        return []
    try:
        n_gpus = ctypes.c_uint()
        nvml.nvmlDeviceGetCount_v2(ctypes.byref(n_gpus))
        return [_capability(nvml, index) for index in range(n_gpus.value)]
    finally:
        nvml.nvmlShutdown()


def _capability(nvml: ctypes.CDLL, index: int) -> int:
    gpu, major, minor = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int()
    nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(gpu))
    nvml.nvmlDeviceGetCudaComputeCapability(gpu, ctypes.byref(major), ctypes.byref(minor))
    return major.value
