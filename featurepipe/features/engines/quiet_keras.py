"""Keras, imported so that its backend does not greet the user."""

import logging
import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def native_stderr_silenced() -> Iterator[None]:
    """Let nothing through that native libraries write to the file descriptor of stderr itself."""
    # TensorFlow's libraries greet there before any setting of theirs is read.
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Features of float32 are those of every other engine: TF32 has 10 bits of mantissa, not 23.
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
with native_stderr_silenced():
    import keras

# Each engine compiles one graph; TensorFlow takes several engines for a mistake.
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
    """Whether Keras computes on a GPU, or another device that is no CPU."""
    # A tensor says where it is with every backend; a list of devices is not to be had of
    # PyTorch, and is an error with JAX where there is no GPU.
    return "CPU" not in str(keras.ops.ones(1).device).upper()


def backend() -> str:
    """What Keras computes with: ``tensorflow``, ``jax`` or ``torch``."""
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
    """Draw as `keras.utils.set_random_seed` has it, and disturb no other's draws."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        if seed is not None:
            # Which imports TensorFlow with every backend.
            with native_stderr_silenced():
                keras.utils.set_random_seed(seed)
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
