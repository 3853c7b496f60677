"""Small networks in files: a patch embedding, and what computes it with NumPy."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PATCH = 4
N_CHANNELS = 5

_DTYPES = {
    "f32": TensorProto.FLOAT,
    "f16": TensorProto.FLOAT16,
    "u8": TensorProto.UINT8,
    "i8": TensorProto.INT8,
    "i64": TensorProto.INT64,
}
_TO_NCHW, _TO_NHWC = [0, 3, 1, 2], [0, 2, 3, 1]


def kernel(seed: int = 0) -> np.ndarray:
    """Weights of the patch embedding: of shape (N_CHANNELS, 3, PATCH, PATCH), float32."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.1, (N_CHANNELS, 3, PATCH, PATCH)).astype(np.float32)


def embed_patches(pixels: np.ndarray, seed: int = 0) -> np.ndarray:
    """The patch embedding of normalised NHWC pixels: maps of shape (N, N_CHANNELS, h, w)."""
    n_images, side = len(pixels), pixels.shape[1] // PATCH
    patches = pixels.reshape(n_images, side, PATCH, side, PATCH, 3).astype(np.float64)
    return np.maximum(np.einsum("nyixjc,ocij->noyx", patches, kernel(seed)), 0)


def tokens_of(maps: np.ndarray) -> np.ndarray:
    """What `tokens` computes: the largest and the smallest of the patches, then the patches."""
    patches = maps.reshape(*maps.shape[:2], -1).transpose(0, 2, 1)
    prefix = [patches.max(axis=1, keepdims=True), patches.min(axis=1, keepdims=True)]
    return np.concatenate([*prefix, patches], axis=1)


class Graph:
    """An ONNX graph that begins with the patch embedding of its input ``pixels``.

    Parameters
    ----------
    shape : sequence of int or str
        Of the input; text is an axis of any length.
    layout : {"NCHW", "NHWC"}
    dtype : str
    """

    def __init__(self, shape, layout="NCHW", dtype="f32"):
        self.inputs = [helper.make_tensor_value_info("pixels", _DTYPES[dtype], list(shape))]
        self.nodes, self.initializers, self.outputs = [], [], []
        floats = "pixels"
        if dtype != "f32":
            floats = self.add("Cast", floats, to=TensorProto.FLOAT)
        if layout == "NHWC":
            floats = self.add("Transpose", floats, perm=_TO_NCHW)
        self.weights = self.constant(kernel())
        convolved = self.add(
            "Conv", floats, self.weights, kernel_shape=[PATCH] * 2, strides=[PATCH] * 2
        )
        self.maps = self.add("Relu", convolved, name="maps")

    def constant(self, value):
        name = f"constant{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, kind, *inputs, name=None, **attributes):
        name = name or f"node{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def channels_last(self):
        return self.add("Transpose", self.maps, perm=_TO_NHWC)

    def tokens(self):
        flat = self.add("Reshape", self.maps, self.constant(np.array([0, N_CHANNELS, -1])))
        patches = self.add("Transpose", flat, perm=[0, 2, 1])
        axis = self.constant(np.array([1]))
        prefix = [self.add(kind, patches, axis) for kind in ("ReduceMax", "ReduceMin")]
        return self.add("Concat", *prefix, patches, axis=1)

    def vector(self):
        return self.add("Flatten", self.add("GlobalAveragePool", self.maps))

    def save(self, path: Path, *outputs: str, **options) -> Path:
        """Write it with the named values as its outputs."""
        graph = helper.make_graph(
            self.nodes,
            "small",
            self.inputs,
            [helper.make_empty_tensor_value_info(name) for name in outputs],
            self.initializers,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
        model.ir_version = 9
        onnx.save_model(model, path, **options)
        return path
