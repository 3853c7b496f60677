"""What several benchmarks need: the machine, processes, seconds, Markdown tables, cached rows."""

import inspect
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin

from featurepipe.features.store import FeatureStore, StoreKey, WeightsKey
from featurepipe.splits import Split
from featurepipe.workspace import Workspace

DRAWN_BY = {"engine": "drawn", "machine": "", "versions": {},
            "weights_label": "drawn", "weights_source": "drawn"}  # fmt: skip
"""What made a store of drawn features."""

# Some libraries end their tracebacks with advice: the reason is repeated after it.
_CALL = """
import importlib, json, sys, traceback
from pathlib import Path
_, folder, module, name, given = sys.argv
sys.path.insert(0, folder)
images, *others = json.loads(given)
try:
    result = getattr(importlib.import_module(module), name)(Path(images), *others)
except Exception as error:
    traceback.print_exc()
    reason = (str(error).splitlines() or [""])[0]
    sys.exit(f"{type(error).__name__}: {reason}")
print(json.dumps(result))
"""


def drawn_key(precision: str = "float32") -> StoreKey:
    """The key of a store of drawn features."""
    return StoreKey(
        "mobilenet_v2", WeightsKey("random"), 224, "avg", "rgb", "full", "pillow-bilinear", "tf",
        precision,
    )  # fmt: skip


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of those libraries that are installed."""
    versions = {}
    for name in names:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def describe_machine() -> str:
    """Name the processor, its cores and extensions, and the versions of the libraries."""
    cpu = Path("/proc/cpuinfo").read_text()
    names = [line.split(":")[1] for line in cpu.splitlines() if line.startswith("model name")]
    processor = names[0].strip() if names else "unknown processor"
    extensions = [name for name in ("avx512_bf16", "amx_bf16") if name in cpu]
    versions = installed_versions(("openvino", "keras", "tensorflow"))
    cores = f"{len(os.sched_getaffinity(0))} cores"
    libraries = ", ".join(map(" ".join, versions.items()))
    return f"{', '.join([processor, cores, *extensions])}; {libraries}"


def in_a_process(measure: Callable[..., Any], *arguments: object, **environment: str) -> Any:
    """Call a function of a benchmark in a process of its own; its result as JSON values.

    The first argument is the folder of the images, the others are JSON values. If it fails, the
    error names the reason, after the traceback on stderr.
    """
    path = Path(inspect.getfile(measure)).resolve()
    given = json.dumps([str(arguments[0]), *arguments[1:]])
    done = subprocess.run(
        [sys.executable, "-c", _CALL, str(path.parent), path.stem, measure.__name__, given],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        click.echo(done.stderr, err=True)
        lines = done.stderr.strip().splitlines() or [f"{measure.__name__} ended by itself"]
        raise click.ClickException(lines[-1])
    return json.loads(done.stdout.splitlines()[-1])


def seconds(work: Callable[[], object]) -> float:
    """How long a function without arguments takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measured(work: Callable[[], Any]) -> tuple[Any, tuple[float, float, float]]:
    """What a function returns; its seconds, processor seconds, and MB of the process at most."""
    # Linux starts to measure the peak again.
    Path("/proc/self/clear_refs").write_text("5")
    started, busy = time.perf_counter(), time.process_time()
    result = work()
    taken = time.perf_counter() - started, time.process_time() - busy
    status = Path("/proc/self/status").read_text()
    return result, (*taken, int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6)


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
