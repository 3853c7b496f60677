"""Measure time and memory of fitting heads on features that do not fit into --memory.

    python benchmarks/stream.py [--rows 244000] [--features 2048] [--memory 500MB] [--head NAME]

The store is generated in a temporary folder, which needs room for it. Its rows lie class by
class, as those of class folders do. The peak is the process's largest memory during the fit, less
its memory before.
"""

import tempfile
import time
from pathlib import Path

import click
import numpy as np
import psutil
from measuring import DRAWN_BY, describe_machine, drawn_key

from featurepipe.features.cached import open_caches
from featurepipe.features.store import FeatureStore
from featurepipe.manifest import Labels
from featurepipe.models.answers.row_chunks import RowChunks
from featurepipe.models.heads.fit_memory import FitMemory, in_words, parse_memory
from featurepipe.models.heads.fitting import fit_heads
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.heads.streaming import plan_chunks, stream_heads
from featurepipe.runs.feature_set import FeatureRows, one_store_set

_BATCH = 1000


def draw_store(path: Path, n_rows: int, n_features: int, n_classes: int) -> np.ndarray:
    """Write a store class by class; returns the codes of its rows."""
    ids = [f"{row:08}.jpg" for row in range(n_rows)]
    probe = np.zeros((1, n_features), np.float32)
    FeatureStore.create(path, ids=ids, key=drawn_key(), made_by=DRAWN_BY, probe=probe)
    rng = np.random.default_rng(0)
    codes = np.sort(rng.integers(0, n_classes, n_rows))
    means = rng.gamma(1, 0.4, n_features) + rng.normal(0, 0.2, (n_classes, n_features))
    means, mixing = means.astype(np.float32), rng.normal(0, 0.15, (64, n_features))
    with FeatureStore.open(path, writable=True) as store:
        for start in range(0, n_rows, _BATCH):
            rows = np.arange(start, min(start + _BATCH, n_rows))
            X = means[codes[rows]] + rng.normal(size=(len(rows), 64)) @ mixing
            X += rng.normal(0, 0.3, X.shape)
            digests = np.zeros((len(rows), 32), np.uint8)
            stamps = np.zeros(len(rows), np.int64)
            store.write_done(rows, np.maximum(X, 0).astype(np.float32), digests, stamps, stamps)
    return codes


def labels_of(codes: np.ndarray, n_classes: int) -> dict[str, Labels]:
    """Labels of one exclusive attribute."""
    names = tuple(f"class {code:03}" for code in range(n_classes))
    indicator = codes[:, None] == np.arange(n_classes)
    return {"label": Labels("label", names, True, indicator, np.ones(len(codes), bool))}


def warm_up(
    rows: FeatureRows, labels: dict[str, Labels], settings: HeadSettings, is_streamed: bool
) -> None:
    """Import and run the compiler, whose memory must not count as that of the fit."""
    groups = np.arange(len(rows))
    if is_streamed:
        model, *_ = stream_heads(RowChunks(rows, 100), labels, groups, settings, n_jobs=1)
    else:
        model, *_ = fit_heads(rows.read(groups), labels, groups, settings, n_jobs=1)
    RowChunks(rows, 100).predict(model)


@click.command()
@click.option("--rows", "n_rows", default=244_000, show_default=True, help="Rows of the store.")
@click.option("--features", "n_features", default=2048, show_default=True, help="Features a row.")
@click.option("--classes", "n_classes", default=10, show_default=True, help="Number of classes.")
@click.option("--folds", "n_folds", default=5, show_default=True, help="Number of inner folds.")
@click.option("--head", default="bagged-sgd", show_default=True, help="Or logistic.")
@click.option("--memory", default="500MB", show_default=True, help="As of featurepipe fit.")
@click.option("--jobs", "n_jobs", default=-1, show_default=True, help="Cores; -1: all.")
def main(
    n_rows: int,
    n_features: int,
    n_classes: int,
    n_folds: int,
    head: str,
    memory: str,
    n_jobs: int,
) -> None:
    """Fit heads on nine tenths of the rows of a generated store, and predict the others."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drawn.h5"
        codes = draw_store(path, n_rows, n_features, n_classes)
        ids = np.array([f"{row:08}.jpg" for row in range(n_rows)], dtype=object)
        feature_set = one_store_set(open_caches([path], ids.tolist())[0], ["label"])
        is_test = np.arange(n_rows) % 10 == 0
        labels = labels_of(codes[~is_test], n_classes)
        settings = HeadSettings.of(head, n_folds=n_folds)
        axes = head == "logistic"
        needed = FitMemory.of(labels, n_features, settings.task, n_folds, axes=axes)
        budget = parse_memory(memory)
        chunk_rows = plan_chunks(settings, needed, budget)
        some = np.arange(0, n_rows, max(1, n_rows // 300))
        warm_up(
            feature_set.rows(ids[some]),
            labels_of(codes[some], n_classes),
            settings,
            chunk_rows is not None,
        )
        process = psutil.Process()
        before = process.memory_info().rss
        # Linux starts to measure the peak again.
        Path("/proc/self/clear_refs").write_text("5")
        started, cpu = time.perf_counter(), time.process_time()
        train, groups = feature_set.rows(ids[~is_test]), np.arange(np.count_nonzero(~is_test))
        if chunk_rows is None:
            X = train.read(np.arange(len(train)))
            model, out_of_fold, _ = fit_heads(X, labels, groups, settings, n_jobs=n_jobs)
        else:
            rows = RowChunks(train, chunk_rows)
            model, out_of_fold, _ = stream_heads(rows, labels, groups, settings, n_jobs=n_jobs)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        scores, *_ = RowChunks(feature_set.rows(ids[is_test]), chunk_rows or n_rows).predict(model)
        peak = _peak_bytes() - before
        print(describe_machine())
        print(
            f"{n_rows} x {n_features}, {n_classes} classes, store "
            f"{in_words(path.stat().st_size)}, --memory {memory}, "
            f"{f'chunks of {chunk_rows} rows' if chunk_rows else 'all in memory'}: "
            f"{seconds:.0f} s ({cpu:.0f} s of processor time), peak {in_words(peak)}, "
            f"in memory it would need {in_words(needed.in_memory())}; out of fold "
            f"{_accuracy(out_of_fold, codes[~is_test]):.4f}, test "
            f"{_accuracy(scores, codes[is_test]):.4f} right"
        )


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def _accuracy(scores: dict[str, np.ndarray], codes: np.ndarray) -> float:
    return float(np.mean(scores["label"].argmax(axis=1) == codes))


if __name__ == "__main__":
    main()
