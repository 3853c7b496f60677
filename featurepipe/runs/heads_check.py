"""Whether the heads in a file are those of the run: what run.json and predictions say of them."""

from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.dummy import DummyClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline

from featurepipe.errors import RunError
from featurepipe.models.answers.arrays import columns_of_blocks, widths_of
from featurepipe.models.answers.calibration import (
    IsotonicCalibrator,
    LogisticCalibrator,
    SoftmaxCalibrator,
    calibration_for,
)
from featurepipe.models.answers.head import FeatureHead, Head, KnownClasses, ScoreHead
from featurepipe.models.answers.head_model import HeadModel
from featurepipe.models.answers.questions import ALL_LABELS, COMBINATIONS
from featurepipe.models.answers.rejection import Rejector
from featurepipe.models.heads.own_head import title_of
from featurepipe.models.heads.pipelines import build_head
from featurepipe.predictions import Predictions, Task
from featurepipe.runs.run_facts import MAX_FEATURES
from featurepipe.runs.run_info import HeadRunInfo, NetworkRunInfo
from featurepipe.words import one_line

_Info = HeadRunInfo | NetworkRunInfo

_ANY_OWN = DummyClassifier()


def require_fitting_heads(
    model: HeadModel, info: _Info, predictions: Predictions, path: Path
) -> None:
    """Stop if heads are not those of a run, or cannot answer.

    Besides the types, classes and columns of all heads, this checks what they answer for a few
    made-up rows.

    Parameters
    ----------
    model : HeadModel
    info : HeadRunInfo or NetworkRunInfo
    predictions : Predictions
        Those of the run.
    path : Path
        The file of the heads.

    Raises
    ------
    RunError
        Says which part of the heads does not fit.
    """
    try:
        problem = next(_problems(model, info, predictions), None)
    # What a forged object raises depends on what is wrong with it.
    except Exception as error:
        problem = f"they cannot answer: {one_line(error)}"
    if problem is not None:
        again = "Train" if isinstance(info, NetworkRunInfo) else "Fit"
        raise RunError(
            f"Run {path.parent.name!r} is damaged: the heads in {path} are not those of the run "
            f"({problem}). {again} it again."
        )


def n_features_of(model: HeadModel, info: _Info) -> int:
    """Number of features of an image that the heads of a run read.

    Parameters
    ----------
    model : HeadModel
    info : HeadRunInfo or NetworkRunInfo
    """
    if isinstance(info, HeadRunInfo):
        return sum(block.n_features for block in info.blocks)
    return max(end for head in model.heads.values() for _, end in head.columns)


def _problems(model: HeadModel, info: _Info, predictions: Predictions) -> Iterator[str]:
    """What does not fit, in words; each check relies on those before it."""
    labels = predictions.labels
    facts = {
        "task": (model.task, info.task),
        "classes": (
            list(model.classes.items()),
            [(name, truth.classes) for name, truth in labels.items()],
        ),
        "exclusive": (
            list(model.exclusive.items()),
            [(name, truth.exclusive) for name, truth in labels.items()],
        ),
        "heads": (list(model.heads), _questions(info)),
        "rejectors": (list(model.rejectors), list(labels)),
        "thresholds": (
            {name: list(values) for name, values in model.thresholds.items()},
            {name: list(values) for name, values in predictions.thresholds.items()},
        ),
    }
    yield from (f"{name} differ" for name, (there, kept) in facts.items() if there != kept)
    shape = (len(model.combinations), len(labels))
    if model.combinations.shape != shape or model.combinations.dtype != np.intp:
        yield "combinations are of another shape"
    for name, head in model.heads.items():
        yield from (f"{problem} of {name!r}" for problem in _head_problems(name, head, model, info))
    if not all(isinstance(rejector, Rejector) for rejector in model.rejectors.values()):
        yield "a rejector is of another type"
    lowest = model.lowest_p_values
    if (
        lowest.ndim != 1
        or lowest.dtype != np.float64
        or not (np.diff(lowest, prepend=0) >= 0).all()
    ):
        yield "the lowest p-values are not ascending"
    yield from _answer_problems(model, info)


def _questions(info: _Info) -> list[str]:
    """The names of the heads that a run has."""
    single = {Task.MULTI_LABEL: [ALL_LABELS], Task.JOINT: [COMBINATIONS]}
    return single.get(Task(info.task), list(info.attributes))


def _head_problems(name: str, head: Head, model: HeadModel, info: _Info) -> Iterator[str]:
    n_classes = {
        ALL_LABELS: sum(map(len, model.classes.values())),
        COMBINATIONS: len(model.combinations),
    }.get(name) or len(model.classes[name])
    exclusive = name == COMBINATIONS or (name != ALL_LABELS and model.exclusive[name])
    known = head.known
    if not isinstance(known, KnownClasses) or (len(known.constant), known.exclusive) != (
        n_classes,
        exclusive,
    ):
        yield "known classes"
    if type(head.calibrator) is not _calibrator_type(info, exclusive):
        yield "the calibration"
    if isinstance(info, HeadRunInfo):
        yield from _feature_head_problems(name, head, info)
    else:
        yield from _score_head_problems(name, head, info)


def _calibrator_type(info: _Info, exclusive: bool) -> type:
    method = calibration_for(info.calibrate, exclusive=exclusive)
    if method == "temperature" and exclusive:
        return SoftmaxCalibrator
    types = {"none": type(None), "isotonic": IsotonicCalibrator}
    return types.get(method, LogisticCalibrator)


def _feature_head_problems(name: str, head: Head, info: HeadRunInfo) -> Iterator[str]:
    widths = {block.name: block.n_features for block in info.blocks}
    columns = columns_of_blocks(widths, info.features)[
        name if name in info.features else info.attributes[0]
    ]
    if not isinstance(head, FeatureHead):
        yield f"the type {type(head).__name__}"
    elif head.columns != columns:
        yield f"the columns {head.columns} instead of {columns}"
    else:
        tuned = (info.tuned or {}).get(name)
        built = build_head(
            info.settings.with_estimator(_ANY_OWN),
            1,
            label_sets=not head.known.exclusive,
            widths=widths_of(columns),
            tuned=tuned.chosen if tuned else {},
        )
        there, kept = list(_kinds(head.estimator)), list(_kinds(built))
        if info.settings.own is not None:
            # Only what featurepipe puts around it, and its class, are known.
            kept[-1] = info.head
            there = [*there[: len(kept) - 1], _title_of_own(head.estimator, built)]
        if there != kept:
            yield f"the estimator {' > '.join(there)} instead of {' > '.join(kept)}"


def _title_of_own(estimator: Any, built: Pipeline) -> str:
    """The class of the user's own estimator in a head that was built like another one."""
    last = estimator[-1]
    return title_of(last.estimator if isinstance(built[-1], OneVsRestClassifier) else last)


def _kinds(value: Any) -> Iterator[str]:
    """Names of the types of an estimator and of all that it is made of."""
    if isinstance(value, FrozenEstimator):
        yield from _kinds(value.estimator)
    elif isinstance(value, BaseEstimator):
        yield type(value).__name__
        for part in value.get_params(deep=False).values():
            yield from _kinds(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _kinds(part)


def _score_head_problems(name: str, head: Head, info: NetworkRunInfo) -> Iterator[str]:
    ends = list(accumulate(info.network.outputs.values(), initial=0))
    scores = dict(zip(info.attributes, pairwise(ends), strict=True)).get(name, (0, ends[-1]))
    if not isinstance(head, ScoreHead):
        yield f"the type {type(head).__name__}"
    elif head.scores != scores:
        yield f"the scores {head.scores} instead of {scores}"
    elif not head.columns or not all(
        ends[-1] <= start < end <= ends[-1] + MAX_FEATURES for start, end in head.columns
    ):
        yield f"the columns {head.columns}"


def _answer_problems(model: HeadModel, info: _Info) -> Iterator[str]:
    """What is wrong with the answers for made-up rows."""
    X = np.random.default_rng(0).normal(size=(3, n_features_of(model, info))).astype(np.float32)
    X[0] = 0
    with np.errstate(all="ignore"):
        scores = model.predict(X)
        p_values = model.p_values(X, scores)
        image_p_values = model.image_p_values(p_values)
    for name, classes in model.classes.items():
        shares = (scores[name], p_values[name], image_p_values[name])
        if scores[name].shape != (len(X), len(classes)) or p_values[name].shape != (len(X),):
            yield f"the answers for {name!r} have another shape"
        elif not all(((share >= 0) & (share <= 1 + 1e-6)).all() for share in shares):
            yield f"the answers for {name!r} are not from 0 to 1"
