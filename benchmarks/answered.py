r"""Measure how many new images of the same source get an answer, at a target coverage.

    python benchmarks/answered.py WORKSPACE … [--feature mobilenet_v2:rgb] [--n-draws 20]

Heads (bagged SGD) are fitted on so many images, drawn at random, and at most 1,000 others are
new. Images are drawn one by one, or whole groups at a time: those of the group column or, without
one, series of five images that look alike. Draws with a single image of a class are left out, since
`fit` refuses them. An image counts as answered if no attribute is unknown.
"""

import argparse
from itertools import count, islice
from pathlib import Path

import numpy as np
import pandas as pd
from measuring import table_head, table_row

from featurepipe.features.store import FeatureStore
from featurepipe.manifest import Labels, Manifest
from featurepipe.models.heads.fitting import fit_heads
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.workspace import Workspace

TARGETS = (0.9, 0.95)
N_NEW = 1000
SERIES = 5
COLUMNS = ["images", "attributes", "drawn", "n_train"]


def main() -> None:
    """Measure, and print a row for each workspace, way to draw and number of training images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspaces", nargs="+", type=Path, help="with features and labels")
    parser.add_argument("--feature", default="mobilenet_v2:rgb", metavar="BACKBONE:VIEW")
    parser.add_argument("--n-train", nargs="+", type=int, default=[50, 200, 1000])
    parser.add_argument("--n-draws", type=int, default=20)
    parser.add_argument(
        "--drawn", nargs="+", choices=["images", "groups"], default=["images", "groups"]
    )
    parser.add_argument("--jobs", type=int, default=-1)
    arguments = parser.parse_args()
    print(table_head([*COLUMNS, *(f"{per} {target}" for per, target in _figures())]), flush=True)
    for workspace in arguments.workspaces:
        X, labels, groups = read_images(Workspace(workspace), arguments.feature)
        for drawn in arguments.drawn:
            grouping = groups if drawn == "groups" else np.arange(len(X))
            for n_train in arguments.n_train:
                draws = (
                    measure(X, labels, grouping, n_train, seed, arguments.jobs) for seed in count()
                )
                shares = pd.DataFrame(islice(filter(None, draws), arguments.n_draws))
                about = [workspace.name, len(labels), drawn, n_train]
                cells = (
                    f"{mean:.3f} ± {spread:.3f}"
                    for mean, spread in zip(shares.mean(), shares.std(), strict=True)
                )
                print(table_row([*about, *cells]), flush=True)


def _figures() -> list[tuple[str, float]]:
    return [(per, target) for per in ("image", "attribute") for target in TARGETS]


def read_images(
    workspace: Workspace, feature: str
) -> tuple[np.ndarray, dict[str, Labels], np.ndarray]:
    """Features, labels and groups of all distinct images."""
    manifest = Manifest.load(workspace.manifest)
    for path in workspace.stores():
        with FeatureStore.open(path) as store:
            if f"{store.key.backbone}:{store.key.view}" == feature:
                rows = store.rows("done")
                _, firsts = np.unique(store.digests[rows], axis=0, return_index=True)
                rows = rows[np.sort(firsts)]
                X, ids = store.features(rows), store.ids[rows]
    if manifest.group_column is None:
        groups = series_of(X)
    else:
        groups = manifest.table.loc[ids.tolist(), manifest.group_column].to_numpy()
    return X, manifest.labels(ids), np.unique(groups.astype(str), return_inverse=True)[1]


def series_of(X: np.ndarray) -> np.ndarray:
    """Number images in series: an image, drawn at random, and those nearest to it."""
    units = X / np.linalg.norm(X, axis=1, keepdims=True)
    series = np.full(len(X), -1)
    for number, image in enumerate(np.random.default_rng(0).permutation(len(X))):
        if series[image] < 0:
            free = np.flatnonzero(series < 0)
            series[free[np.argsort(-units[free] @ units[image])[:SERIES]]] = number
    return series


def measure(
    X: np.ndarray, labels: dict[str, Labels], groups: np.ndarray, n_train: int, seed: int, jobs: int
) -> dict[str, float]:
    """Share of new images that are answered; nothing if `fit` would refuse the draw."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(groups.max() + 1)
    n_up_to = np.bincount(groups, minlength=len(order))[order].cumsum()
    is_train = np.isin(groups, order[: max(1, np.searchsorted(n_up_to, n_train, side="right"))])
    train = rng.permutation(np.flatnonzero(is_train))
    new = rng.permutation(np.flatnonzero(~is_train))[:N_NEW]
    truth = {name: of.take(train) for name, of in labels.items()}
    if any((of.indicator.sum(axis=0) == 1).any() for of in truth.values()):
        return {}
    model = fit_heads(X[train], truth, groups[train], HeadSettings.of(), n_jobs=jobs).model
    p_values = model.p_values(X[new], model.predict(X[new]))
    lowest = {
        per: np.min([*values.values()], axis=0)
        for per, values in (("image", model.image_p_values(p_values)), ("attribute", p_values))
    }
    return {
        f"{per} {target}": float(np.mean(lowest[per] > 1 - target)) for per, target in _figures()
    }


if __name__ == "__main__":
    main()
