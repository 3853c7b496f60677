"""Measure the first and the second search for near-duplicates in the same store.

    python benchmarks/remembered.py [--rows 20000] [--features 1280]
    python benchmarks/remembered.py --like STORE --rows 100000 --memory 500MB [--all]

The store is drawn in a temporary folder. A hundredth of its rows are copies of others. With
`--like`, rows are drawn from 46 clusters of a store's rows, with the mean and covariance of each.
With `--all`, all features of all rows are compared, too.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measuring import DRAWN_BY, describe_machine, drawn_key
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors

from featurepipe.features.store import FeatureStore
from featurepipe.models.heads.fit_memory import parse_memory
from featurepipe.models.studies import duplicate_rows
from featurepipe.models.studies.near_duplicates import DuplicateSearch
from featurepipe.workspace import Workspace

BATCH = 1000
N_CLUSTERS = 46

Draw = Callable[[np.random.Generator, NDArray[np.intp]], NDArray[np.float32]]
"""Draws features of rows; the second argument is their positions."""


def main() -> None:
    """Search twice, and say how long each took and whether both found the same."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--features", type=int, default=1280)
    parser.add_argument("--like", type=Path, metavar="STORE")
    parser.add_argument("--memory", type=parse_memory, metavar="SIZE")
    parser.add_argument("--all", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(folder)
        path = workspace.store("drawn")
        draw, n_features = noise(arguments.features), arguments.features
        if arguments.like is not None:
            draw, n_features = like(arguments.like, arguments.rows)
        ids = draw_store(path, arguments.rows, n_features, draw)
        before, found = peak(), []
        for _ in range(2):
            started, busy = time.perf_counter(), time.process_time()
            search = DuplicateSearch.among(workspace, path, ids)
            found.append(search.find(arguments.memory))
            search.remember(found[-1])
            print(
                f"{len(found[-1])} pairs, {'remembered' if found[-1].is_remembered else 'found'}: "
                f"{time.perf_counter() - started:.2f} s, processor "
                f"{time.process_time() - busy:.2f} s; peak {peak() - before:.0f} MB more",
                flush=True,
            )
        first, second = found
        is_same = np.array_equal(first.ids, second.ids) and np.array_equal(
            first.distances, second.distances
        )
        print(f"the same: {is_same}; {search.file.stat().st_size:,} bytes; {describe_machine()}")
        if arguments.all:
            duplicate_rows.FEW_ROWS = arguments.rows
            busy = time.process_time()
            with search.features(arguments.memory) as rows:
                pairs, distances = duplicate_rows.near_duplicates(rows)
            is_same = np.array_equal(pairs, first.pairs) and np.allclose(distances, first.distances)
            print(f"all with all: processor {time.process_time() - busy:.2f} s; same: {is_same}")


def peak() -> float:
    """Largest resident memory so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def noise(n_features: int) -> Draw:
    """Features that are independent of each other."""
    return lambda rng, rows: rng.gamma(1, 0.4, (len(rows), n_features)).astype(np.float32)


def like(path: Path, n_rows: int) -> tuple[Draw, int]:
    """Features with the clusters of a store's rows, and their number; rows of one lie together."""
    with FeatureStore.open(path) as store:
        X = store.features()
    cluster_of = KMeans(N_CLUSTERS, n_init=1, random_state=0).fit_predict(X)
    members = [X[cluster_of == cluster] for cluster in range(N_CLUSTERS)]
    ends = np.cumsum([len(rows) for rows in members]) / len(X) * n_rows

    def draw(rng: np.random.Generator, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        drawn = np.empty((len(rows), X.shape[1]), np.float32)
        clusters = np.searchsorted(ends, rows, side="right")
        for cluster in np.unique(clusters):
            mean, own = members[cluster].mean(axis=0), clusters == cluster
            weights = rng.standard_normal((own.sum(), len(members[cluster])), np.float32)
            spread = weights @ (members[cluster] - mean) / np.sqrt(len(members[cluster]))
            drawn[own] = np.maximum(mean + spread, 0)
        return drawn

    return draw, X.shape[1]


def draw_store(path: Path, n_rows: int, n_features: int, draw: Draw) -> list[str]:
    """Write a store of drawn features; the ids of its images.

    Copies lie just behind their originals, and differ from them by a part of the difference
    between a row and its nearest.
    """
    ids = [f"{row:08}.jpg" for row in range(n_rows)]
    probe = np.zeros((1, n_features), np.float32)
    FeatureStore.create(path, ids=ids, key=drawn_key(), made_by=DRAWN_BY, probe=probe)
    rng = np.random.default_rng(0)
    some = draw(rng, np.arange(0, n_rows, max(1, n_rows // 2000)))
    nearest = NearestNeighbors(n_neighbors=2).fit(some).kneighbors(some)[1][:, 1]
    differences = some[nearest] - some
    with FeatureStore.open(path, writable=True) as store:
        for start in range(0, n_rows, BATCH):
            rows = np.arange(start, min(start + BATCH, n_rows))
            X, n_copies = draw(rng, rows), len(rows) // 100
            moved = differences[rng.integers(0, len(some), n_copies)]
            shares = rng.uniform(0.1, 0.7, (n_copies, 1)).astype(np.float32)
            X[len(X) - n_copies :] = X[:n_copies] + shares * moved
            digests = rng.integers(0, 256, (len(rows), 32), dtype=np.uint8)
            stamps = np.zeros(len(rows), np.int64)
            store.write_done(rows, X, digests, stamps, stamps)
    return ids


if __name__ == "__main__":
    main()
