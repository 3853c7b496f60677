"""Runs ONNX graphs that tests write, by ONNX Runtime and by OpenVINO."""

import io
from typing import Any

import numpy as np
import openvino
import pytest
from numpy.typing import NDArray

from featurepipe.features.onnx.nodes import Nodes

ort = pytest.importorskip("onnxruntime")


def run_nodes(nodes: Nodes, outputs: dict[str, tuple[str, int]], **inputs: Any) -> dict[str, Any]:
    """The outputs of a graph: names, with the value and type of each."""
    return run_model(_as_bytes(nodes, outputs), **inputs)


def run_nodes_by_openvino(
    nodes: Nodes, outputs: dict[str, tuple[str, int]], **inputs: Any
) -> dict[str, Any]:
    """The same in single precision, whatever the types are."""
    core = openvino.Core()
    model = core.read_model(io.BytesIO(_as_bytes(nodes, outputs)))
    computed = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(inputs)
    return {name: computed[name] for name in outputs}


def _as_bytes(nodes: Nodes, outputs: dict[str, tuple[str, int]]) -> bytes:
    for name, (value, kind) in outputs.items():
        nodes.add_output(name, value, kind, [])
    model = nodes.model("test", {})
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    return model.SerializeToString()


RUNNERS = [run_nodes, run_nodes_by_openvino]


def run_model(model: Any, **inputs: NDArray[np.generic]) -> dict[str, Any]:
    """The outputs of a model, its bytes or its path."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))
