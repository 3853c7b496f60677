"""Made-up runs for pages, of any number of images and classes."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pandas as pd

from featurepipe.manifest import Labels
from featurepipe.predictions import ALL, Predictions
from featurepipe.reports.board import Costs, leaderboard
from featurepipe.reports.figures import reliability
from featurepipe.reports.page.page_data import PageData, PageSplit
from featurepipe.reports.page.page_run import PageRun
from featurepipe.reports.page.report_page import report_page
from featurepipe.reports.page.thumbnails import Thumbnails


@dataclass
class MadeUpRun:
    name: str
    info: SimpleNamespace
    predictions: Predictions
    selection: Predictions


def made_up_run(
    name,
    accuracy=0.8,
    *,
    n_images=60,
    n_unseen=0,
    unseen_accuracy=None,
    classes=("blue", "red"),
    attributes=("color",),
    split="test20-seed0",
    number=0,
    series="seed0",
    family=None,
    head="logistic",
    backbone="xception",
    selection_accuracy=None,
    exclusive=True,
    network=False,
    ms=2.0,
    fit_s=3.0,
    seed=0,
):
    """A run that is right on a random share of the images."""
    rng = np.random.default_rng(seed)
    parts = np.repeat(["test", "unseen"], [n_images, n_unseen])
    shares = np.where(
        parts == "unseen", accuracy if unseen_accuracy is None else unseen_accuracy, accuracy
    )
    predictions = _predictions(parts, attributes, classes, shares, exclusive, rng, "")
    selection = _predictions(
        np.full(n_images, "train"), attributes, classes, accuracy, exclusive, rng, "t"
    )
    every = [*attributes, ALL]
    costs = Costs(
        extract_images_per_s=None if network else 100.0,
        fit_s=fit_s,
        predict_ms_per_image=ms,
        model_bytes=1000,
        n_parameters=10**6 if network else None,
        epochs=3 if network else None,
    )
    info = SimpleNamespace(
        family=family or name,
        split=SimpleNamespace(name=split, number=number, series=series),
        backbone=dict.fromkeys(every, "" if network else backbone),
        view=dict.fromkeys(every, "" if network else "rgb"),
        weights=dict.fromkeys(every, "imagenet"),
        head=head,
        solver=None,
        calibrate="none",
        task="per-attribute",
        n_train=dict.fromkeys(every, 4 * n_images),
        selection_accuracy=dict.fromkeys(
            every, accuracy if selection_accuracy is None else selection_accuracy
        ),
        costs=costs,
    )
    return MadeUpRun(name, info, predictions, selection)


def _predictions(parts, attributes, classes, accuracy, exclusive, rng, prefix):
    n, k = len(parts), len(classes)
    labels, scores = {}, {}
    for attribute in attributes:
        codes = np.arange(n) % k
        right = rng.random(n) < accuracy
        answered = np.where(right, codes, (codes + 1) % k)
        indicator = np.eye(k, dtype=bool)[codes]
        score = np.full((n, k), 0.2 / max(k - 1, 1))
        score[np.arange(n), answered] = 0.8
        labels[attribute] = Labels(
            attribute, tuple(classes), exclusive, indicator, np.ones(n, bool)
        )
        scores[attribute] = score
    ids = np.array([f"{prefix}{row:06}.jpg" for row in range(n)])
    return Predictions.of(ids, parts, np.arange(n), "per-attribute", labels, scores)


def page_run_of(run):
    bins = reliability(run.selection)
    return PageRun(
        name=run.name,
        split=run.info.split.name,
        is_network=run.info.costs.n_parameters is not None,
        is_current=True,
        predictions=run.predictions,
        selection=run.selection,
        reads=dict.fromkeys(run.selection.labels, ("xception:rgb",)),
        uncalibrated=bins,
        calibrated=bins,
        command="featurepipe fit",
    )


def data_of(run, **changes):
    """Images and labels of a run's split."""
    both = (run.selection, run.predictions)
    labels = {
        name: Labels(
            name,
            truth.classes,
            truth.exclusive,
            np.vstack([part.labels[name].indicator for part in both]),
            np.concatenate([part.labels[name].labelled for part in both]),
        )
        for name, truth in run.selection.labels.items()
    }
    parts = np.concatenate([part.parts for part in both]).astype(object)
    split = changes.pop("split", {})
    facts = {
        "root": "/images",
        "labels": labels,
        "n_images": len(parts),
        "splits": {run.info.split.name: PageSplit(run.info.split.name, parts, **split)},
    }
    return PageData(**facts | changes)


def gone(image_id):
    raise FileNotFoundError(image_id)


def write_report(path, runs, *, data="of the first", outdated=(), taken=None, **options):
    """The page of some runs, and their board."""
    board = leaderboard(runs, outdated)
    html = report_page(
        board,
        [page_run_of(run) for run in runs],
        data_of(runs[0]) if data == "of the first" else data,
        title="workspace",
        split=runs[0].info.split.name,
        taken=taken,
        **{"thumbnails": Thumbnails(gone, 0)} | options,
    )
    path.write_text(html, encoding="utf-8")
    return board


def as_frame(board):
    """The row of all attributes together of each run."""
    return pd.DataFrame(board[board["attribute"] == ALL]).set_index("run")
