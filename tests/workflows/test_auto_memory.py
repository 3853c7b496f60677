"""What `--features auto` may try and fit within `--memory`."""

from types import SimpleNamespace

import numpy as np
import pytest

from featurepipe.errors import FitError
from featurepipe.manifest.labels import labels_of
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.studies.feature_choice import memory_of_choice
from featurepipe.workflows.auto_memory import AutoMemory
from featurepipe.workflows.fit_task import FitLimits, memory_of_fit

HEADS = ("bagged-sgd", "logistic")
CODES = np.arange(4000) % 3


def labels(n_rows):
    names = [(str(code),) for code in CODES[:n_rows]]
    return {"color": labels_of("color", names), "kind": labels_of("kind", names)}


def auto(memory_bytes, n_jobs=1, head="bagged-sgd"):
    settings, limits = HeadSettings.of(head), FitLimits(n_jobs, memory_bytes)
    return AutoMemory(settings, limits, labels(4000), labels(1500))


def stores(*widths):
    return [SimpleNamespace(n_features=width) for width in widths]


def needed(head, n_rows, n_features):
    return memory_of_fit(HeadSettings.of(head), labels(n_rows), n_features)


def test_memory_of_the_choice_is_as_stated():
    square = 8 * 1500**2
    features = 4 * 1500 * (1280 + 512)
    assert memory_of_choice(1500, [1280, 512], 1) == features + 2 * square + 8 * square
    assert memory_of_choice(1500, [1280, 512], 3) == features + 2 * square + 24 * square
    assert memory_of_choice(100, [5000], 1) == 4 * 100 * 5000 + 80_000 + 16 * 100 * 5000 + 160_000


def test_stores_that_cannot_be_tried_are_refused():
    least = memory_of_choice(1500, [1280] * 4, 1)
    auto(least).require(stores(*[1280] * 4), HEADS)
    with pytest.raises(FitError, match=r"auto to try 4 stores on 1500 training images.*--backbone"):
        auto(least - 1).require(stores(*[1280] * 4), HEADS)


def test_stores_that_no_head_can_be_fitted_on_are_refused():
    auto(300_000_000).require(stores(8000), HEADS)
    with pytest.raises(FitError, match="knn --solver exact reads all features of the 4000"):
        auto(300_000_000, head="knn").require(stores(8000), ["knn"])


def test_without_a_bound_anything_is_tried():
    auto(None).require(stores(10**6), ["svm"])
    assert auto(None).heads_within(HEADS, 10**6) == list(HEADS)
    assert auto(None, n_jobs=5).feature_jobs(stores(10**6)) == 5
    assert auto(None, n_jobs=5).head_jobs(HEADS, 10**6) == 5


def test_heads_that_do_not_fit_are_left_out_and_named(caplog):
    caplog.set_level("INFO", "featurepipe")
    # The principal axes of logistic regression need the square of the features.
    assert auto(900_000_000).heads_within(HEADS, 8000) == ["bagged-sgd"]
    (line,) = caplog.messages
    assert line.startswith("Not trying logistic on 8000 features: --memory 900MB is too little")


def test_a_head_that_fits_only_in_chunks_must_also_fit_in_trials(caplog):
    caplog.set_level("INFO", "featurepipe")
    trial = needed("bagged-sgd", 1500, 8000).in_memory()
    assert auto(trial).heads_within(["bagged-sgd"], 8000) == ["bagged-sgd"]
    assert auto(trial - 1).heads_within(["bagged-sgd"], 8000) == []
    (line,) = caplog.messages
    assert "too little for trials on 1500 training images with 8000 features" in line


def test_trials_side_by_side_stay_within_memory():
    two = memory_of_choice(1500, [1280, 1280], 2)
    assert auto(two, n_jobs=5).feature_jobs(stores(1280, 1280)) == 2
    assert auto(two - 1, n_jobs=5).feature_jobs(stores(1280, 1280)) == 1
    three = max(needed(head, 1500, 1280).in_memory(3) for head in HEADS)
    assert auto(three, n_jobs=5).head_jobs(HEADS, 1280) == 3
    assert auto(three - 1, n_jobs=5).head_jobs(HEADS, 1280) == 2
