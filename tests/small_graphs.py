"""Networks in OpenVINO's format with random weights, small enough to be quantised in seconds."""

import importlib.util

import numpy as np
import openvino as ov
import openvino.opset13 as ops

PX = 16


def save_network(path, loudest=1, on_pixels=False):
    """Four convolutions; in int8, the loudest channel drowns the others of the second's input."""
    rng = np.random.default_rng(0)
    if on_pixels:
        taken = ops.parameter([-1, PX, PX, 3], np.uint8, "pixels")
        maps = ops.transpose(ops.convert(taken, np.float32), np.array([0, 3, 1, 2]))
    else:
        taken = maps = ops.parameter([-1, 3, PX, PX], np.float32, "pixels")
    loudness = np.ones((8, 1, 1, 1), np.float32)
    loudness[-1] = loudest
    for scale, channels in ((loudness, 3), (1 / loudness.reshape(1, 8, 1, 1), 8), (1, 8), (1, 8)):
        weights = rng.normal(size=(8, channels, 3, 3)).astype(np.float32) / 9 * scale
        maps = ops.relu(ops.convolution(maps, weights, [1, 1], [0, 0], [0, 0], [1, 1]))
    if on_pixels:
        maps = ops.reduce_mean(maps, np.array([2, 3]), keep_dims=False)
    ov.save_model(ov.Model([maps], [taken], "small"), path, compress_to_fp16=False)
    return path


def without_nncf(monkeypatch):
    """As on a machine on which NNCF is not installed."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "nncf" else find_spec(name)
    )
