"""Measure the first and the second search for near-duplicates in the same store.

    python benchmarks/remembered.py [--rows 20000] [--features 1280]

The store is drawn in a temporary folder. A hundredth of its rows are copies of others.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from measuring import DRAWN_BY, describe_machine, drawn_key

from featurepipe.features.store import FeatureStore
from featurepipe.models.studies.near_duplicates import DuplicateSearch
from featurepipe.workspace import Workspace

BATCH = 1000


def main() -> None:
    """Search twice, and say how long each took and whether both found the same."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--features", type=int, default=1280)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(folder)
        path = workspace.store("drawn")
        ids = draw_store(path, arguments.rows, arguments.features)
        found = []
        for _ in range(2):
            started, busy = time.perf_counter(), time.process_time()
            search = DuplicateSearch.among(workspace, path, ids)
            found.append(search.find())
            search.remember(found[-1])
            print(
                f"{len(found[-1])} pairs, {'remembered' if found[-1].is_remembered else 'found'}: "
                f"{time.perf_counter() - started:.2f} s, processor "
                f"{time.process_time() - busy:.2f} s"
            )
        first, second = found
        is_same = np.array_equal(first.ids, second.ids) and np.array_equal(
            first.distances, second.distances
        )
        print(f"the same: {is_same}; {search.file.stat().st_size:,} bytes; {describe_machine()}")


def draw_store(path: Path, n_rows: int, n_features: int) -> list[str]:
    """Write a store of drawn features; the ids of its images."""
    ids = [f"{row:08}.jpg" for row in range(n_rows)]
    probe = np.zeros((1, n_features), np.float32)
    FeatureStore.create(path, ids=ids, key=drawn_key(), made_by=DRAWN_BY, probe=probe)
    rng = np.random.default_rng(0)
    X = rng.gamma(1, 0.4, (n_rows, n_features)).astype(np.float32)
    n_copies = n_rows // 100
    X[-n_copies:] = 1.01 * X[:n_copies]
    digests = rng.integers(0, 256, (n_rows, 32), dtype=np.uint8)
    with FeatureStore.open(path, writable=True) as store:
        for start in range(0, n_rows, BATCH):
            rows = np.arange(start, min(start + BATCH, n_rows))
            stamps = np.zeros(len(rows), np.int64)
            store.write_done(rows, X[rows], digests[rows], stamps, stamps)
    return ids


if __name__ == "__main__":
    main()
