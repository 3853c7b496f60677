"""Nodes: an ONNX graph that is written node by node."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

OPSET = 18
"""Version of the operators: one with all that is needed, which most runtimes have."""

_IR_VERSION = 8

FLOAT, DOUBLE = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE
INT32, INT64 = onnx.TensorProto.INT32, onnx.TensorProto.INT64
UINT8, BOOL = onnx.TensorProto.UINT8, onnx.TensorProto.BOOL

Operand = str | NDArray[Any] | np.generic
"""The name of a value, or a constant."""


class Nodes:
    """An ONNX graph that is written node by node.

    Values have names that the writer chooses; constants are arrays of NumPy.
    """

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._names: dict[Any, str] = {}
        self._domains: dict[str, int] = {"": OPSET}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._n_values = 0

    def op(self, kind: str, *operands: Operand, **attributes: Any) -> str:
        """Add a node; the name of its output.

        Parameters
        ----------
        kind : str
            Operator of ONNX.
        *operands : str, ndarray or NumPy scalar
            An empty name leaves an optional input out.
        **attributes
        """
        output = self._new_name(kind)
        inputs = [one if isinstance(one, str) else self.constant(one) for one in operands]
        self._nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def top(self, values: Operand, k: int) -> tuple[str, str]:
        """The k largest values of each row, the largest first, and their columns."""
        name = self._new_name("TopK")
        outputs = [f"{name}_values", f"{name}_columns"]
        inputs = [values if isinstance(values, str) else self.constant(values)]
        inputs.append(self.constant(np.array([k], np.int64)))
        self._nodes.append(helper.make_node("TopK", inputs, outputs, name=name, axis=1))
        return outputs[0], outputs[1]

    def cast(self, value: Operand, to: int) -> str:
        """Convert a value to a type of `onnx.TensorProto`."""
        return self.op("Cast", value, to=to)

    def constant(self, value: NDArray[Any] | np.generic) -> str:
        """The name of a constant; equal ones are kept once."""
        array = np.ascontiguousarray(value).reshape(np.shape(value))
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._names:
            self._names[key] = self._new_name("constant")
            self._constants.append(numpy_helper.from_array(array, self._names[key]))
        return self._names[key]

    def take_columns(self, value: str, start: int, end: int) -> str:
        """Some neighbouring columns of a matrix."""
        return self.op("Slice", value, *(np.array([n], np.int64) for n in (start, end, 1)))

    def add_input(self, name: str, kind: int, shape: Sequence[int | str]) -> str:
        """Add an input; a text in its shape names a length that may vary."""
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def add_default(self, name: str, value: NDArray[Any] | np.generic) -> None:
        """Give an input a default value, which a caller may leave as it is."""
        self._constants.append(numpy_helper.from_array(np.asarray(value), name))

    def add_output(self, name: str, value: str, kind: int, shape: Sequence[int | str]) -> None:
        """Make a value an output of that name."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name=f"output_{name}"))
        self._outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def merge(self, model: onnx.ModelProto, prefix: str, inputs: Mapping[str, str]) -> list[str]:
        """Add all nodes of a model that reads values of this graph.

        Parameters
        ----------
        model : onnx.ModelProto
            Of the version `OPSET`.
        prefix : str
            Put before its names.
        inputs : mapping of str to str
            For each of its inputs, the value that it gets.

        Returns
        -------
        list of str
            Its outputs.
        """
        added = onnx.compose.add_prefix(model, prefix)
        used = {node.domain for node in added.graph.node}
        for opset in added.opset_import:
            if opset.domain in used:
                self._domains.setdefault(opset.domain, opset.version)
        for name, value in inputs.items():
            given = helper.make_node("Identity", [value], [f"{prefix}{name}"])
            self._nodes.append(given)
        self._nodes.extend(added.graph.node)
        self._constants.extend(added.graph.initializer)
        return [output.name for output in added.graph.output]

    def model(self, producer_version: str, metadata: Mapping[str, str]) -> onnx.ModelProto:
        """The whole graph as a model.

        Parameters
        ----------
        producer_version : str
            Version of featurepipe.
        metadata : mapping of str to str
        """
        graph = helper.make_graph(
            self._nodes, "featurepipe", self._inputs, self._outputs, self._constants
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid(*domain) for domain in self._domains.items()],
            ir_version=_IR_VERSION,
            producer_name="featurepipe",
            producer_version=producer_version,
        )
        helper.set_model_props(model, dict(metadata))
        return model

    def _new_name(self, kind: str) -> str:
        self._n_values += 1
        return f"{kind.lower()}_{self._n_values}"
