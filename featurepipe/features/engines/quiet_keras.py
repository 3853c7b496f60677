"""Keras, imported without the messages of its backend."""

import logging
import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def native_stderr_silenced() -> Iterator[None]:
    """Discard what native libraries write directly to the file descriptor of stderr."""
    # TensorFlow's libraries write there before any of their settings is read.
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# TF32 has 10 bits of mantissa instead of 23: float32 features would differ from other engines.
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
with native_stderr_silenced():
    import keras

# Each engine compiles one graph; TensorFlow would warn of several engines.
logging.getLogger("tensorflow").setLevel(logging.ERROR)

__all__ = [
    "backend",
    "computes_on_gpu",
    "computing_in",
    "keras",
    "library_versions",
    "native_stderr_silenced",
    "seeded",
]


def computes_on_gpu() -> bool:
    """Whether Keras computes on a GPU, or on another device than the CPU."""
    # The device of a tensor works with every backend; PyTorch has no list of devices, and
    # with JAX the list is an error where there is no GPU.
    return "CPU" not in str(keras.ops.ones(1).device).upper()


def backend() -> str:
    """The backend of Keras: ``tensorflow``, ``jax`` or ``torch``."""
    return str(keras.backend.backend())


def library_versions() -> dict[str, str]:
    """Versions of Keras and of its backend."""
    version = getattr(sys.modules.get(backend()), "__version__", "unknown")
    return {"keras": keras.__version__, backend(): version}


@contextmanager
def computing_in(precision: str) -> Iterator[None]:
    """Build layers that compute in a precision and keep their weights in float32."""
    before = keras.config.dtype_policy()
    if precision != "float32":
        keras.config.set_dtype_policy(f"mixed_{precision}")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Seed all random generators of Keras, and restore those of Python and NumPy afterwards."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        if seed is not None:
            # This imports TensorFlow with every backend.
            with native_stderr_silenced():
                keras.utils.set_random_seed(seed)
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
