r"""Compare criteria for not answering an image, on test rows and unrelated images.

    python benchmarks/rejection.py WORKSPACE --feature category=mobilenet_v2:grey \
        --feature color=hsv_histogram:rgb+mobilenet_v2:shuffle --unrelated WORKSPACE …

The splits are the usual one and one for each combination that can be held out. For each
feature choice, a logistic head is fitted and calibrated out of fold. Each criterion is
fitted on training rows and set to answer 95 % of them. Familiar images are the test rows,
unrelated ones all images of the other workspaces. Each figure is the mean over the splits.
"""

import argparse
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import skops.io
from measuring import class_scores
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA

from featurepipe.errors import SplitError
from featurepipe.features.store import FeatureStore
from featurepipe.manifest import Manifest
from featurepipe.metrics import auroc, risk_coverage_area
from featurepipe.models.answers.calibration import fit_calibrator
from featurepipe.models.answers.rejection import fit_rejector
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.heads.pipelines import build_head
from featurepipe.predictions import COVERAGE
from featurepipe.splits import SplitSettings, inner_folds, make_splits
from featurepipe.workspace import Workspace


def main() -> None:
    """Measure, and print one row per feature choice and criterion; then what a rejector costs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path, help="with features and labels")
    parser.add_argument(
        "--feature",
        action="append",
        required=True,
        metavar="ATTRIBUTE=BACKBONE:VIEW[+BACKBONE:VIEW]",
        help="features to measure; repeatable",
    )
    parser.add_argument(
        "--unrelated", nargs="+", type=Path, default=[], help="workspaces of unrelated images"
    )
    parser.add_argument(
        "--criteria",
        nargs="+",
        default=list(DISTANCES),
        choices=list(DISTANCES),
        help="distances to measure beside confidence and the 5th neighbour; default: all",
    )
    arguments = parser.parse_args()
    rows = [
        {"features": feature, "criterion": criterion} | figures
        for split in possible_splits(arguments.workspace)
        for feature in arguments.feature
        for criterion, figures in measure(split, feature, arguments).items()
    ]
    means = pd.DataFrame(rows).groupby(["features", "criterion"], sort=False).mean()
    print(means.to_string(float_format="{:.3f}".format))
    for feature in arguments.feature:
        print(
            f"coverage by distance alone, 20 splits: {feature}",
            measure_coverage(arguments, feature),
        )
    print(cost())


def possible_splits(workspace: Path):
    """The usual split, and one for each combination whose classes also occur elsewhere."""
    manifest, digests = open_images(workspace)
    labels = manifest.labels(manifest.ids).values()
    classes = [np.array(answer.classes)[answer.codes] for answer in labels]
    combinations = sorted({"_".join(names) for names in zip(*classes, strict=True)})
    for held_out in [(), *((name,) for name in combinations if len(classes) > 1)]:
        try:
            yield make_splits(manifest, digests, SplitSettings(hold_out=held_out))[0]
        except SplitError:
            continue


def open_images(workspace: Path) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest, and the digests that identify identical images."""
    with FeatureStore.open(Workspace(workspace).stores()[0]) as store:
        digests = {store.ids[row]: store.digests[row].tobytes() for row in store.rows("done")}
    return Manifest.load(Workspace(workspace).manifest), digests


def read_features(workspace: Path, names: list[str], ids=None) -> list[np.ndarray]:
    """The feature blocks named ``backbone:view``, for some images or for all."""
    blocks = {}
    for path in Workspace(workspace).stores():
        with FeatureStore.open(path) as store:
            name = f"{store.key.backbone}:{store.key.view}"
            if name in names:
                row_of = {image_id: row for row, image_id in enumerate(store.ids)}
                rows = store.rows("done") if ids is None else np.array([row_of[i] for i in ids])
                blocks[name] = store.features(rows)
    return [blocks[name] for name in names]


def measure(split, feature: str, arguments) -> dict[str, dict[str, float]]:
    """Figures of each criterion on one split, for one feature choice."""
    attribute, names = feature.split("=")[0], feature.split("=")[1].split("+")
    blocks = read_features(arguments.workspace, names, split.ids)
    labels = open_images(arguments.workspace)[0].labels(split.ids)[attribute]
    train, test, unseen = (split.rows(part) for part in ("train", "test", "unseen"))
    X = dict(zip(("train", "test", "unseen"), map(np.hstack, zip(*[
        [block[rows] for rows in (train, test, unseen)] for block in blocks
    ], strict=True)), strict=True))  # fmt: skip
    X |= {other.name: np.hstack(read_features(other, names)) for other in arguments.unrelated}
    widths = [block.shape[1] for block in blocks]
    # Blocks side by side have equal weight in the head too.
    spreads = [
        np.sqrt(block[train].var(axis=0).sum()) if len(blocks) > 1 else 1 for block in blocks
    ]
    scale = np.repeat(spreads, widths).astype(np.float32)
    codes, folds = labels.codes, inner_folds(labels.codes[train], split.groups[train], 5, 0)
    P = predict({name: block / scale for name, block in X.items()}, codes[train], folds)
    correct = {
        name: P[name].argmax(axis=1) == codes[rows]
        for name, rows in (("test", test), ("unseen", unseen))
    }
    truth = labels.indicator[train]
    confidence = {name: probabilities.max(axis=1) for name, probabilities in P.items()}
    novelty = {"confidence": {name: -values for name, values in confidence.items()}}
    U = {name: unit_blocks(block, widths) for name, block in X.items()}
    for criterion in arguments.criteria:
        novelty[criterion] = measure_distances(DISTANCES[criterion], U, codes[train], folds)
    rejector = fit_rejector(
        X["train"], truth, split.groups[train], confidence["train"], widths=widths
    ).rejector
    knn = {name: rejector.novelty(X[name]) for name in X if name != "train"}
    novelty["5th neighbour"] = knn | {"train": rejector.distances}
    figures = {criterion: judge(values, correct) for criterion, values in novelty.items()}
    p_values = {name: rejector.p_values(X[name], confidence[name]) for name in X if name != "train"}
    both = {name: -values for name, values in p_values.items()}
    return figures | {"both (p-value)": judge(both, correct, level=-(1 - COVERAGE))}


def predict(X, codes, folds) -> dict[str, np.ndarray]:
    """Probabilities of each group of rows; those of training rows are out of fold."""
    truth = np.eye(codes.max() + 1, dtype=bool)[codes]

    def fit(rows):
        head = build_head(HeadSettings.of("logistic"), len(rows))
        head.fit(X["train"][rows], codes[rows])
        return partial(class_scores, head)

    scores, own = np.empty(truth.shape), np.empty(truth.shape)
    for train, validation in folds:
        scores[validation] = fit(train)(X["train"][validation])
    for train, validation in folds:
        curve = fit_calibrator("temperature", scores[train], truth[train], exclusive=True)
        own[validation] = curve.predict_proba(scores[validation])
    curve = fit_calibrator("temperature", scores, truth, exclusive=True)
    final = fit(np.arange(len(codes)))
    given = {
        name: curve.predict_proba(final(Z)) if len(Z) else np.empty((0, truth.shape[1]))
        for name, Z in X.items()
    }
    return given | {"train": own}


def unit_blocks(X, widths):
    """Scale each block to length 1, as the rejector does, for a fair comparison."""
    blocks = np.split(X, np.cumsum(widths)[:-1], axis=1)
    return np.hstack(
        [b / np.maximum(np.linalg.norm(b, axis=1, keepdims=True), 1e-12) for b in blocks]
    )


def measure_distances(fit, U, codes, folds) -> dict[str, np.ndarray]:
    """Distances of each group of rows; those of training rows are out of fold."""
    own = np.empty(len(codes))
    for train, validation in folds:
        own[validation] = fit(U["train"][train], codes[train])(U["train"][validation])
    final = fit(U["train"], codes)
    return {name: final(Z) if len(Z) else np.empty(0) for name, Z in U.items()} | {"train": own}


def fit_mahalanobis(U, codes):
    """Distance from the nearest class, with one shrunk covariance: Lee et al. (2018)."""
    classes, codes = np.unique(codes, return_inverse=True)
    means = np.array([U[codes == k].mean(axis=0) for k in range(len(classes))])
    root = whiten(U - means[codes])
    return lambda Z: np.min([np.square((Z - mean) @ root).sum(axis=1) for mean in means], axis=0)


def fit_relative_mahalanobis(U, codes):
    """The same minus the distance from all rows together: Ren et al. (2021).

    On 128 principal components: with more features than rows, distant images are as far from
    the one as from the other, and only the two shrinkages differ.
    """
    pca = PCA(128, svd_solver="randomized", random_state=0).fit(U)
    U = pca.transform(U)
    nearest, root = fit_mahalanobis(U, codes), whiten(U)

    def distance(Z):
        components = pca.transform(Z)
        return nearest(components) - np.square(components @ root).sum(axis=1)

    return distance


def whiten(centred):
    """A matrix that makes the shrunk covariance the identity."""
    fitted = LedoitWolf(assume_centered=True).fit(centred)
    return np.linalg.cholesky(fitted.get_precision())


def fit_residual(U, codes):
    """Distance from the span of 128 principal components: cf. Wang et al. (2022), ViM."""
    pca = PCA(128, svd_solver="randomized", random_state=0).fit(U)

    def distance(Z):
        centred = Z - pca.mean_
        return np.linalg.norm(centred - centred @ pca.components_.T @ pca.components_, axis=1)

    return distance


DISTANCES = {
    "Mahalanobis": fit_mahalanobis,
    "relative Mahalanobis": fit_relative_mahalanobis,
    "residual": fit_residual,
}


def judge(novelty, correct, level=None) -> dict[str, float]:
    """Figures of one criterion, which rejects what is more novel than a level."""
    if level is None:
        train = np.sort(novelty["train"])
        level = train[min(int(np.ceil((len(train) + 1) * COVERAGE)), len(train)) - 1]
        rejects = {name: values > level for name, values in novelty.items()}
    else:
        rejects = {name: values >= level for name, values in novelty.items()}
    known, unseen = novelty["test"], novelty["unseen"]
    others = {name: values for name, values in novelty.items() if name not in ("train", "test")}
    return (
        {"coverage of test rows": 1 - rejects["test"].mean()}
        | {f"rejects {name}": rejects[name].mean() if len(unseen) or name != "unseen" else np.nan
           for name in others}
        | {"rejects unseen, rightly answered": rejects["unseen"][correct["unseen"]].mean()
           if correct["unseen"].any() else np.nan}
        | {f"auroc {name}": auroc(np.repeat([False, True], [len(known), len(values)]),
                                  np.concatenate([known, values]))
           for name, values in others.items()}
        | {"1000 aurc": 1000 * risk_coverage_area(correct["test"], -known)}
    )  # fmt: skip


def measure_coverage(arguments, feature: str) -> str:
    """Share of test rows answered for each target share: mean and deviation over splits."""
    attribute, names = feature.split("=")[0], feature.split("=")[1].split("+")
    manifest, digests = open_images(arguments.workspace)
    wanted, answered = np.array([0.8, 0.9, 0.95, 0.99]), []
    for split in make_splits(manifest, digests, SplitSettings(repeats=20)):
        blocks = read_features(arguments.workspace, names, split.ids)
        X, train, test = np.hstack(blocks), split.rows("train"), split.rows("test")
        truth = manifest.labels(split.ids)[attribute].indicator[train]
        rejector = fit_rejector(
            X[train],
            truth,
            split.groups[train],
            np.zeros(len(train)),
            widths=[block.shape[1] for block in blocks],
        ).rejector
        p_values = rejector.p_values(X[test], np.zeros(len(test)))
        answered.append((p_values[:, None] > 1 - wanted).mean(axis=0))
    shares = zip(wanted, np.mean(answered, axis=0), np.std(answered, axis=0), strict=True)
    return "; ".join(f"{share:.2f}: {mean:.4f} ({spread:.4f})" for share, mean, spread in shares)


def cost() -> str:
    """Size and speed of a rejector of 2,048 features, fitted on 10,000 generated rows."""
    rng = np.random.default_rng(0)
    X = rng.random((10_000, 2048), dtype=np.float32)
    truth = np.eye(10, dtype=bool)[np.arange(len(X)) % 10]
    started = time.perf_counter()
    rejector = fit_rejector(X, truth, np.arange(len(X)), rng.random(len(X))).rejector
    fitted = time.perf_counter()
    rejector.p_values(X[:1000], np.ones(1000))
    batch = time.perf_counter()
    for row in range(100):
        rejector.p_values(X[row : row + 1], np.ones(1))
    single = time.perf_counter()
    return (
        f"fit {fitted - started:.1f} s; an image {batch - fitted:.2f} ms in a batch of 1,000, "
        f"{10 * (single - batch):.2f} ms alone; {len(skops.io.dumps(rejector)) / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    main()
