"""The Keras engine: TensorFlow by default, JAX or PyTorch by `KERAS_BACKEND`."""

import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import UnknownNameError, UsageError
from featurepipe.features.backbones import BackboneSpec
from featurepipe.features.engines.keras_weights import load_weights
from featurepipe.features.engines.protocol import Engine, pad_batch
from featurepipe.features.engines.quiet_keras import (
    backend,
    computing_in,
    keras,
    library_versions,
    seeded,
)
from featurepipe.features.headless import HeadlessNetwork

GRAPH_FOLLOWS_WEIGHTS = frozenset({"efficientnet"})
"""Modules of `keras.applications` that build another graph for ImageNet weights."""


class KerasEngine(Engine):
    """A backbone of `keras.applications` as one compiled Keras graph.

    The input is uint8 pixels; the module's own `preprocess_input`, the backbone and
    the pooling are parts of the graph. The batch has a fixed size, so that the
    graph is compiled once: when the engine is created, with a batch of black images.
    Keras chooses the compiler: XLA with JAX, and with TensorFlow on a GPU; none with
    PyTorch.

    A weights file gives the same features as `keras.applications` with
    ``weights=PATH``. For EfficientNet's ImageNet weights, these differ from those of
    ``weights="imagenet"``.

    Parameters
    ----------
    network : HeadlessNetwork
    batch_size : int
        Images in a batch; a smaller batch is padded.
    precision : {"float32", "bfloat16", "float16"}
        Precision in which layers compute; weights and features are float32.

    Attributes
    ----------
    name : str
        ``"keras-"`` and the backend.
    versions : dict of str to str
        Versions of Keras and its backend.
    input_size : (int, int)
        Height and width of the images.
    n_features : int
        Width of the features.
    batch_size : int
        As given.
    n_parallel : int
        1: one batch is computed at a time, while the next is transferred.

    Raises
    ------
    UsageError
        If the layer's output is neither a map nor a vector.
    UnknownNameError
        If there is no such layer.
    WeightsError
        If the weights do not fit the backbone.
    """

    n_parallel = 1

    def __init__(
        self, network: HeadlessNetwork, *, batch_size: int, precision: str = "float32"
    ) -> None:
        with computing_in(precision):
            self._model = build_graph(network, batch_size)
        self.name = f"keras-{backend()}"
        self.versions = library_versions()
        self.input_size = network.input_size
        self.n_features = int(self._model.output_shape[-1])
        self.batch_size = batch_size
        self._worker = ThreadPoolExecutor(1, "keras")
        # Only this shows whether memory suffices.
        self.embed(np.zeros((batch_size, *self.input_size, 3), dtype=np.uint8))

    def start(self, images: NDArray[np.uint8]) -> Future[NDArray[np.float32]]:
        """Begin to compute the features of a batch; see `Engine`."""
        # Transferred to the device here, while the worker computes the previous batch.
        pixels = keras.ops.convert_to_tensor(pad_batch(images, self.batch_size))
        return self._worker.submit(self._compute, pixels, len(images))

    def _compute(self, pixels: "keras.KerasTensor", n_images: int) -> NDArray[np.float32]:
        return self._model.predict_on_batch(pixels)[:n_images]


def save_weights(network: HeadlessNetwork, path: Path) -> None:
    """Save the weights of a network to a `.weights.h5` file."""
    build_backbone(replace(network, pooling="avg")).save_weights(path)


def build_graph(network: HeadlessNetwork, batch_size: int | None) -> "keras.Model":
    """The whole graph: uint8 pixels, preprocessing, backbone, pooling, float32 features.

    Parameters
    ----------
    network : HeadlessNetwork
    batch_size : int or None
        None for a variable batch size.

    Raises
    ------
    UsageError, UnknownNameError, WeightsError
        As `KerasEngine`.
    """
    return _prepend_preprocessing(network.backbone, build_backbone(network), batch_size)


def export_graph(network: HeadlessNetwork, path: Path) -> None:
    """Save the whole graph for OpenVINO with a variable batch size; requires TensorFlow.

    Parameters
    ----------
    network : HeadlessNetwork
    path : Path
        The `.xml` file; weights are written beside it as `.bin`.

    Raises
    ------
    UsageError, UnknownNameError, WeightsError
        As `KerasEngine`.
    """
    import openvino as ov
    import tensorflow as tf

    graph = build_graph(network, batch_size=None)
    pixels = tf.TensorSpec((None, *network.input_size, 3), tf.uint8)
    # `keras.Model.export` gives the same graph, but first traces every layer several times.
    with warnings.catch_warnings(action="ignore"):
        computed = tf.function(partial(graph, training=False)).get_concrete_function(pixels)
        ov.save_model(ov.convert_model(computed), path, compress_to_fp16=False)


def build_backbone(network: HeadlessNetwork) -> "keras.Model":
    """The backbone with its weights and pooling, as `keras.applications` builds it.

    Parameters
    ----------
    network : HeadlessNetwork

    Returns
    -------
    keras.Model
        Maps preprocessed pixels to features.

    Raises
    ------
    UsageError, UnknownNameError, WeightsError
        As `KerasEngine`.
    """
    backbone, weights = network.backbone, network.weights
    pooled = network.pooling in ("avg", "max")
    # By path wherever the graph allows it, since that is the file that was hashed.
    # By name, Keras uses another file for some sizes of MobileNet.
    by_name = weights.kind == "imagenet" and backbone.module in GRAPH_FOLLOWS_WEIGHTS
    constructor = getattr(keras.applications, backbone.constructor)
    with seeded(weights.seed), warnings.catch_warnings(action="ignore"):
        # Pooling is left to the constructor: ConvNeXt normalises after it.
        model = constructor(
            weights="imagenet" if by_name else None,
            include_top=False,
            input_shape=(*network.input_size, 3),
            pooling=network.pooling if pooled else None,
        )
    if weights.path is not None and not by_name:
        load_weights(model, weights.path, backbone.name)
    return model if pooled else _cut_at(model, network.pooling)


def preprocess(backbone: BackboneSpec, pixels: "keras.KerasTensor") -> "keras.KerasTensor":
    """Apply the backbone's own `preprocess_input` to float32 pixels in [0, 255]."""
    return getattr(keras.applications, backbone.module).preprocess_input(pixels)


def _cut_at(model: "keras.Model", layer_name: str) -> "keras.Model":
    names = [layer.name for layer in model.layers]
    if layer_name not in names:
        hint = f"Or use avg or max; the last layer is {names[-1]!r}."
        raise UnknownNameError("layer", layer_name, names, hint)
    output = model.get_layer(layer_name).output
    if len(output.shape) == 4:
        output = keras.layers.GlobalAveragePooling2D()(output)
    elif len(output.shape) != 2:
        raise UsageError(
            f"The output of layer {layer_name!r} cannot be pooled: its shape is "
            f"{tuple(output.shape)}, expected a feature map (4 axes) or a vector (2 axes). Name "
            "another layer."
        )
    return keras.Model(model.input, output)


def _prepend_preprocessing(
    backbone: BackboneSpec, model: "keras.Model", batch_size: int | None
) -> "keras.Model":
    pixels = keras.Input(model.input_shape[1:], batch_size=batch_size, dtype="uint8")
    features = model(preprocess(backbone, keras.ops.cast(pixels, "float32")))
    return keras.Model(pixels, keras.ops.cast(features, "float32"))
