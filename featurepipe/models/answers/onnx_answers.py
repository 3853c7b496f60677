"""From scores to answers as ONNX nodes: calibration, probabilities, rejection."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurepipe.features.onnx.nodes import DOUBLE, FLOAT, INT64, Nodes
from featurepipe.models.answers.calibration import (
    Calibrator,
    IsotonicCalibrator,
    LogisticCalibrator,
    SoftmaxCalibrator,
)
from featurepipe.models.answers.head import KnownClasses
from featurepipe.models.answers.head_model import HeadModel
from featurepipe.models.answers.questions import ALL_LABELS, COMBINATIONS
from featurepipe.models.answers.rejection import N_NEIGHBOURS, Rejector
from featurepipe.predictions import Task


@dataclass(frozen=True)
class HeadValues:
    """What a head computes, as values of a graph: (n_images, n_classes), float64.

    Attributes
    ----------
    scores : str
        Decision scores; NaN for classes that were not learnt.
    probabilities : str
        Calibrated.
    """

    scores: str
    probabilities: str


@dataclass(frozen=True)
class AnswerValues:
    """What is said about an attribute, as values of a graph.

    Attributes
    ----------
    probabilities : str
        (n_images, n_classes), float64; rows of exclusive classes sum to 1.
    given : str
        (n_images, n_classes), bool: the classes that are the answer; none where unknown.
    known : str
        (n_images,), bool: whether there is an answer.
    p_value : str
        (n_images,), float64: how similar the image is to the training images, over all
        attributes together.
    distance : str
        (n_images,), float64: from the 5th nearest row of the bank.
    """

    probabilities: str
    given: str
    known: str
    p_value: str
    distance: str


def write_calibration(nodes: Nodes, scores: str, calibrator: Calibrator) -> str:
    """Probabilities of the learnt classes from their scores; see `Calibrator.predict_proba`."""
    if isinstance(calibrator, SoftmaxCalibrator):
        return nodes.op("Softmax", nodes.op("Mul", scores, np.float64(calibrator.slope)), axis=1)
    if isinstance(calibrator, LogisticCalibrator):
        logits = nodes.op("Mul", scores, np.asarray(calibrator.slopes, np.float64))
        logits = nodes.op("Add", logits, np.asarray(calibrator.intercepts, np.float64))
        probabilities = nodes.op("Sigmoid", logits)
        return write_shares(nodes, probabilities) if calibrator.exclusive else probabilities
    assert isinstance(calibrator, IsotonicCalibrator)
    columns = [
        _rising(nodes, nodes.take_columns(scores, number, number + 1), *_steps(curve))
        for number, curve in enumerate(calibrator.curves)
    ]
    probabilities = nodes.op("Concat", *columns, axis=1)
    return write_shares(nodes, probabilities) if calibrator.exclusive else probabilities


def _steps(curve: object) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return tuple(  # type: ignore[return-value]
        np.asarray(getattr(curve, name), np.float64) for name in ("X_thresholds_", "y_thresholds_")
    )


def _rising(nodes: Nodes, column: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    """A curve between points, clipped beyond them: the sum of the shares of its rises."""
    if len(x) == 1:
        return nodes.op("Add", nodes.op("Mul", column, np.float64(0)), y[0])
    passed = nodes.op("Div", nodes.op("Sub", column, x[:-1]), np.diff(x))
    passed = nodes.op("Clip", passed, np.float64(0), np.float64(1))
    return nodes.op("Add", nodes.op("MatMul", passed, np.diff(y)[:, None]), y[0])


def write_shares(nodes: Nodes, values: str) -> str:
    """Each row divided by its sum; uniform where that is 0. See `probabilities.normalized`."""
    total = nodes.op("ReduceSum", values, np.array([1], np.int64), keepdims=1)
    is_positive = nodes.op("Greater", total, np.float64(0))
    shares = nodes.op("Div", values, nodes.op("Where", is_positive, total, np.float64(1)))
    one = nodes.op("Add", nodes.op("Mul", values, np.float64(0)), np.float64(1))
    n_classes = nodes.op("ReduceSum", one, np.array([1], np.int64), keepdims=1)
    return nodes.op("Where", is_positive, shares, nodes.op("Div", one, n_classes))


def write_all_classes(
    nodes: Nodes,
    learnt: str | None,
    n_images: str,
    known: KnownClasses,
    others: NDArray[np.float64],
) -> str:
    """Columns of all classes, from those of the learnt ones and what the others have.

    Parameters
    ----------
    nodes : Nodes
    learnt : str or None
        (n_images, n_learnt), float64; None where no class was learnt.
    n_images : str
        Their number: (1,), int64.
    known : KnownClasses
    others : ndarray of shape (n_classes,), float64
        Values of the classes that were not learnt.
    """
    n_classes = len(known.constant)
    if learnt is not None and len(known.learnt) == n_classes:
        return learnt
    shape = nodes.op("Concat", n_images, np.array([n_classes], np.int64), axis=0)
    constant = nodes.op("Expand", others[None], shape)
    if learnt is None:
        return constant
    # All columns, then those of the learnt classes in their places.
    columns = np.arange(n_classes)
    columns[known.learnt] = n_classes + np.arange(len(known.learnt))
    both = nodes.op("Concat", constant, learnt, axis=1)
    return nodes.op("Gather", both, columns, axis=1)


def write_attributes(nodes: Nodes, model: HeadModel, by_head: dict[str, str]) -> dict[str, str]:
    """Probabilities of each attribute's classes from those of the heads; see `HeadModel`."""
    n_classes = [len(names) for names in model.classes.values()]
    if model.task == Task.MULTI_LABEL:
        ends = np.cumsum([0, *n_classes])
        return {
            name: nodes.take_columns(by_head[ALL_LABELS], int(start), int(end))
            for name, start, end in zip(model.classes, ends, ends[1:], strict=False)
        }
    if model.task == Task.JOINT:
        return {
            name: nodes.op(
                "Min",
                nodes.op(
                    "MatMul",
                    by_head[COMBINATIONS],
                    (codes[:, None] == np.arange(n)).astype(np.float64),
                ),
                np.float64(1),
            )
            for name, codes, n in zip(model.classes, model.combinations.T, n_classes, strict=True)
        }
    return {name: by_head[name] for name in model.classes}


def write_answer(
    nodes: Nodes, model: HeadModel, attribute: str, raw: str, features: str, coverage: str
) -> AnswerValues:
    """What is said about an attribute.

    Parameters
    ----------
    nodes : Nodes
    model : HeadModel
    attribute : str
    raw : str
        What `write_attributes` returns for it.
    features : str
        What its head reads: (n_images, n_read), float32.
    coverage : str
        Target share of familiar images that get an answer: a number, float64.
    """
    exclusive, thresholds = model.exclusive[attribute], model.thresholds[attribute]
    probabilities = write_shares(nodes, raw) if exclusive else raw
    axis = np.array([1], np.int64)
    if exclusive:
        best = nodes.op("ArgMax", raw, axis=1, keepdims=1)
        given = nodes.op("Equal", best, np.arange(len(thresholds)))
        confidence = nodes.op("ReduceMax", probabilities, axis, keepdims=0)
    else:
        given = nodes.op("Greater", raw, np.asarray(thresholds, np.float64))
        sure = nodes.op("Where", given, raw, nodes.op("Sub", np.float64(1), raw))
        confidence = _product(nodes, sure, len(thresholds))
    rejector = model.rejectors[attribute]
    distance = write_novelty(nodes, rejector, features)
    rank = nodes.op(
        "Min",
        _count(nodes, "GreaterOrEqual", rejector.distances, distance),
        _count(nodes, "LessOrEqual", rejector.confidences, confidence),
    )
    rank = nodes.op("Add", rank, np.float64(1))
    p_value = _p_values(nodes, rejector.ranks.astype(np.float64), rank, rejector.group_size)
    p_value = _p_values(nodes, model.lowest_p_values, p_value, model.group_size)
    known = nodes.op("Greater", p_value, nodes.op("Sub", np.float64(1), coverage))
    answered = nodes.op("And", given, nodes.op("Unsqueeze", known, axis))
    return AnswerValues(probabilities, answered, known, p_value, distance)


def write_novelty(nodes: Nodes, rejector: Rejector, features: str) -> str:
    """Distance from the 5th nearest row of the bank; see `Rejector.novelty`."""
    axis, tiny = np.array([1], np.int64), np.finfo(np.float32).tiny
    starts = [0, *rejector.ends[:-1].tolist()]
    units = []
    for start, end in zip(starts, rejector.ends.tolist(), strict=True):
        block = features
        if len(starts) > 1:
            block = nodes.take_columns(features, start, end)
        length = nodes.op("ReduceL2", block, axis, keepdims=1)
        units.append(nodes.op("Div", block, nodes.op("Max", length, tiny)))
    rows = units[0] if len(units) == 1 else nodes.op("Concat", *units, axis=1)
    # Kept in half precision in the file.
    bank = nodes.cast(rejector.bank.T, FLOAT)
    squares = np.square(rejector.bank.astype(np.float32)).sum(axis=1)
    products = nodes.op("Mul", nodes.op("MatMul", rows, bank), np.float32(2))
    own = nodes.op("ReduceSumSquare", rows, axis, keepdims=1)
    squared = nodes.op("Sub", nodes.op("Add", own, squares), products)
    k = min(N_NEIGHBOURS, len(rejector.bank))
    nearest, _ = nodes.top(nodes.op("Neg", squared), k)
    kth = nodes.op("Neg", nodes.op("Gather", nearest, np.int64(k - 1), axis=1))
    return nodes.cast(nodes.op("Sqrt", nodes.op("Max", kth, np.float32(0))), DOUBLE)


def _product(nodes: Nodes, values: str, n: int) -> str:
    """The product of each row, one column after the other: not all runtimes reduce in float64."""
    total = nodes.op("Gather", values, np.int64(0), axis=1)
    for column in range(1, n):
        total = nodes.op("Mul", total, nodes.op("Gather", values, np.int64(column), axis=1))
    return total


def _p_values(nodes: Nodes, known: NDArray[np.float64], ranks: str, group_size: float) -> str:
    """See `conformal_p_values`; in the same order, since p-values are compared for equality."""
    n_up_to = nodes.op("Max", _count(nodes, "LessOrEqual", known, ranks), np.float64(1))
    above = nodes.op("Sub", nodes.op("Add", n_up_to, np.float64(group_size)), np.float64(1))
    return nodes.op("Div", above, np.float64(len(known) + group_size))


def _count(nodes: Nodes, comparison: str, known: NDArray[np.float64], values: str) -> str:
    """How many of some numbers compare so with each value: (n_images,), float64."""
    column = nodes.op("Unsqueeze", values, np.array([1], np.int64))
    compared = nodes.op(comparison, np.asarray(known, np.float64)[None], column)
    counts = nodes.op("ReduceSum", nodes.cast(compared, INT64), np.array([1], np.int64), keepdims=0)
    return nodes.cast(counts, DOUBLE)
