"""Predictions and runs of a few images, for tests of pages."""

import numpy as np

from featurepipe.manifest import Labels
from featurepipe.predictions import Predictions
from featurepipe.reports.figures import reliability
from featurepipe.reports.page.page_run import PageRun


def labels_of(attribute, classes, indicator, *, exclusive=True, labelled=None):
    indicator = np.array(indicator, bool)
    labelled = indicator.any(axis=1) if labelled is None else np.array(labelled)
    return Labels(attribute, tuple(classes), exclusive, indicator, labelled)


def predictions_of(labels, scores, *, part="test", task="per-attribute", **arrays):
    """Predictions of one or several attributes; images are called ``0.jpg``, ``1.jpg``, …"""
    n = len(labels[0])
    return Predictions.of(
        np.array([f"{row}.jpg" for row in range(n)]),
        np.array([part] * n),
        np.arange(n),
        task,
        {of.attribute: of for of in labels},
        {of.attribute: np.array(s, float) for of, s in zip(labels, scores, strict=True)},
        **arrays,
    )


def answered(truths, answers, classes, *, confidence=0.9, attribute="kind", **more):
    """Predictions of an exclusive attribute that give these answers, by number of the class."""
    n, k = len(truths), len(classes)
    confidence = np.broadcast_to(confidence, n)
    scores = np.repeat(((1 - confidence) / max(k - 1, 1))[:, None], k, axis=1)
    scores[np.arange(n), answers] = confidence
    indicator = np.array([code >= 0 for code in truths])[:, None] & np.eye(k, dtype=bool)[truths]
    return predictions_of([labels_of(attribute, classes, indicator)], [scores], **more)


def page_run(predictions, selection=None, *, name="a run", reads=("a:rgb",), **more):
    selection = predictions if selection is None else selection
    measured = reliability(selection) if len(selection) else {}
    return PageRun(
        name=name,
        split="split",
        is_network=more.pop("is_network", False),
        is_current=True,
        predictions=predictions,
        selection=selection,
        reads=dict.fromkeys(predictions.labels, reads),
        uncalibrated=measured,
        calibrated=measured,
        **more,
    )
