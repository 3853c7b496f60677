"""Networks in files -> OpenVINO models; imported by the processes of `conversion_tasks` only."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openvino as ov
from openvino.frontend import FrontEndManager

from featurepipe.errors import ModelFileError
from featurepipe.features.model_files.model_file import require_beside
from featurepipe.features.weights import MAX_WEIGHTS_BYTES
from featurepipe.files import require_readable
from featurepipe.words import one_line

_FORMATS = {".onnx": "onnx", ".xml": "ir", ".tflite": "tflite"}
_REASON_LENGTH = 200


def inspect(path: Path) -> dict[str, Any]:
    """What a network takes, and where its weights are.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict
        Fields of `featurepipe.features.model_files.model_file.ModelFacts`.

    Raises
    ------
    ModelFileError
        If it cannot be read.
    """
    beside = _files_beside(path)
    model = read_model(path)
    return {
        "inputs": [_describe(port) for port in model.inputs],
        "beside": beside,
    }


def read_model(path: Path, layer: str | None = None) -> ov.Model:
    """Read a network.

    Parameters
    ----------
    path : Path
    layer : str, optional
        Of a `.keras` file: a layer whose output is the only one.

    Raises
    ------
    ModelFileError
        If it cannot be read, or has no such layer.
    """
    require_readable(path, MAX_WEIGHTS_BYTES)
    try:
        if path.suffix.lower() == ".keras":
            return _read_keras(path, layer)
        # By its suffix: OpenVINO would go by the content, and read what was not checked.
        front_end = FrontEndManager().load_by_framework(_FORMATS[path.suffix.lower()])
        return front_end.convert(front_end.load(str(path)))
    except ModelFileError:
        raise
    # The type of the error depends on what is wrong with the file.
    except Exception as error:
        raise ModelFileError(
            f"{path.name} cannot be read as a network ({_reason(error)}). Export it again; the "
            "suffix must be that of its format."
        ) from error


def name_of(port: Any) -> str:
    """The name of an input or output; that of what makes it, where it has none."""
    return min(port.get_names(), default=port.get_node().get_friendly_name())


def sides_of(port: Any) -> list[int | None] | None:
    """Lengths of its axes: None where any is possible; None if their number varies."""
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        return None
    return [side.get_length() if side.is_static else None for side in shape]


def _describe(port: Any) -> dict[str, Any]:
    dtype = port.get_element_type().get_type_name()
    return {"name": name_of(port), "shape": sides_of(port), "dtype": dtype}


def _files_beside(path: Path) -> list[str]:
    """Files that hold parts of the weights, as the file names them."""
    if path.suffix.lower() == ".xml":
        return [path.with_suffix(".bin").name]
    if path.suffix.lower() != ".onnx":
        return []
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    try:
        model = onnx.load(path, load_external_data=False)
        if not model.graph.node:
            raise ValueError("it computes nothing")
        names = {
            ExternalDataInfo(tensor).location
            for tensor in _tensors(model)
            if uses_external_data(tensor)
        }
    except Exception as error:
        raise ModelFileError(
            f"{path.name} is no ONNX file, or is damaged ({_reason(error)}). Export it again."
        ) from error
    for name in sorted(names):
        require_beside(path, name)
    return sorted(names)


def _tensors(message: Any) -> Iterator[Any]:
    """All tensors in a part of an ONNX file, wherever they are."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "DESCRIPTOR") else value:
                yield from _tensors(part)


def _read_keras(path: Path, layer: str | None) -> ov.Model:
    from featurepipe.features.engines.keras_classes import require_known_classes
    from featurepipe.features.engines.keras_weights import open_weights

    with open_weights(path):
        pass
    require_known_classes(path)
    # Only now: Keras takes seconds to import. This also hides what TensorFlow prints.
    from featurepipe.features.engines.quiet_keras import keras

    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    if layer is not None:
        names = [one.name for one in model.layers]
        if layer not in names:
            shown = ", ".join(names[-8:])
            raise ModelFileError(
                f"{path.name} has no layer {layer!r}. Its last ones are {shown}. Choose one of its "
                "layers with --output."
            )
        model = keras.Model(model.inputs, model.get_layer(layer).output)
    return converted_keras(model)


def converted_keras(model: Any) -> ov.Model:
    """A model of Keras, converted by TensorFlow, with its outputs by their names.

    Parameters
    ----------
    model : keras.Model
        Keras must run on TensorFlow.
    """
    import tensorflow as tf

    specs = [tf.TensorSpec(one.shape, one.dtype) for one in model.inputs]

    def computed(*inputs: Any) -> Any:
        return model(list(inputs) if len(inputs) > 1 else inputs[0], training=False)

    traced = tf.function(computed).get_concrete_function(*specs)
    converted = ov.convert_model(traced)
    outputs = {tensor.name for tensor in traced.outputs}
    for result in converted.get_results():
        # OpenVINO makes an output of whatever is computed for nothing, as by attention.
        if not outputs & result.input(0).get_tensor().get_names():
            converted.remove_result(result)
    for port, name in zip(converted.outputs, model.output_names, strict=True):
        # Messages list what --output takes: names of layers.
        port.get_tensor().set_names({name})
    return converted


def _reason(error: Exception) -> str:
    return one_line(error)[:_REASON_LENGTH]
