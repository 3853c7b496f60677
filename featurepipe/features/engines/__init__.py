"""Engines: what runs a backbone. One file an engine, one small protocol."""

import os
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import UsageError
from featurepipe.features.backbones import BackboneSpec
from featurepipe.features.weights import Weights


class Engine(Protocol):
    """A loaded backbone; preprocessing is inside it.

    Attributes
    ----------
    name : str
        Such as ``"keras-tensorflow"``.
    versions : dict of str to str
        The libraries that compute, and their versions.
    input_size : (int, int)
        Height and width of the images it is given.
    n_features : int
        Width of what it returns.
    """

    name: str
    versions: dict[str, str]
    input_size: tuple[int, int]
    n_features: int

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features of some images.

        Parameters
        ----------
        images : ndarray of shape (n_images, height, width, 3), uint8
            RGB in [0, 255].

        Returns
        -------
        ndarray of shape (n_images, n_features), float32
        """
        ...


def open_engine(
    backbone: BackboneSpec,
    weights: Weights,
    *,
    size: int | None = None,
    pooling: str = "avg",
    batch_size: int = 32,
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

    Raises
    ------
    UsageError
        If the backbone cannot be that small, or Keras cannot be loaded.
    UnknownNameError
        If `pooling` names no layer.
    WeightsError
        If the weights do not fit the backbone.
    """
    try:
        from featurepipe.features.engines.keras_engine import KerasEngine
    except ImportError as error:
        backend = os.environ.get("KERAS_BACKEND", "tensorflow")
        raise UsageError(
            f"Keras cannot be loaded with the backend {backend!r} ({error}). Install it, or set "
            "KERAS_BACKEND to one that is installed."
        ) from error
    return KerasEngine(backbone, weights, size=size, pooling=pooling, batch_size=batch_size)
