"""FitTask: one run of heads, from cached features to what is saved."""

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from joblib import effective_n_jobs
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from featurepipe.errors import UsageError
from featurepipe.manifest import Labels, Manifest
from featurepipe.models.answers.finishing import FittedHeads
from featurepipe.models.answers.head_model import HeadModel
from featurepipe.models.answers.row_chunks import RowChunks
from featurepipe.models.heads.fit_memory import FitMemory, available_memory, in_words, parse_memory
from featurepipe.models.heads.fitting import fit_heads
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.heads.registry import COMPARES_PAIRS
from featurepipe.models.heads.streaming import plan_chunks, stream_heads
from featurepipe.models.heads.tuning import describe_tuned
from featurepipe.models.studies.head_choice import HeadTrial
from featurepipe.predictions import Predictions
from featurepipe.progress import Progress
from featurepipe.provenance import library_versions, machine
from featurepipe.reports.board import Costs
from featurepipe.reports.figures import accuracies, reliability
from featurepipe.runs.feature_set import FeatureSet
from featurepipe.runs.fitted_on import INPUTS, inputs_table, split_facts, store_facts
from featurepipe.runs.naming import Digests, digests_of
from featurepipe.runs.run_facts import Calibration, HeadTrialFacts, TunedHead, none_if_nan
from featurepipe.runs.run_folder import NewRun
from featurepipe.runs.run_info import HeadRunInfo
from featurepipe.runs.split_predictions import n_labelled, predictions_of
from featurepipe.splits import Split

logger = logging.getLogger(__name__)

LIBRARIES = ("numpy", "numba", "scipy", "scikit-learn", "skops")
"""Distributions that decide the heads."""


@dataclass(frozen=True)
class FitLimits:
    """What a fit may use of the machine.

    Attributes
    ----------
    n_jobs : int
        Processor cores; -1: all.
    memory_bytes : int or None
        Bound of the memory; None: no bound.

    Raises
    ------
    UsageError
        If the number of cores is 0.
    """

    n_jobs: int = -1
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.n_jobs == 0:
            raise UsageError("--jobs is 0. Set a number of processor cores, or -1 for all.")

    @classmethod
    def of(cls, n_jobs: int, memory: str | None) -> "FitLimits":
        """Read the options of a command; see `featurepipe.fit`."""
        return cls(n_jobs, None if memory is None else parse_memory(memory))


@dataclass(frozen=True)
class FitTask:
    """One run of heads that is to be fitted.

    Attributes
    ----------
    manifest : Manifest
    split : Split
    feature_set : FeatureSet
    settings : HeadSettings
    limits : FitLimits
    head_trials : tuple of HeadTrial
        The trials that chose the head; empty if it was named.
    """

    manifest: Manifest
    split: Split
    feature_set: FeatureSet
    settings: HeadSettings
    limits: FitLimits
    head_trials: tuple[HeadTrial, ...] = ()

    @property
    def title(self) -> str:
        """The name of the run, without a number."""
        head = [] if self.head_trials else [self.settings.head]
        task = [] if self.settings.task == "per-attribute" else [self.settings.task]
        return "-".join([self.feature_set.title, *head, *task])

    @property
    def train(self) -> NDArray[np.intp]:
        """Positions in the split of the training images."""
        return self.split.rows("train")

    @property
    def train_ids(self) -> NDArray[np.object_]:
        """Ids of the training images."""
        return self.split.ids[self.train]

    @property
    def groups(self) -> NDArray[np.int64]:
        """Groups of the training images."""
        return self.split.groups[self.train]

    @cached_property
    def labels(self) -> dict[str, Labels]:
        """Labels of the training images."""
        return self.manifest.labels(self.train_ids)

    @cached_property
    def needed_memory(self) -> FitMemory:
        """What fitting needs."""
        n_features = self.feature_set.rows(self.train_ids).n_features
        return memory_of_fit(self.settings, self.labels, n_features)

    @cached_property
    def chunk_rows(self) -> int | None:
        """Rows that are read at a time; None: all at once.

        Raises
        ------
        FitError
            If memory is bounded, and too small for these heads.
        """
        memory_bytes = self.limits.memory_bytes
        if memory_bytes is None:
            return None
        return plan_chunks(self.settings, self.needed_memory, memory_bytes)

    @property
    def n_jobs(self) -> int:
        """Fits side by side."""
        n_jobs, memory_bytes = effective_n_jobs(self.limits.n_jobs), self.limits.memory_bytes
        if memory_bytes is None:
            return n_jobs
        return min(n_jobs, self.needed_memory.fits_within(memory_bytes) or n_jobs)

    def digests(self) -> Digests:
        """Digests of everything that decides the run."""
        # Heads that are fitted chunk by chunk depend on the size of the chunks.
        settings = {**self.settings.as_dict(), "chunk_rows": self.chunk_rows}
        # A head that was chosen by trials may be another one on other splits of the series.
        shared = settings | {"head": None, "solver": None} if self.head_trials else settings
        return digests_of(
            [self.feature_set.inputs, settings],
            [self.feature_set.family_inputs, shared],
            self.split,
            self.manifest,
        )


def memory_of_fit(
    settings: HeadSettings, labels: Mapping[str, Labels], n_features: int
) -> FitMemory:
    """What fitting heads needs.

    Parameters
    ----------
    settings : HeadSettings
    labels : mapping of str to Labels
        Of the training images.
    n_features : int
    """
    return FitMemory.of(
        labels,
        n_features,
        settings.task,
        settings.n_folds,
        pairs=settings.own is None and settings.head in COMPARES_PAIRS,
        axes=settings.own is None and settings.head == "logistic",
    )


# One BLAS thread, so that answers do not depend on the number of cores.
@threadpool_limits.wrap(limits=1)
def fit_task(task: FitTask, name: str) -> NewRun:
    """Fit the heads of a run, and predict its test images once.

    Parameters
    ----------
    task : FitTask
    name : str
        Name of the run, for messages.

    Raises
    ------
    FitError
        See `featurepipe.models.heads.fitting.fit_heads`.
    """
    if task.limits.memory_bytes is None:
        _warn_of_memory(task)
    started = time.perf_counter()
    fitted = _fit_heads(task, name)
    fit_s = time.perf_counter() - started
    _tell_tuned(fitted.model, name)
    split, model = task.split, fitted.model
    selection = predictions_of(task.labels, split, task.train, model, fitted.out_of_fold)
    calibration = Calibration.model_validate(
        {
            "uncalibrated": reliability(replace(selection, scores=fitted.uncalibrated)),
            "calibrated": reliability(selection),
        }
    )
    # They are as large as the probabilities that a run keeps.
    del fitted
    tested = np.concatenate([split.rows("test"), split.rows("unseen")])
    rows = task.feature_set.rows(split.ids[tested])
    scores, p_values, head_s = RowChunks(rows, task.chunk_rows or len(rows)).predict(model)
    images_per_s = task.feature_set.images_per_s
    costs = Costs(
        extract_images_per_s=none_if_nan(images_per_s),
        fit_s=fit_s,
        predict_ms_per_image=none_if_nan(1000 * (head_s / len(rows) + 1 / images_per_s)),
    )
    return NewRun(
        info=_info(task, model, selection, calibration, costs),
        model=model,
        predictions=predictions_of(
            task.manifest.labels(split.ids[tested]), split, tested, model, scores, p_values
        ),
        selection=selection,
        files={INPUTS: inputs_table(task.feature_set, split)},
    )


def _fit_heads(task: FitTask, title: str) -> FittedHeads:
    feature_set, chunk_rows = task.feature_set, task.chunk_rows
    training = (task.labels, task.groups, task.settings)
    with Progress(None, title, "fit" if chunk_rows is None else "chunk") as progress:
        options: dict[str, Any] = {
            "columns": feature_set.columns,
            "n_jobs": task.n_jobs,
            "progress": progress.report,
        }
        if chunk_rows is None:
            return fit_heads(feature_set.read(task.train_ids), *training, **options)
        rows = RowChunks(feature_set.rows(task.train_ids), chunk_rows)
        return stream_heads(rows, *training, **options)


def _info(
    task: FitTask,
    model: HeadModel,
    selection: Predictions,
    calibration: Calibration,
    costs: Costs,
) -> HeadRunInfo:
    feature_set, split, settings = task.feature_set, task.split, task.settings
    digests = task.digests()
    return HeadRunInfo(
        digest=digests.run,
        family=digests.family,
        attributes=task.manifest.attribute_names,
        backbone=feature_set.backbones(),
        view=feature_set.views(),
        weights=feature_set.weights(),
        n_train=n_labelled(selection.labels, settings.task),
        selection_accuracy=accuracies(selection),
        reliability=calibration,
        split=split_facts(split),
        settings=settings,
        features=feature_set.blocks,
        blocks=feature_set.block_facts(),
        stores=store_facts(feature_set, split),
        objective=feature_set.objective,
        feature_trials=feature_set.trial_facts(),
        head_trials=tuple(HeadTrialFacts(**asdict(trial)) for trial in task.head_trials),
        memory_bytes=task.limits.memory_bytes,
        chunk_rows=task.chunk_rows,
        tuned=_tuned(model) if settings.tune else None,
        costs=costs,
        versions=library_versions(*LIBRARIES),
        machine=machine(),
    )


def _tuned(model: HeadModel) -> dict[str, TunedHead | None]:
    return {
        name: TunedHead(**model.tuned[name]) if name in model.tuned else None
        for name in model.heads
    }


def _tell_tuned(model: HeadModel, name: str) -> None:
    for attribute, tuned in model.tuned.items():
        logger.info("Tuned %s of %s: %s.", attribute, name, describe_tuned(tuned))


def _warn_of_memory(task: FitTask) -> None:
    n_bytes, available = task.needed_memory.in_memory(task.n_jobs), available_memory()
    if n_bytes > available / 2:
        logger.warning(
            "Fitting may need %s of the %s of available memory. Set a bound with --memory SIZE: "
            "bagged SGD and logistic regression then read features in chunks if they do not fit.",
            in_words(n_bytes),
            in_words(available),
        )
