"""Fit the same heads chunk by chunk, where memory does not hold the features.

Each chunk is read once a pass, and handed to the final fit and to all fold fits of all questions.
Each fit takes the rows that it is fitted on.
"""

from collections.abc import Mapping

import numpy as np
from joblib import effective_n_jobs
from sklearn import config_context
from sklearn.base import BaseEstimator
from sklearn.utils.parallel import Parallel, delayed
from threadpoolctl import threadpool_limits

from featurepipe.errors import FitError
from featurepipe.manifest import Labels
from featurepipe.models.answers.arrays import Columns, Rows
from featurepipe.models.answers.finishing import FittedHeads, HeadFits, HeldOut, finish_heads
from featurepipe.models.answers.questions import Question, make_questions
from featurepipe.models.answers.row_chunks import RowChunks
from featurepipe.models.heads.estimators.bagged_sgd import BaggedSGDClassifier
from featurepipe.models.heads.estimators.logistic import LogisticSweep
from featurepipe.models.heads.fit_memory import FitMemory, in_words
from featurepipe.models.heads.fitting import Advance, check_finite
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.heads.pipelines import build_head
from featurepipe.models.heads.regression_passes import EXPECTED_PASSES, learn_regressions
from featurepipe.models.heads.row_passes import RowPasses, choose_passes, draw_chunks
from featurepipe.models.heads.streamed_head import StreamedHead
from featurepipe.splits import inner_folds


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
        If the head cannot be fitted in chunks, or the budget is too small even for that.
    """
    if needed.fits_within(budget):
        return None
    reads_all = (
        f"reads all features of the {needed.n_rows} training images at once, and needs about "
        f"{in_words(needed.in_memory())}, more than --memory {in_words(budget)}."
    )
    if not isinstance(_classifier(settings), BaggedSGDClassifier | LogisticSweep):
        solver = "" if settings.solver is None else f" --solver {settings.solver}"
        raise FitError(
            f"--head {settings.head}{solver} {reads_all} Raise --memory, or set --head bagged-sgd "
            "or logistic, which read chunk by chunk."
        )
    if settings.tune:
        raise FitError(f"--tune {reads_all} Raise --memory, or remove --tune.")
    return needed.chunk_rows(budget)


# Rows are checked when they are read.
@config_context(assume_finite=True)
@threadpool_limits.wrap(limits=1)
def stream_heads(
    rows: RowChunks,
    labels: dict[str, Labels],
    groups: Rows,
    settings: HeadSettings,
    *,
    columns: Mapping[str, Columns] | None = None,
    n_jobs: int = -1,
    progress: Advance | None = None,
) -> FittedHeads:
    """Fit heads as `featurepipe.models.heads.fitting.fit_heads` does, chunk by chunk.

    Questions, folds, groups and the objective are the same. Bagged SGD comes about as close to
    the minimum as in memory. Logistic regression finds the same minimum, for the C that is best
    among those around it; see `featurepipe.models.heads.estimators.logistic_stream`. For the
    memory it takes, see
    `featurepipe.models.heads.fit_memory.FitMemory`.

    Parameters
    ----------
    rows : RowChunks
        Features of the training rows, finite. Results depend a little on the chunks' size.
    labels, groups, settings, columns
        See `fit_heads`. The settings are those of a head that `plan_chunks` lets read chunks.
    n_jobs : int
        Threads; -1: one a processor core. Results do not depend on it.
    progress : callable, optional
        Called with the number of chunks done and of all chunks, over all passes.

    Returns
    -------
    FittedHeads

    Raises
    ------
    FitError
        See `fit_heads`.
    """
    n_rows = len(rows.reader)
    columns = columns or dict.fromkeys(labels, ((0, rows.reader.n_features),))
    questions = make_questions(labels, settings.task, columns, groups)
    streams = {
        question.name: _begin_streams(question, n_rows, settings)
        for question in questions.questions
    }
    is_logistic = isinstance(_classifier(settings), LogisticSweep)
    n_passes = choose_passes(max(len(question.rows) for question in questions.questions))
    n_steps = max(stream.n_steps for stream in _all_of(streams))
    chunks = draw_chunks(n_rows, rows.chunk_rows, settings.seed)
    n_all = n_steps + (EXPECTED_PASSES if is_logistic else n_passes) + 1
    n_threads = effective_n_jobs(n_jobs)
    passes = RowPasses(rows.reader, chunks, n_all, progress, reads_ahead=n_threads > 1)
    _learn_steps(passes, _all_of(streams), n_steps, n_threads)
    if is_logistic:
        of_questions = list(streams.values())
        learn_regressions(passes, rows, of_questions, settings.seed, n_threads)
    else:
        _learn_bags(passes, _all_of(streams), n_passes, n_threads)
    fits = _hold_out(passes, streams, n_threads)
    # Those of the folds are needed no more.
    del streams
    return finish_heads(questions, fits, rows, settings)


def _classifier(settings: HeadSettings) -> BaseEstimator:
    return build_head(settings, n_train_rows=2)[-1]


def _begin_streams(question: Question, n_rows: int, settings: HeadSettings) -> list[StreamedHead]:
    """The final head, then those of the folds."""
    position = np.full(n_rows, -1)
    position[question.rows] = np.arange(len(question.rows))
    folds = inner_folds(
        question.strata(settings.n_folds), question.groups, settings.n_folds, settings.seed
    )
    all_rows = np.arange(len(question.rows))
    return [
        StreamedHead.begin(question, position, train, settings)
        for train in [all_rows, *(train for train, _ in folds)]
    ]


def _all_of(streams: Mapping[str, list[StreamedHead]]) -> list[StreamedHead]:
    return [stream for of_question in streams.values() for stream in of_question]


def _learn_steps(
    passes: RowPasses, streams: list[StreamedHead], n_steps: int, n_threads: int
) -> None:
    """Fit the steps before the classifiers, in a pass for each."""
    is_finite = np.ones(len(passes.reader), bool)
    for number in range(n_steps):
        for X, rows in passes:
            is_finite[rows] = np.isfinite(X).all(axis=1)
            if is_finite.all():
                Parallel(n_jobs=n_threads, backend="threading")(
                    delayed(stream.learn_step)(number, X, rows) for stream in streams
                )
        check_finite(is_finite)
        for stream in streams:
            stream.end_step(number)
    for stream in streams:
        stream.end_steps()


def _learn_bags(passes: RowPasses, streams: list[StreamedHead], n_passes: int, n_jobs: int) -> None:
    for stream in streams:
        stream.begin_bag(n_passes)
    for _ in range(n_passes):
        for X, rows in passes:
            for stream in streams:
                stream.learn(X, rows, n_jobs)
    for stream in streams:
        stream.finish()


def _hold_out(
    passes: RowPasses, streams: Mapping[str, list[StreamedHead]], n_threads: int
) -> HeadFits:
    """Predict the rows that the folds' heads were not fitted on, in one pass."""
    held_out = {}
    for name, (final, *folds) in streams.items():
        n_classes = len(final.head.known.constant)
        # Half the memory of float64: all answers together are larger than a chunk.
        held_out[name] = HeldOut.nothing(len(passes.reader), n_classes, np.float32)
        held_out[name].folds.extend(fold.fold for fold in folds)
    for X, rows in passes:
        Parallel(n_jobs=n_threads, backend="threading")(
            delayed(fold.hold_out)(held_out[name], X, rows)
            for name, (_, *folds) in streams.items()
            for fold in folds
        )
    return HeadFits({name: final.head for name, (final, *_) in streams.items()}, held_out)
