"""Runs ONNX graphs that tests write."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from featurepipe.features.onnx.nodes import Nodes

ort = pytest.importorskip("onnxruntime")


def run_nodes(nodes: Nodes, outputs: dict[str, tuple[str, int]], **inputs: Any) -> dict[str, Any]:
    """The outputs of a graph: names, with the value and type of each."""
    for name, (value, kind) in outputs.items():
        nodes.add_output(name, value, kind, [])
    model = nodes.model("test", {})
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    return run_model(model.SerializeToString(), **inputs)


def run_model(model: Any, **inputs: NDArray[np.generic]) -> dict[str, Any]:
    """The outputs of a model, its bytes or its path."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))
