"""Networks -> ONNX models: uint8 RGB pixels to float32 features.

tf2onnx converts networks of Keras, with their preprocessing. An ONNX file is taken as it is, with
its normalisation and pooling around it.
"""

import gc
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import version_converter

from featurepipe.errors import ModelFileError, UsageError
from featurepipe.features.engines.engine_choice import import_keras_engine
from featurepipe.features.headless import HeadlessNetwork
from featurepipe.features.model_files.normalisation import Normalisation
from featurepipe.features.onnx.nodes import FLOAT, OPSET, UINT8, Nodes
from featurepipe.words import listed, one_line

_TOKEN_POOLINGS = ("cls", "mean", "cls+mean")
_REDUCED_BY = {"avg": "ReduceMean", "max": "ReduceMax"}


def require_convertible(network: HeadlessNetwork) -> None:
    """Stop if a network is of a kind that cannot be converted; nothing is loaded.

    Raises
    ------
    UsageError
        If it is a preset, or a file other than ONNX.
    """
    path = network.weights.path
    if network.graph is not None and (path is None or path.suffix.lower() != ".onnx"):
        raise UsageError(
            f"{network.backbone.name} is no ONNX file, and cannot be part of one. Convert it to "
            "ONNX with its own library, and extract features with --backbone FILE.onnx."
        )


def convert_network(network: HeadlessNetwork) -> onnx.ModelProto:
    """A backbone as an ONNX model.

    Parameters
    ----------
    network : HeadlessNetwork
        See `require_convertible`.

    Returns
    -------
    onnx.ModelProto
        From uint8 pixels (n_images, size_px, size_px, 3) to float32 features (n_images,
        n_features).

    Raises
    ------
    UsageError, UnknownNameError, WeightsError
        As `featurepipe.features.engines.keras_engine.build_graph`; also if Keras does not run on
        TensorFlow, or a layer cannot be converted.
    ModelFileError
        If a file cannot be read, or has no such output.
    """
    require_convertible(network)
    if network.graph is not None:
        return _around_file(network)
    keras_engine = import_keras_engine()
    return convert_keras(keras_engine.build_graph(network, None), network.backbone.name)


def convert_keras(model: Any, name: str) -> onnx.ModelProto:
    """A network of Keras as an ONNX model.

    Parameters
    ----------
    model : keras.Model
        With one input and one output, and a variable batch size.
    name : str
        Of the network, in messages.

    Raises
    ------
    UsageError
        If Keras does not run on TensorFlow, tf2onnx is not installed, or a layer cannot be
        converted.
    """
    from featurepipe.features.engines.quiet_keras import backend

    if backend() != "tensorflow":
        raise UsageError(
            f"Networks of Keras are converted by TensorFlow, but KERAS_BACKEND is {backend()!r}. "
            "Set it to tensorflow."
        )
    try:
        import tf2onnx
    except ImportError as error:
        raise UsageError(
            "tf2onnx, which converts networks of Keras, is not installed. Run: pip install "
            "'featurepipe[onnx]'"
        ) from error
    import tensorflow as tf

    # It logs what it cannot convert or improve; the former is an error below.
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    given = tf.TensorSpec((None, *model.input_shape[1:]), model.inputs[0].dtype, "pictures")
    function = tf.function(partial(model, training=False))
    with warnings.catch_warnings(action="ignore"), _collecting_often():
        converted, _ = tf2onnx.convert.from_function(function, [given], opset=OPSET)
    _require_known_operators(converted, name)
    _settle_captured(converted, function.get_concrete_function(given).graph.captures)
    return converted


@contextmanager
def _collecting_often() -> Iterator[None]:
    """Collect garbage often, and only what is made meanwhile.

    Each pass of tf2onnx copies the graph with its weights and leaves the old one in cycles: 8 GB
    for ResNet50 by the usual thresholds of Python, 3 GB by these.
    """
    usual = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(500, 2, 2)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()
        gc.collect()


def _require_known_operators(model: onnx.ModelProto, name: str) -> None:
    unknown = {
        node.op_type for node in model.graph.node if not onnx.defs.has(node.op_type, node.domain)
    }
    if unknown:
        raise UsageError(
            f"{name} cannot be converted to ONNX: tf2onnx has no equivalent of "
            f"{listed(sorted(unknown))}. Choose a run of another backbone."
        )


def _settle_captured(model: onnx.ModelProto, captures: Any) -> None:
    """Make constants of the tensors that Keras' graph holds, which tf2onnx leaves as inputs."""
    held = {inner.name: outer for outer, inner in captures}
    for one in list(model.graph.input):
        if one.name in held:
            constant = onnx.numpy_helper.from_array(held[one.name].numpy(), one.name)
            model.graph.initializer.append(constant)
            model.graph.input.remove(one)


def _around_file(network: HeadlessNetwork) -> onnx.ModelProto:
    graph, path = network.graph, network.weights.path
    assert graph is not None
    assert path is not None
    model = _read(path)
    given, shape, output = _ends(model, path.name, network.size_px, graph.output)
    nodes = Nodes()
    size = network.size_px
    pixels = nodes.add_input("pictures", UINT8, ["n_images", size, size, 3])
    shown = _normalised(nodes, pixels, graph.normalisation, given)
    if shape[1] == 3:
        shown = nodes.op("Transpose", shown, perm=[0, 3, 1, 2])
    made = nodes.merge(model, "file_", {given.name: shown})
    value = made[[one.name for one in model.graph.output].index(output.name)]
    layout = "NCHW" if shape[1] == 3 else "NHWC"
    value = _pooled(nodes, value, output, network, layout)
    nodes.add_output("features", nodes.cast(value, FLOAT), FLOAT, ["n_images", "n_features"])
    return nodes.model("", {})


def _read(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path)
        if {one.version for one in model.opset_import if one.domain == ""} != {OPSET}:
            model = version_converter.convert_version(model, OPSET)
        return onnx.shape_inference.infer_shapes(model)
    # The type of the error depends on what is wrong with the file.
    except Exception as error:
        raise ModelFileError(
            f"{path.name} cannot be converted to opset {OPSET} of ONNX ({one_line(error)[:200]}). "
            "Export it again, with that opset."
        ) from error


def _ends(
    model: onnx.ModelProto, file: str, size_px: int, name: str | None
) -> tuple[onnx.ValueInfoProto, list[int], onnx.ValueInfoProto]:
    """The input of a model with its lengths, 0 where any is possible; and one of its outputs."""
    held = {one.name for one in model.graph.initializer}
    (given,) = (one for one in model.graph.input if one.name not in held)
    shape = [axis.dim_value for axis in given.type.tensor_type.shape.dim]
    if shape[0] not in (0,) or (shape[1] == 3) == (shape[3] == 3):
        raise ModelFileError(
            f"{file} takes images of the shape {shape}, where 0 is any length. Export it with a "
            "variable batch size and three channels fixed."
        )
    outputs = {one.name: one for one in model.graph.output}
    if name is None and len(outputs) == 1:
        return given, shape, next(iter(outputs.values()))
    if name not in outputs:
        raise ModelFileError(
            f"The features of {file} are read from {name!r}, which is no output of it (its outputs "
            f"are {listed(list(outputs))}). Export the network with that output."
        )
    return given, shape, outputs[name]


def _normalised(
    nodes: Nodes, pixels: str, normalisation: Normalisation, given: onnx.ValueInfoProto
) -> str:
    kind = given.type.tensor_type.elem_type
    if normalisation.channels == "bgr":
        pixels = nodes.op("Gather", pixels, np.array([2, 1, 0], np.int64), axis=3)
    shown = nodes.cast(pixels, kind)
    if normalisation == Normalisation(channels=normalisation.channels):
        return shown
    mean, std = (
        np.array(numbers, np.float32) / np.float32(normalisation.scale)
        for numbers in (normalisation.mean, normalisation.std)
    )
    return nodes.op("Div", nodes.op("Sub", shown, mean), std)


def _pooled(
    nodes: Nodes, value: str, output: onnx.ValueInfoProto, network: HeadlessNetwork, layout: str
) -> str:
    """A vector an image; as `model_graph` pools."""
    assert network.graph is not None
    pooling, prefix_tokens = network.pooling, network.graph.prefix_tokens
    n_axes = len(output.type.tensor_type.shape.dim)
    if n_axes == 2 and pooling == "avg":
        return value
    if n_axes == 4 and pooling in _REDUCED_BY:
        axes = [2, 3] if layout == "NCHW" else [1, 2]
        return nodes.op(_REDUCED_BY[pooling], value, np.array(axes, np.int64), keepdims=0)
    if n_axes == 3 and pooling in _TOKEN_POOLINGS:
        first = nodes.op("Gather", value, np.int64(0), axis=1)
        if pooling == "cls":
            return first
        start, end, axis = (np.array([n], np.int64) for n in (prefix_tokens or 0, 2**31, 1))
        patches = nodes.op("Slice", value, start, end, axis)
        mean = nodes.op("ReduceMean", patches, axis, keepdims=0)
        return mean if pooling == "mean" else nodes.op("Concat", first, mean, axis=1)
    raise ModelFileError(
        f"The output {output.name!r} of {network.backbone.name} has {n_axes} axes in ONNX, which "
        f"cannot be pooled by {pooling!r}. Export the network again."
    )
