"""Heads fitted chunk by chunk on features that memory does not hold.

Chunks are made of short runs of consecutive rows, drawn at random over all of them, as of features
that lie class by class in their file (CorgiPile: Xu et al. 2022, Stochastic gradient descent
without full data shuffle). Each chunk is read once a pass, and handed to the final fit and to all
fold fits of all questions, each taking its own rows.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
from joblib import effective_n_jobs
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from featurepipe.errors import FitError
from featurepipe.manifest import Labels
from featurepipe.models.answers.finishing import FittedHeads, HeldOut, finish_heads
from featurepipe.models.answers.head_model import (
    Columns,
    Features,
    Head,
    HeadModel,
    Probabilities,
    Rows,
    side_by_side,
)
from featurepipe.models.answers.questions import Question, make_questions, targets_of
from featurepipe.models.heads.fit_memory import FitMemory, in_words
from featurepipe.models.heads.fitting import check_finite
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.heads.registry import build_head
from featurepipe.splits import inner_folds

# Consecutive rows, for the speed of reading: 128 KB of 2,048 features.
_RUN = 16
# So many steps a member: with 5 to 30 passes the objective ended at most 3 % above that of 30
# passes in memory, on 12,000 and 40,000 drawn rows of 10 and 20 classes.
_STEPS, _BATCH, _SHARE_DRAWN = 3000, 64, 0.39
_FEWEST_PASSES, _MOST_PASSES = 5, 30


class RowReader(Protocol):
    """Features of training rows that are read when they are asked for."""

    @property
    def n_features(self) -> int:
        """Features of a row."""

    def __len__(self) -> int:
        """Rows that there are."""

    def read(self, rows: Rows) -> NDArray[np.float32]:
        """Some rows, in any order: ndarray of shape (n, n_features), float32."""


def plan_chunks(settings: HeadSettings, needed: FitMemory, budget: int) -> int | None:
    """Rows of a chunk if features must be read in chunks; None if memory holds them all.

    Parameters
    ----------
    settings : HeadSettings
    needed : FitMemory
    budget : int
        Bytes.

    Raises
    ------
    FitError
        If they must, and the head cannot be fitted so, or the budget is too little even then.
    """
    if needed.fits_within(budget):
        return None
    head = build_head(
        settings.head, solver=settings.solver, n_train_rows=2, variance_threshold="1%", seed=0
    )
    if not hasattr(head.steps[-1][1], "partial_fit"):
        raise FitError(
            f"--head {settings.head} --solver {settings.solver} reads all features of the "
            f"{needed.n_rows} training images at once, and would need about "
            f"{in_words(needed.in_memory())}: more than --memory {in_words(budget)}. Allow that "
            "much, or set --head bagged-sgd, which reads chunk by chunk."
        )
    if settings.tune:
        raise FitError(
            f"--tune reads all features of the {needed.n_rows} training images at once, and would "
            f"need about {in_words(needed.in_memory())}: more than --memory {in_words(budget)}. "
            "Allow that much, or leave it out."
        )
    return needed.chunk_rows(budget)


@threadpool_limits.wrap(limits=1)
def stream_heads(
    reader: RowReader,
    labels: dict[str, Labels],
    groups: NDArray[np.intp],
    settings: HeadSettings,
    *,
    chunk_rows: int,
    columns: Mapping[str, Columns] | None = None,
    n_jobs: int = -1,
    progress: Callable[[int, int], object] | None = None,
) -> FittedHeads:
    """What `featurepipe.models.heads.fitting.fit_heads` does, with few rows in memory at a time.

    The same questions, folds and groups; the objective is that of fitting in memory, whose
    minimum steps over chunks reach as nearly with as many of them. Memory: see
    `featurepipe.models.heads.fit_memory.FitMemory`.

    Parameters
    ----------
    reader : RowReader
        Features of the training rows, finite.
    labels, groups, settings, columns
        As in `fit_heads`; the head's classifier has `partial_fit`.
    chunk_rows : int
        Rows of a chunk, at most. Results depend on it a little.
    n_jobs : int
        Threads; -1: one a processor core. Results do not depend on it.
    progress : callable, optional
        Called with the numbers of chunks done and of all, over all passes.

    Returns
    -------
    FittedHeads

    Raises
    ------
    FitError
        As in `fit_heads`.
    """
    columns = columns or dict.fromkeys(labels, ((0, reader.n_features),))
    questions, combinations = make_questions(labels, settings.task, columns, groups)
    n_passes = choose_passes(max(len(question.rows) for question in questions))
    streams = {
        question.name: _streams_of(question, len(reader), settings, n_passes)
        for question in questions
    }
    heads, held_out = _run_passes(
        reader,
        streams,
        draw_chunks(len(reader), chunk_rows, settings.seed),
        n_passes,
        n_jobs,
        progress,
    )
    return finish_heads(
        questions,
        heads,
        held_out,
        combinations,
        labels,
        groups,
        settings,
        predict_rows=partial(_predict_rows, reader, chunk_rows),
        read_rows=reader.read,
        most_rows=chunk_rows,
    )


def predict_in_chunks(
    model: HeadModel, reader: RowReader, chunk_rows: int
) -> tuple[dict[str, Probabilities], dict[str, Probabilities], float]:
    """`HeadModel.predict` and `HeadModel.p_values` of every row, read in chunks.

    Parameters
    ----------
    model : HeadModel
    reader : RowReader
    chunk_rows : int

    Returns
    -------
    scores : dict of str to ndarray of shape (n_rows, n_classes), float64
    p_values : dict of str to ndarray of shape (n_rows,), float64
    seconds : float
        What that took, without reading.
    """
    scores = {name: np.empty((len(reader), len(each))) for name, each in model.classes.items()}
    p_values = {name: np.empty(len(reader)) for name in model.classes}
    seconds = 0.0
    for rows in _in_order(np.arange(len(reader)), chunk_rows):
        X = reader.read(rows)
        started = time.perf_counter()
        of_chunk = model.predict(X)
        of_likeness = model.p_values(X, of_chunk)
        for name in scores:
            scores[name][rows], p_values[name][rows] = of_chunk[name], of_likeness[name]
        seconds += time.perf_counter() - started
    return scores, p_values, seconds


def choose_passes(n_rows: int) -> int:
    """Passes over so many rows: as make about 3,000 steps of a member, 5 to 30.

    Examples
    --------
    >>> choose_passes(2_000), choose_passes(60_000), choose_passes(1_000_000)
    (30, 9, 5)
    """
    wanted = -(-_STEPS * _BATCH // (_SHARE_DRAWN * n_rows))
    return int(min(max(wanted, _FEWEST_PASSES), _MOST_PASSES))


def draw_chunks(n_rows: int, chunk_rows: int, seed: int) -> list[Rows]:
    """Divide rows at random into chunks of about equal sizes, at most `chunk_rows`.

    Parameters
    ----------
    n_rows, chunk_rows, seed : int

    Returns
    -------
    list of ndarray of intp
        Ascending positions of the rows of each chunk.
    """
    runs = np.random.default_rng(seed).permutation(-(-n_rows // _RUN))
    rows = (runs[:, None] * _RUN + np.arange(_RUN)).ravel()
    rows = rows[rows < n_rows]
    return [np.sort(chunk) for chunk in np.array_split(rows, -(-n_rows // chunk_rows))]


def _in_order(rows: Rows, chunk_rows: int) -> Iterator[Rows]:
    return (rows[start : start + chunk_rows] for start in range(0, len(rows), chunk_rows))


def _predict_rows(reader: RowReader, chunk_rows: int, head: Head, rows: Rows) -> Probabilities:
    probabilities = np.empty((len(rows), len(head.constant)))
    for places in _in_order(np.arange(len(rows)), chunk_rows):
        probabilities[places] = head.predict_proba(reader.read(rows[places]))
    return probabilities


@dataclass
class _Stream:
    """One head that is fitted chunk by chunk.

    `place` has for each training row its place among the question's, or -1; `trains` says of
    these which the head is fitted on.
    """

    question: Question
    place: Rows
    trains: NDArray[np.bool_]
    head: Head
    blocks: list[tuple[slice, Pipeline]] = field(default_factory=list)
    known: dict[str, Any] = field(default_factory=dict)

    @property
    def classifier(self) -> Any:
        assert self.head.estimator is not None
        return self.head.estimator.steps[-1][1]

    @property
    def n_steps(self) -> int:
        return max((len(steps) for _, steps in self.blocks), default=0)

    def learn_step(self, number: int, X: Features, rows: Rows) -> None:
        """Let the step of this number learn from a chunk, the steps before it being learnt."""
        chosen, _ = self._own(rows)
        if not len(chosen):
            return
        features = side_by_side(X, self.question.columns, chosen)
        for columns, steps in self.blocks:
            block = features[:, columns]
            block = steps[:number].transform(block) if number else block
            steps.steps[number][1].partial_fit(block)

    def end_step(self, number: int) -> None:
        for _, steps in self.blocks:
            if hasattr(step := steps.steps[number][1], "require_features"):
                step.require_features()

    def end_steps(self) -> None:
        if self.head.estimator is None:
            return
        first = self.head.estimator.steps[0][1]
        if isinstance(first, ColumnTransformer):
            learnt = [
                (name, FrozenEstimator(steps), columns)
                for (name, _, columns), (_, steps) in zip(
                    first.transformers, self.blocks, strict=True
                )
            ]
            width = sum(end - start for start, end in self.question.columns)
            first.set_params(transformers=learnt).fit(np.zeros((1, width), np.float32))

    def learn(self, X: Features, rows: Rows) -> None:
        """Take the classifier's steps over a chunk."""
        chosen, places = self._own(rows)
        if self.head.estimator is None or not len(chosen):
            return
        features = self.head.estimator[:-1].transform(
            side_by_side(X, self.question.columns, chosen)
        )
        truth = self.question.truth[places]
        targets = targets_of(truth, self.head.learnt, self.head.exclusive)
        self.classifier.partial_fit(features, targets, **self.known)

    def end(self) -> None:
        if self.head.estimator is not None:
            self.classifier.set_params(n_jobs=None)

    def _own(self, rows: Rows) -> tuple[Rows, Rows]:
        """Of a chunk's rows the positions in it that are fitted on, and their places."""
        places = self.place[rows]
        chosen = np.flatnonzero((places >= 0) & self.trains[places])
        return chosen, places[chosen]


def _streams_of(
    question: Question, n_rows: int, settings: HeadSettings, n_passes: int
) -> list[_Stream]:
    """The final head's, then those of the folds."""
    place = np.full(n_rows, -1)
    place[question.rows] = np.arange(len(question.rows))
    folds = inner_folds(
        question.strata(settings.n_folds), question.groups, settings.n_folds, settings.seed
    )
    all_rows = np.arange(len(question.rows))
    return [
        _begin_stream(question, place, train, settings, n_passes)
        for train in [all_rows, *(train for train, _ in folds)]
    ]


def _begin_stream(
    question: Question,
    place: Rows,
    train: Rows,
    settings: HeadSettings,
    n_passes: int,
) -> _Stream:
    trains = np.zeros(len(question.rows), bool)
    trains[train] = True
    counts = question.truth[train].sum(axis=0)
    learnt = np.flatnonzero((counts > 0) & (counts < len(train)))
    constant = (counts == len(train)).astype(np.float64)
    head = Head(None, learnt, constant, question.exclusive, question.columns)
    if not len(learnt):
        return _Stream(question, place, trains, head)
    estimator = build_head(
        settings.head,
        solver=settings.solver,
        n_train_rows=len(train),
        variance_threshold=settings.variance_threshold,
        seed=settings.seed,
        one_vs_rest=not question.exclusive,
        widths=[end - start for start, end in question.columns],
    )
    estimator.steps[-1][1].set_params(max_iter=n_passes)
    first = estimator.steps[0][1]
    blocks = [(slice(None), estimator[:-1])]
    if isinstance(first, ColumnTransformer):
        blocks = [(columns, steps) for _, steps, columns in first.transformers]
    counts = counts[learnt]
    known: dict[str, Any] = {"classes": learnt, "class_counts": counts, "n_samples": len(train)}
    if not question.exclusive and len(learnt) == 1:
        known |= {"classes": [0, 1], "class_counts": [len(train) - counts[0], counts[0]]}
    return _Stream(question, place, trains, replace(head, estimator=estimator), blocks, known)


@dataclass
class _Passes:
    """Goes over all chunks, again and again."""

    reader: RowReader
    chunks: list[Rows]
    n_passes: int
    progress: Callable[[int, int], object] | None
    n_done: int = 0

    def __iter__(self) -> Iterator[tuple[NDArray[np.float32], Rows]]:
        for rows in self.chunks:
            yield self.reader.read(rows), rows
            self.n_done += 1
            if self.progress is not None:
                self.progress(self.n_done, self.n_passes * len(self.chunks))


def _run_passes(
    reader: RowReader,
    streams: dict[str, list[_Stream]],
    chunks: list[Rows],
    n_passes: int,
    n_jobs: int,
    progress: Callable[[int, int], object] | None,
) -> tuple[dict[str, Head], dict[str, list[HeldOut]]]:
    every = [stream for of_question in streams.values() for stream in of_question]
    n_steps = max(stream.n_steps for stream in every)
    passes = _Passes(reader, chunks, n_steps + n_passes + 1, progress)
    _learn_steps(passes, every, n_steps)
    for stream in every:
        if stream.head.estimator is not None:
            stream.classifier.set_params(n_jobs=effective_n_jobs(n_jobs))
    for _ in range(n_passes):
        for X, rows in passes:
            for stream in every:
                stream.learn(X, rows)
    for stream in every:
        stream.end()
    held_out = _hold_out(passes, streams)
    return {name: of_question[0].head for name, of_question in streams.items()}, held_out


def _learn_steps(passes: _Passes, streams: list[_Stream], n_steps: int) -> None:
    """One pass for each step before the classifier, since each reads what the last one leaves."""
    is_finite = np.ones(len(passes.reader), bool)
    for number in range(n_steps):
        for X, rows in passes:
            is_finite[rows] = np.isfinite(X).all(axis=1)
            if is_finite.all():
                for stream in streams:
                    stream.learn_step(number, X, rows)
        check_finite(is_finite)
        for stream in streams:
            stream.end_step(number)
    for stream in streams:
        stream.end_steps()


def _hold_out(passes: _Passes, streams: dict[str, list[_Stream]]) -> dict[str, list[HeldOut]]:
    """What the folds' heads say of the rows that they were not fitted on, in one pass."""
    held_out = {
        name: [_nothing_said(stream) for stream in of_question[1:]]
        for name, of_question in streams.items()
    }
    for X, rows in passes:
        for name, of_question in streams.items():
            for stream, fold in zip(of_question[1:], held_out[name], strict=True):
                places = stream.place[rows]
                chosen = np.flatnonzero((places >= 0) & ~stream.trains[places])
                of_fold = np.searchsorted(fold.rows, places[chosen])
                fold.own[of_fold] = stream.head.predict_proba(X[chosen])
                fold.scores[of_fold] = stream.head.decision_scores(X[chosen])
    return held_out


def _nothing_said(stream: _Stream) -> HeldOut:
    rows = np.flatnonzero(~stream.trains)
    own, scores = np.empty((2, len(rows), len(stream.head.constant)))
    return HeldOut(rows, replace(stream.head, estimator=None), own, scores)
