"""The graph of a run: from pixels to what `predict` answers, as an ONNX model."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from featurepipe import __version__
from featurepipe.errors import UsageError
from featurepipe.features.onnx.blocks import require_writable, write_features
from featurepipe.features.onnx.networks import convert_keras
from featurepipe.features.onnx.nodes import BOOL, DOUBLE, FLOAT, UINT8, Nodes
from featurepipe.features.onnx.resizing import Picture, write_resizing
from featurepipe.models.answers.onnx_answers import (
    HeadValues,
    write_answer,
    write_attributes,
)
from featurepipe.models.answers.questions import ALL_LABELS
from featurepipe.models.heads.onnx_heads import (
    require_writable_head,
    write_columns,
    write_head,
)
from featurepipe.models.networks.saved import SavedNetwork
from featurepipe.predictions import COVERAGE
from featurepipe.runs.run_folder import Run
from featurepipe.workflows.exports.exported_model import (
    COVERAGE_INPUT,
    OTHER_PIXELS,
    PIXELS,
    SAME,
    output_names,
)

_IMAGES: list[str | int] = ["n_images", "height", "width", 3]


def require_exportable(run: Run, embedders: Sequence[Any]) -> None:
    """Stop if a run cannot be written as a graph; no network is loaded.

    Parameters
    ----------
    run : Run
    embedders : sequence of Embedder
        What computes its features.

    Raises
    ------
    UsageError
        If its features or heads have no equivalent, or the outputs would have equal names.
    """
    if not isinstance(embedders[0], SavedNetwork):
        require_writable(embedders)
    for name, head in run.model.heads.items():
        require_writable_head(name, head)
    names = [PIXELS, OTHER_PIXELS, COVERAGE_INPUT, SAME]
    names += [output for name in run.model.classes for output in output_names(name).values()]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UsageError(
            f"Two values of the ONNX file would be named {min(twice)!r}. Rename an attribute, and "
            "fit again."
        )


def build_run_graph(
    run: Run, embedders: Sequence[Any], metadata: Mapping[str, str], *, compares: bool = True
) -> onnx.ModelProto:
    """The graph of a run; see `featurepipe.export`.

    Parameters
    ----------
    run : Run
    embedders : sequence of Embedder
        See `require_exportable`.
    metadata : mapping of str to str
        What the model says of itself.
    compares : bool
        Whether it has an optional input of images to compare with, if the run is one of `pair`.

    Raises
    ------
    FeaturepipeError
        As `write_features`.
    """
    nodes = Nodes()
    pixels = nodes.add_input(PIXELS, UINT8, _IMAGES)
    coverage = nodes.add_input(COVERAGE_INPUT, DOUBLE, [])
    nodes.add_default(COVERAGE_INPUT, np.float64(COVERAGE))
    network = embedders[0]
    if isinstance(network, SavedNetwork):
        features = _write_network(nodes, network, pixels, compares and network.same is not None)
    else:
        features = write_features(nodes, embedders, pixels)
    model = run.model
    heads = {name: write_head(nodes, head, features) for name, head in model.heads.items()}
    raw = write_attributes(
        nodes, model, {name: values.probabilities for name, values in heads.items()}
    )
    scores = _scores(nodes, run, heads)
    for name, classes in model.classes.items():
        read = write_columns(nodes, model.head_for(name), features)
        answer = write_answer(nodes, model, name, raw[name], read, coverage)
        outputs = output_names(name)
        shape: list[str | int] = ["n_images", len(classes)]
        for kind, value in (("probabilities", answer.probabilities), ("scores", scores.get(name))):
            if value is not None:
                nodes.add_output(outputs[kind], nodes.cast(value, FLOAT), FLOAT, shape)
        nodes.add_output(outputs["given"], answer.given, BOOL, shape)
        nodes.add_output(outputs["known"], answer.known, BOOL, ["n_images"])
        for kind, value in (("p_value", answer.p_value), ("distance", answer.distance)):
            nodes.add_output(outputs[kind], value, DOUBLE, ["n_images"])
    return nodes.model(__version__, metadata)


def _scores(nodes: Nodes, run: Run, heads: dict[str, HeadValues]) -> dict[str, str]:
    """Decision scores by attribute; none of a joint head, whose scores are of combinations."""
    model = run.model
    if ALL_LABELS in heads and ALL_LABELS not in model.classes:
        ends = np.cumsum([0, *map(len, model.classes.values())]).tolist()
        return {
            name: nodes.take_columns(heads[ALL_LABELS].scores, start, end)
            for name, start, end in zip(model.classes, ends, ends[1:], strict=False)
        }
    return {name: heads[name].scores for name in model.classes if name in heads}


def _write_network(nodes: Nodes, network: SavedNetwork, pixels: str, compares: bool) -> str:
    """What a trained network makes of images, and whether they show the same as others."""
    from featurepipe.models.networks.trained import load_inference_graph

    converted = convert_keras(load_inference_graph(network.path, network.outputs), network.name)
    shown = write_resizing(nodes, Picture(nodes, pixels), network.framing)
    together = shown
    if compares:
        other = nodes.add_input(OTHER_PIXELS, UINT8, ["n_other_images", *_other_sizes()])
        # One black pixel, so that a caller who compares nothing needs no second image.
        nodes.add_default(OTHER_PIXELS, np.zeros((1, 1, 1, 3), np.uint8))
        compared = write_resizing(nodes, Picture(nodes, other), network.framing)
        together = nodes.op("Concat", shown, compared, axis=0)
    (given,) = converted.graph.input
    together = nodes.cast(together, given.type.tensor_type.elem_type)
    (rows,) = nodes.merge(converted, "network_", {given.name: together})
    if not compares:
        return rows
    assert network.same is not None
    n_images = _length(nodes, shown)
    start, end = np.array([0], np.int64), np.array([2**31], np.int64)
    first = nodes.op("Slice", rows, start, n_images)
    second = nodes.op("Slice", rows, n_images, end)
    n_scores = sum(network.outputs.values())
    _write_same(nodes, network.same, *(_embedding(nodes, one, n_scores) for one in (first, second)))
    return first


def _write_same(nodes: Nodes, curve: tuple[float, float], first: str, second: str) -> None:
    """See `featurepipe.models.networks.verification.same_probability`."""
    slope, intercept = map(np.float64, curve)
    difference = nodes.op("Sub", first, second)
    squares = nodes.op("Mul", difference, difference)
    mean = nodes.op("ReduceMean", squares, np.array([1], np.int64), keepdims=0)
    logits = nodes.op("Add", nodes.op("Mul", nodes.op("Sqrt", mean), slope), intercept)
    probability = nodes.cast(nodes.op("Sigmoid", logits), FLOAT)
    nodes.add_output(SAME, probability, FLOAT, ["n_images"])


def _embedding(nodes: Nodes, rows: str, n_scores: int) -> str:
    return nodes.cast(nodes.take_columns(rows, n_scores, 2**31), DOUBLE)


def _length(nodes: Nodes, value: str) -> str:
    return nodes.op("Slice", nodes.op("Shape", value), *(np.array([n], np.int64) for n in (0, 1)))


def _other_sizes() -> list[str | int]:
    return ["other_height", "other_width", 3]
