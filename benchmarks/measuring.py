"""What several benchmarks need: the machine in words, seconds, Markdown tables, cached rows."""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin

from featurepipe.features.store import FeatureStore
from featurepipe.splits import Split
from featurepipe.workspace import Workspace


def describe_machine() -> str:
    """Name the processor, its cores and extensions, and the versions of the libraries."""
    cpu = Path("/proc/cpuinfo").read_text()
    names = [line.split(":")[1] for line in cpu.splitlines() if line.startswith("model name")]
    processor = names[0].strip() if names else "unknown processor"
    extensions = [name for name in ("avx512_bf16", "amx_bf16") if name in cpu]
    versions = ", ".join(f"{name} {version(name)}" for name in ("openvino", "keras", "tensorflow"))
    cores = f"{len(os.sched_getaffinity(0))} cores"
    return f"{', '.join([processor, cores, *extensions])}; {versions}"


def seconds(work: Callable[[], object]) -> float:
    """How long a function without arguments takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def table_row(cells: Iterable[object]) -> str:
    """One row of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def table_head(names: Sequence[str]) -> str:
    """The first two lines of a Markdown table."""
    return f"{table_row(names)}\n{table_row(['---'] * len(names))}"


def first_split(workspace: Workspace) -> Split:
    """The first split that was made in a workspace."""
    return min(map(Split.load, workspace.splits()), key=lambda split: split.number)


def read_rows(store: FeatureStore, ids: Sequence[str]) -> NDArray[np.float32]:
    """Features of some images, in the order of their ids."""
    row_of = {image_id: row for row, image_id in enumerate(store.ids)}
    return store.features(np.array([row_of[image_id] for image_id in ids]))


def class_scores(estimator: ClassifierMixin, X: NDArray[np.float32]) -> NDArray[np.float64]:
    """Decision scores with a column per class, also if there are two classes."""
    scores = estimator.decision_function(X)
    return np.column_stack([-scores, scores]) if scores.ndim == 1 else scores
