"""Predictions for three images, for tests."""

import numpy as np

from featurepipe.manifest import Labels
from featurepipe.predictions import Predictions


def labels_of(attribute, classes, indicator, *, exclusive=True):
    indicator = np.array(indicator, bool)
    return Labels(attribute, tuple(classes), exclusive, indicator, indicator.any(axis=1))


def make_predictions(task="per-attribute"):
    return Predictions.of(
        ids=np.array(["a/1.jpg", "b/2.jpg", "ü/3.jpg"]),
        parts=np.array(["test", "test", "unseen"]),
        groups=np.array([4, 0, 4]),
        task=task,
        labels={
            "color": labels_of("color", ["blue", "red"], [[1, 0], [0, 1], [0, 0]]),
            "tags": labels_of("tags", ["new", "old"], [[1, 0], [1, 1], [1, 0]], exclusive=False),
        },
        scores={
            "color": np.array([[0.6, 0.4], [0.9, 0.1], [0.0, 0.0]]),
            "tags": np.array([[0.7, 0.4], [0.9, 0.5], [0.8, 0.1]]),
        },
    )


def rebuild(predictions, **changes):
    names = ("ids", "parts", "groups", "task", "labels", "scores")
    return Predictions.of(**{name: getattr(predictions, name) for name in names}, **changes)


def with_thresholds():
    return rebuild(make_predictions(), thresholds={"tags": np.array([0.75, 0.3])})
