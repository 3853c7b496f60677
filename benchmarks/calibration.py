"""Compare the log-loss of the calibrations, out of fold on training rows.

    python benchmarks/calibration.py WORKSPACE [WORKSPACE …] [--head bagged-sgd]

Every store of each workspace is measured on the workspace's first split. Five inner folds
of the training rows give out-of-fold scores. Each calibration is fitted on the scores of
four folds and judged on the fifth. Test rows are never read.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from measuring import class_scores, first_split, read_rows

from featurepipe.features.store import FeatureStore
from featurepipe.manifest import Manifest
from featurepipe.metrics import ece, label_set_log_losses, log_losses
from featurepipe.models.answers.calibration import CALIBRATIONS, fit_calibrator
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.heads.pipelines import build_head
from featurepipe.splits import inner_folds
from featurepipe.workspace import Workspace


def main() -> None:
    """Measure, and print one row per workspace, store and question."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspaces", nargs="+", type=Path, help="with features and a split")
    parser.add_argument("--head", default="bagged-sgd", help="default: %(default)s")
    arguments = parser.parse_args()
    rows = [
        row
        for workspace in arguments.workspaces
        for store in Workspace(workspace).stores()
        for row in measure(Workspace(workspace), store, arguments.head)
    ]
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.4f}".format))


def measure(workspace: Workspace, store_path: Path, head: str) -> list[dict[str, object]]:
    """Log-loss and ECE of each calibration, for each attribute and for all labels."""
    split = first_split(workspace)
    train = split.rows("train")
    with FeatureStore.open(store_path) as store:
        X = read_rows(store, split.ids[train])
    labels = Manifest.load(workspace.manifest).labels(split.ids[train])
    indicators = {name: answer.indicator for name, answer in labels.items()}
    questions = {name: (indicator, True) for name, indicator in indicators.items()}
    if len(labels) > 1:
        questions["all labels"] = (np.hstack(list(indicators.values())), False)
    return [
        {"data": workspace.root.name, "store": store_path.stem, "head": head, "question": name}
        | compare(X, truth, exclusive, split.groups[train], head)
        for name, (truth, exclusive) in questions.items()
    ]


def compare(X, truth, exclusive, groups, head) -> dict[str, float]:
    """Log-loss and ECE of each calibration; each row is judged by curves fitted without it."""
    strata = np.unique(truth, axis=0, return_inverse=True)[1]
    folds = inner_folds(strata, groups, 5, 0)
    scores, own = np.empty(truth.shape), np.empty(truth.shape)
    for train, validation in folds:
        estimator = build_head(HeadSettings.of(head), len(train), label_sets=not exclusive)
        estimator.fit(X[train], truth[train].argmax(axis=1) if exclusive else truth[train])
        scores[validation] = class_scores(estimator, X[validation])
        own[validation] = estimator.predict_proba(X[validation])
    figures: dict[str, float] = {}
    for method in CALIBRATIONS:
        probabilities = own.copy()
        for _, validation in folds if method != "none" else ():
            others = np.setdiff1d(np.arange(len(X)), validation)
            curve = fit_calibrator(method, scores[others], truth[others], exclusive=exclusive)
            probabilities[validation] = curve.predict_proba(scores[validation])
        figures |= judge(method, truth, probabilities, exclusive)
    return figures


def judge(method, truth, probabilities, exclusive) -> dict[str, float]:
    """Log-loss and ECE of one calibration."""
    if not exclusive:
        return {f"log-loss {method}": label_set_log_losses(truth, probabilities).mean()}
    codes = truth.argmax(axis=1)
    correct = probabilities.argmax(axis=1) == codes
    return {
        f"log-loss {method}": log_losses(codes, probabilities).mean(),
        f"ece {method}": ece(correct, probabilities.max(axis=1)),
    }


if __name__ == "__main__":
    main()
