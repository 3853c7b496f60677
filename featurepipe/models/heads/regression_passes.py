"""Fit logistic heads by passes over rows that memory does not hold, all in the same passes."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy.linalg import eigh
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from featurepipe.models.answers.arrays import Features, Rows, side_by_side
from featurepipe.models.answers.head import FeatureHead
from featurepipe.models.answers.row_chunks import RowChunks
from featurepipe.models.heads.estimators.logistic import C_WITHOUT_FOLDS, LogisticSweep
from featurepipe.models.heads.estimators.logistic_stream import LogisticStream, Question
from featurepipe.models.heads.estimators.streamed_problems import PassEvaluation, Preparation
from featurepipe.models.heads.linear_form import prepared_columns
from featurepipe.models.heads.row_passes import RowPasses, draw_chunks
from featurepipe.models.heads.streamed_head import StreamedHead

EXPECTED_PASSES = 30
"""About so many passes find C and the weights, on 20,000 drawn rows of classes that overlap; up to
four times as many where a head separates nearly all rows."""

# Rows of a matrix product: results do not depend on the number of threads.
_BLOCK = 1024
# With so many rows for each feature, axes are near enough to those of all rows.
_ROWS_A_FEATURE = 16
# Rows on which each head is first fitted in memory.
_ROWS_TO_START = 4096

_Numbers = NDArray[np.float64]
_Start = tuple[int, Features]


def learn_regressions(
    passes: RowPasses,
    rows: RowChunks,
    heads: Sequence[Sequence[StreamedHead]],
    seed: int,
    n_jobs: int,
) -> None:
    """Fit the regressions of all heads, after the steps before them.

    Parameters
    ----------
    passes : RowPasses
    rows : RowChunks
        The same rows, for a sample of them.
    heads : sequence of sequence of StreamedHead
        The heads of each question: they share principal axes.
    seed : int
    n_jobs : int
        Threads; results do not depend on it.
    """
    streams = {
        id(head): _begin(head) for of_question in heads for head in of_question if head.is_learnt
    }
    learnt = [[head for head in of_question if head.is_learnt] for of_question in heads]
    centre, covariance = _second_moments(rows, seed)
    for of_question in filter(None, learnt):
        _prepare(of_question, [streams[id(head)] for head in of_question], centre, covariance)
    del covariance
    starts = _starts(
        [head for of_question in learnt for head in of_question], streams, rows, seed, n_jobs
    )
    asking = [
        stream.fit(*starts[name]) for name, stream in streams.items()
    ]  # fmt: skip
    waiting = [(steps, next(steps)) for steps in asking]
    while waiting:
        answers = _evaluate([question for _, question in waiting], passes, centre, n_jobs)
        still = []
        for (steps, _), answer in zip(waiting, answers, strict=True):
            try:
                still.append((steps, steps.send(answer)))
            except StopIteration:
                continue
        waiting = still
        passes.expect(2 if waiting else 1)


def _begin(head: StreamedHead) -> LogisticStream:
    assert isinstance(head.head, FeatureHead)
    known, truth = head.head.known, head.question.truth
    classes, _ = head.class_counts()
    model: LogisticSweep = head.head.estimator.steps[-1][1]
    return LogisticStream(
        model,
        classes,
        head.position,
        head.is_fitted_on,
        lambda positions: known.targets(truth[positions]),
        head.question.groups,
        label_sets=known.as_label_sets,
    )


def _second_moments(rows: RowChunks, seed: int) -> tuple[_Numbers, Features]:
    """Mean and covariance of all columns, of a sample of the rows."""
    n_rows, n_features = len(rows.reader), rows.reader.n_features
    n_wanted, n_read = _ROWS_A_FEATURE * n_features, 0
    centre, sums = np.zeros(n_features), np.zeros(n_features)
    products = np.zeros((n_features, n_features), np.float32)
    for chunk in draw_chunks(n_rows, rows.chunk_rows, seed):
        X = rows.reader.read(chunk[: n_wanted - n_read])
        if not n_read:
            centre = X.mean(axis=0, dtype=np.float64)
        X = X - centre.astype(np.float32)
        sums += X.sum(axis=0, dtype=np.float64)
        for start in range(0, len(X), _BLOCK):
            block = X[start : start + _BLOCK]
            products += block.T @ block
        n_read += len(X)
        if n_read >= n_wanted:
            break
    mean = (sums / n_read).astype(np.float32)
    products /= n_read
    products -= mean[:, None] * mean
    return centre, products


def _prepare(
    heads: Sequence[StreamedHead],
    streams: Sequence[LogisticStream],
    centre: _Numbers,
    covariance: Features,
) -> None:
    """Give the streams of a question their preparations, with the same axes for all."""
    prepared = [_prepared_columns(head, len(centre)) for head in heads]
    # The final head comes first; a fold may keep columns that it does not.
    largest = np.max([scales for scales, _ in prepared], axis=0)
    common = np.where(prepared[0][0] == 0, largest, prepared[0][0])
    columns = np.flatnonzero(common)
    scales = common[columns].astype(np.float32)
    scaled = covariance[np.ix_(columns, columns)]
    scaled *= scales[:, None] * scales
    squares, axes = eigh(scaled, driver="evd", overwrite_a=True, check_finite=False)
    least = np.finfo(np.float32).eps * len(squares) * squares[-1]
    variances = np.append(np.maximum(squares, least), 1).astype(np.float32)
    for stream, (of_head, shifts) in zip(streams, prepared, strict=True):
        stream.preparation = Preparation(
            columns, of_head[columns], shifts[columns], axes, variances
        )


def _prepared_columns(head: StreamedHead, n_features: int) -> tuple[_Numbers, _Numbers]:
    """Scales and shifts of all columns of the rows; 0 for those that the head does not keep."""
    assert isinstance(head.head, FeatureHead)
    read = np.concatenate([np.arange(start, end) for start, end in head.question.columns])
    scales, shifts = np.zeros((2, n_features))
    scales[read], shifts[read] = prepared_columns(head.head.estimator[:-1], len(read))
    return scales, shifts


def _starts(
    heads: Sequence[StreamedHead],
    streams: dict[int, LogisticStream],
    rows: RowChunks,
    seed: int,
    n_jobs: int,
) -> dict[int, _Start]:
    """Where each fit starts: the C and the weights of the head on a sample of its rows."""
    n_sampled = min(rows.chunk_rows, _ROWS_TO_START)
    sample = draw_chunks(len(rows.reader), n_sampled, seed)[0]
    X = rows.reader.read(sample)
    side_by_side = max(1, min(n_jobs, rows.chunk_rows // n_sampled))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = Parallel(n_jobs=side_by_side, backend="threading")(
            delayed(_start)(head, streams[id(head)], X, sample) for head in heads
        )
    return {id(head): start for head, start in zip(heads, found, strict=True)}


def _start(head: StreamedHead, stream: LogisticStream, X: Features, rows: Rows) -> _Start:
    assert isinstance(head.head, FeatureHead)
    model, preparation = stream.model, stream.preparation
    n_outputs = len(model.classes_) - (model.kind_ == "binary")
    weights = np.zeros((n_outputs, len(preparation.variances)), np.float32)
    chosen, positions = head.fitted_rows(rows)
    targets = head.head.known.targets(head.question.truth[positions])
    C = C_WITHOUT_FOLDS
    if len(np.unique(targets, axis=0)) > 1:
        features = side_by_side(X, head.question.columns, chosen)
        prepared = head.head.estimator[:-1].transform(features)
        small = clone(model).fit(prepared, targets, head.question.groups[positions])
        C, learnt = small.C_, np.searchsorted(model.classes_, small.classes_)
        kept = np.flatnonzero(preparation.kept[:-1])
        of_small = np.column_stack([small.coef_, small.intercept_])
        if model.kind_ == "classes":
            # Classes that the sample lacks start as improbable as the least of the others.
            if small.kind_ == "binary":
                of_small = np.vstack([-of_small, of_small]) / 2
            weights[:, -1] = of_small[:, -1].min()
        elif model.kind_ == "binary":
            learnt = np.array([0])
        weights[np.ix_(learnt, np.append(kept, -1))] = of_small
    return int(np.abs(np.log(np.asarray(model.Cs) / C)).argmin()), weights


def _evaluate(
    questions: Sequence[Question], passes: RowPasses, centre: _Numbers, n_jobs: int
) -> list[PassEvaluation]:
    """Answer questions in one pass over the rows."""
    raw = [
        problems.stream.preparation.raw_weights(weights.reshape(-1, weights.shape[2]), centre)
        for problems, weights in questions
    ]
    weights = np.vstack([of_problems for of_problems, _ in raw])
    intercepts = np.concatenate([of_problems for _, of_problems in raw])
    ends = np.cumsum([0, *(len(of_problems) for of_problems, _ in raw)])
    parts = [slice(start, end) for start, end in pairwise(ends.tolist())]
    run = partial(_sums, questions, parts, weights, intercepts, centre.astype(np.float32))
    totals: list[PassEvaluation] = []
    for of_block in _blocks(passes, run, n_jobs):
        if not totals:
            totals = of_block
        else:
            for total, sums in zip(totals, of_block, strict=True):
                total.add(sums)
    return [
        problems.means(total, centre)
        for (problems, _), total in zip(questions, totals, strict=True)
    ]


def _blocks(passes: RowPasses, run: Callable[..., Any], n_jobs: int) -> Iterator[Any]:
    """What `run` returns for each block of rows, in their order."""
    pool = Parallel(n_jobs=n_jobs, backend="threading", return_as="generator")
    for X, rows in passes:
        starts = range(0, len(X), _BLOCK)
        yield from pool(
            delayed(run)(X[start : start + _BLOCK], rows[start : start + _BLOCK])
            for start in starts
        )


def _sums(
    questions: Sequence[Question],
    parts: Sequence[slice],
    weights: Features,
    intercepts: Features,
    centre: _Numbers,
    X: Features,
    rows: Rows,
) -> list[PassEvaluation]:
    """Sums of all problems over a block of rows: two matrix products for all of them."""
    centred = X - centre
    scores = np.ascontiguousarray((centred @ weights.T).T)
    scores += intercepts[:, None]
    found = []
    for (problems, _), part in zip(questions, parts, strict=True):
        sums, scores[part] = problems.evaluate(scores[part], rows)
        found.append(sums)
    gradients = np.hstack([scores @ centred, scores.sum(axis=1, keepdims=True)]).astype(np.float64)
    for sums, part in zip(found, parts, strict=True):
        sums.gradient = gradients[part]
    return found
