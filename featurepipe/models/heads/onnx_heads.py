"""Heads as ONNX nodes: from what they read to scores and probabilities."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.feature_selection import SelectorMixin
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from featurepipe.errors import NotLinearError, UsageError
from featurepipe.features.onnx.nodes import DOUBLE, FLOAT, Nodes
from featurepipe.models.answers.head import FeatureHead, Head, ScoreHead
from featurepipe.models.answers.onnx_answers import (
    HeadValues,
    write_all_classes,
    write_calibration,
    write_shares,
)
from featurepipe.models.heads.estimators.bagged_sgd import BaggedSGDClassifier
from featurepipe.models.heads.estimators.knn import CosineNeighbours
from featurepipe.models.heads.estimators.logistic import LogisticSweep
from featurepipe.models.heads.estimators.scaling import BlockScale, CommonScale
from featurepipe.models.heads.estimators.svm import RbfSVM
from featurepipe.models.heads.linear_form import linear_form

_AXIS = np.array([1], np.int64)


def require_writable_head(name: str, head: Head) -> None:
    """Stop if a head cannot be written as nodes.

    Parameters
    ----------
    name : str
        What it answers, for the error.
    head : Head

    Raises
    ------
    UsageError
        For heads of one's own, and a bag of scikit-learn that is not calibrated.
    """
    try:
        write_head(Nodes(), head, "features")
    except NotLinearError as error:
        raise UsageError(
            f"The head of {name!r} cannot be part of an ONNX file: {error}. Use a run with a head "
            "of featurepipe: bagged-sgd, logistic, svm or knn."
        ) from error


def write_columns(nodes: Nodes, head: Head, features: str) -> str:
    """The blocks that a head reads, side by side; see `Head.select`."""
    blocks = [nodes.take_columns(features, *block) for block in head.columns]
    return blocks[0] if len(blocks) == 1 else nodes.op("Concat", *blocks, axis=1)


def write_head(nodes: Nodes, head: Head, features: str) -> HeadValues:
    """Scores and probabilities of all classes of a head.

    Parameters
    ----------
    nodes : Nodes
    head : Head
    features : str
        (n_images, n_features), float32: all columns, whichever of them the head reads.

    Raises
    ------
    NotLinearError
        If the head cannot be written.
    """
    known = head.known
    n_images = nodes.op(
        "Slice", nodes.op("Shape", features), *(np.array([n], np.int64) for n in (0, 1))
    )
    scores: str | None = None
    probabilities: str | None = None
    if len(known.learnt):
        scores = _learnt_scores(nodes, head, features)
        if head.calibrator is None:
            probabilities = _uncalibrated(nodes, head, features, scores)
        else:
            probabilities = write_calibration(nodes, scores, head.calibrator)
    nothing = np.full(len(known.constant), np.nan)
    return HeadValues(
        write_all_classes(nodes, scores, n_images, known, nothing),
        write_all_classes(nodes, probabilities, n_images, known, known.constant),
    )


def _learnt_scores(nodes: Nodes, head: Head, features: str) -> str:
    """See `Head.decision_scores`: (n_images, n_learnt), float64."""
    if isinstance(head, ScoreHead):
        columns = head.scores[0] + np.asarray(head.known.learnt, np.int64)
        return nodes.cast(nodes.op("Gather", features, columns, axis=1), DOUBLE)
    read = write_columns(nodes, head, features)
    try:
        return _linear(nodes, head, read)
    except NotLinearError:
        assert isinstance(head, FeatureHead)
        *steps, (_, classifier) = head.estimator.steps
        prepared = _write_steps(nodes, [step for _, step in steps], read)
        return _scores_of(nodes, head, classifier, prepared)


def _linear(nodes: Nodes, head: Head, read: str) -> str:
    form = linear_form(head)
    products = nodes.op("MatMul", nodes.cast(read, DOUBLE), form.weights.T)
    return nodes.op("Add", products, form.intercepts)


def _scores_of(nodes: Nodes, head: FeatureHead, classifier: BaseEstimator, prepared: str) -> str:
    """Scores by a classifier of prepared features, in the order of the learnt classes."""
    if isinstance(classifier, CosineNeighbours):
        scores = _log_shares(nodes, classifier, _vote_shares(nodes, classifier, prepared))
    elif isinstance(classifier, RbfSVM):
        scores = _kernel_scores(nodes, classifier, prepared)
    else:
        alone = replace(head, estimator=Pipeline([("classifier", classifier)]))
        return _linear(nodes, alone, prepared)
    if head.known.exclusive:
        if len(head.known.learnt) == 2:
            scores = nodes.op("Mul", scores, np.array([[-1.0, 1.0]]))
        scores = nodes.op("Gather", scores, np.argsort(classifier.classes_), axis=1)
    return scores


def _write_steps(nodes: Nodes, steps: Sequence[BaseEstimator], value: str) -> str:
    """What the steps before a classifier make of features."""
    for step in steps:
        if isinstance(step, SelectorMixin):
            kept = np.flatnonzero(step.get_support()).astype(np.int64)
            value = nodes.op("Gather", value, kept, axis=1)
        elif isinstance(step, CommonScale | BlockScale):
            value = nodes.op("Div", nodes.cast(value, DOUBLE), np.float64(step.divisor_))
        elif isinstance(step, StandardScaler):
            value = nodes.cast(value, DOUBLE)
            if step.with_mean:
                value = nodes.op("Sub", value, np.asarray(step.mean_, np.float64))
            if step.scale_ is not None:
                value = nodes.op("Div", value, np.asarray(step.scale_, np.float64))
        elif isinstance(step, Normalizer) and step.norm == "l2":
            value = _normalised(nodes, value)
        elif isinstance(step, ColumnTransformer):
            value = _write_blocks(nodes, step, value)
        else:
            raise NotLinearError(f"the step {type(step).__name__} has no equivalent")
    return value


def _write_blocks(nodes: Nodes, step: ColumnTransformer, value: str) -> str:
    blocks = []
    for _, block, columns in step.transformers_:
        if not isinstance(block, Pipeline) or not isinstance(columns, slice):
            raise NotLinearError("its features are divided in an unknown way")
        part = nodes.take_columns(value, columns.start, columns.stop)
        made = _write_steps(nodes, [inner for _, inner in block.steps], part)
        blocks.append(nodes.cast(made, DOUBLE))
    return blocks[0] if len(blocks) == 1 else nodes.op("Concat", *blocks, axis=1)


def _normalised(nodes: Nodes, value: str) -> str:
    """Rows of length 1, in float64; those of length 0 stay."""
    value = nodes.cast(value, DOUBLE)
    squares = nodes.op("ReduceSum", nodes.op("Mul", value, value), _AXIS, keepdims=1)
    length = nodes.op("Sqrt", squares)
    is_zero = nodes.op("Equal", length, np.float64(0))
    return nodes.op("Div", value, nodes.op("Where", is_zero, np.float64(1), length))


def _vote_shares(nodes: Nodes, neighbours: CosineNeighbours, prepared: str) -> str:
    """Shares of the outputs among the nearest rows: (n_images, n_outputs), float64."""
    directions = nodes.cast(_normalised(nodes, prepared), FLOAT)
    cosines = nodes.op("MatMul", directions, neighbours.directions_.T)
    k = min(neighbours.n_neighbors_, len(neighbours.directions_))
    near, rows = nodes.top(cosines, k)
    near = nodes.cast(near, DOUBLE)
    behind = nodes.op("Sub", near, nodes.take_columns(near, 0, 1))
    votes = nodes.op("Exp", nodes.op("Div", behind, np.float64(neighbours.temperature)))
    truth = nodes.cast(nodes.op("Gather", neighbours.truth_, rows, axis=0), DOUBLE)
    weighted = nodes.op("MatMul", nodes.op("Unsqueeze", votes, _AXIS), truth)
    for_outputs = nodes.op("Squeeze", weighted, _AXIS)
    total = nodes.op("ReduceSum", votes, _AXIS, keepdims=1)
    n_sides = neighbours.truth_.shape[1] if neighbours.kind_ == "classes" else 2
    return nodes.op(
        "Div",
        nodes.op("Add", for_outputs, np.float64(1 / n_sides)),
        nodes.op("Add", total, np.float64(1)),
    )


def _log_shares(nodes: Nodes, neighbours: CosineNeighbours, shares: str) -> str:
    logarithms = nodes.op("Log", shares)
    if neighbours.kind_ == "classes":
        return logarithms
    return nodes.op("Sub", logarithms, nodes.op("Log", _others(nodes, shares)))


def _kernel_scores(nodes: Nodes, machine: RbfSVM, prepared: str) -> str:
    rows = machine.support_vectors_.astype(np.float64)
    value = nodes.cast(prepared, DOUBLE)
    own = nodes.op("ReduceSum", nodes.op("Mul", value, value), _AXIS, keepdims=1)
    # Kept in single precision in the file.
    kept = nodes.cast(machine.support_vectors_.T, DOUBLE)
    products = nodes.op("Mul", nodes.op("MatMul", value, kept), np.float64(2))
    squared = nodes.op("Sub", nodes.op("Add", own, np.square(rows).sum(axis=1)), products)
    squared = nodes.op("Max", squared, np.float64(0))
    kernel = nodes.op("Exp", nodes.op("Mul", squared, np.float64(-machine.gamma_)))
    scores = nodes.op("MatMul", kernel, machine.dual_coef_)
    return nodes.op("Add", scores, np.asarray(machine.intercept_, np.float64))


def _uncalibrated(nodes: Nodes, head: Head, features: str, scores: str) -> str:
    """Probabilities of the learnt classes where nothing was calibrated."""
    if isinstance(head, ScoreHead):
        return (
            nodes.op("Softmax", scores, axis=1) if head.known.exclusive else _sigmoid(nodes, scores)
        )
    assert isinstance(head, FeatureHead)
    *steps, (_, classifier) = head.estimator.steps
    if isinstance(classifier, LogisticSweep):
        # Two exclusive classes have one sigmoid, and a score each.
        is_softmax = classifier.kind_ == "classes"
        return nodes.op("Softmax", scores, axis=1) if is_softmax else _sigmoid(nodes, scores)
    if isinstance(classifier, RbfSVM):
        shares = _sigmoid(nodes, scores)
        return write_shares(nodes, shares) if classifier.kind_ == "classes" else shares
    prepared = _write_steps(
        nodes, [step for _, step in steps], write_columns(nodes, head, features)
    )
    if isinstance(classifier, CosineNeighbours):
        shares = _vote_shares(nodes, classifier, prepared)
    elif isinstance(classifier, BaggedSGDClassifier):
        shares = _mean_of_members(nodes, classifier, prepared)
    else:
        raise NotLinearError(f"{type(classifier).__name__} is not calibrated")
    if not head.known.exclusive:
        return shares
    if classifier.kind_ == "binary":
        shares = nodes.op("Concat", _others(nodes, shares), shares, axis=1)
    return nodes.op("Gather", shares, np.argsort(classifier.classes_), axis=1)


def _mean_of_members(nodes: Nodes, bag: BaggedSGDClassifier, prepared: str) -> str:
    n_members, n_outputs, n_features = bag.coefs_.shape
    weights = bag.coefs_.reshape(-1, n_features).T.astype(np.float64)
    scores = nodes.op("MatMul", nodes.cast(prepared, DOUBLE), weights)
    shares = _sigmoid(nodes, scores)
    members = []
    for start, end in pairwise(range(0, n_members * n_outputs + 1, n_outputs)):
        member = nodes.take_columns(shares, start, end)
        members.append(write_shares(nodes, member) if bag.kind_ == "classes" else member)
    return nodes.op("Div", nodes.op("Sum", *members), np.float64(n_members))


def _sigmoid(nodes: Nodes, scores: str) -> str:
    return nodes.op("Sigmoid", scores)


def _others(nodes: Nodes, shares: str) -> str:
    return nodes.op("Sub", np.float64(1), shares)
