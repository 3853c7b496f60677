"""The graph of a backbone -> the same in int8, by NNCF.

Imported by the processes of `conversion_tasks` only.
"""

import logging
import os
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from featurepipe.features.engines import probes
from featurepipe.features.engines.calibration_pictures import calibration_pictures

N_CALIBRATION = 100
N_CHECKED = 24
# As a share of the median distance between images: `probes.distance`.
MAX_DISTANCE = 0.25
_LAYERS = ("Convolution", "GroupConvolution", "MatMul")


def quantise(graph: Path, exported: Path) -> int:
    """Save a graph with weights and activations in int8.

    Where all of it in int8 would move the features of generated pictures further than
    `MAX_DISTANCE`, NNCF's accuracy control leaves layers in float32, those first that move the
    features most. Nothing is calibrated on the pictures by which this is decided.

    Parameters
    ----------
    graph : Path
        The `.xml` file of a graph that takes uint8 pixels.
    exported : Path
        The `.xml` file to write; weights are written beside it as `.bin`.

    Returns
    -------
    int
        Number of layers with weights that are left in float32.
    """
    # NNCF reports its use to its makers unless it believes that it is being tested.
    os.environ["NNCF_CI"] = "1"
    import nncf

    nncf.set_log_level(logging.ERROR)
    model = ov.Core().read_model(graph)
    batch, height, width, _ = model.input(0).partial_shape
    n_images = batch.get_length() if batch.is_static else 1
    checked = _batches(range(N_CALIBRATION, N_CALIBRATION + N_CHECKED), (height, width), n_images)
    exact = _features(model, checked)
    between = probes.median_distance(np.concatenate(exact))

    def closeness(compiled: ov.CompiledModel, items: Iterable[Any]) -> tuple[float, list[float]]:
        # NNCF asks for some of the items, too, to find the layers that move the features most.
        errors = [np.linalg.norm(compiled(batch)[0] - given, axis=1) for batch, given in items]
        return _closeness(np.concatenate(errors)), [_closeness(error) for error in errors]

    def _closeness(errors: NDArray[np.float32]) -> float:
        return 1 - float(np.median(errors)) / between

    calibrating = _batches(range(N_CALIBRATION), (height, width), n_images)
    estimator = nncf.quantization.range_estimator.RangeEstimatorParametersSet
    quantised = nncf.quantize_with_accuracy_control(
        model,
        nncf.Dataset(calibrating),
        nncf.Dataset(list(zip(checked, exact, strict=True))),
        closeness,
        max_drop=MAX_DISTANCE,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(calibrating),
        fast_bias_correction=False,
        model_type=nncf.ModelType.TRANSFORMER if _has_attention(model) else None,
        advanced_quantization_parameters=nncf.AdvancedQuantizationParameters(
            activations_range_estimator_params=estimator.MINMAX,
            # Weights of 7 bits: with 8, sums overflow on processors without VNNI, which would
            # compute other features.
            overflow_fix=nncf.OverflowFix.ENABLE,
        ),
    )
    quantised.set_rt_info(version("nncf"), ["featurepipe", "nncf"])
    ov.save_model(quantised, exported, compress_to_fp16=False)
    return sum(_has_float_weights(operation) for operation in quantised.get_ops())


def _batches(numbers: range, size: Any, n_images: int) -> list[NDArray[np.uint8]]:
    """Pictures in batches; as many whole ones as there are, and at least one."""
    whole = range(numbers.start, numbers.start + -(-len(numbers) // n_images) * n_images)
    pictures = calibration_pictures(whole, tuple(side.get_length() for side in size))
    return np.split(pictures, len(whole) // n_images)


def _features(model: ov.Model, batches: list[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [compiled(batch)[0] for batch in batches]


def _has_float_weights(operation: ov.Node) -> bool:
    if operation.get_type_name() not in _LAYERS:
        return False
    node = operation.input_value(1).get_node()
    while node.get_input_size():
        node = node.input_value(0).get_node()
    return node.get_type_name() == "Constant" and node.get_element_type().is_real()


def _has_attention(model: ov.Model) -> bool:
    """Whether the weights of a softmax are multiplied by something, as in a transformer."""
    return any(
        target.get_node().get_type_name() == "MatMul"
        for operation in model.get_ops()
        if operation.get_type_name() == "Softmax"
        for target in operation.output(0).get_target_inputs()
    )
