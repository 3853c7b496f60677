"""Injected label errors are found first; sound and missing labels are left alone."""

import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from featurepipe.manifest import Labels
from featurepipe.models.studies.label_errors import find_label_errors
from featurepipe.predictions import Predictions

CLASSES = ("black", "blue", "red", "white")
N = 400


def predictions(indicator, scores, exclusive, labelled=None, classes=CLASSES):
    labelled = np.ones(len(indicator), bool) if labelled is None else labelled
    labels = Labels("color", classes, exclusive, indicator & labelled[:, None], labelled)
    ids = np.array([f"{row}.jpg" for row in range(len(indicator))])
    return Predictions.of(
        ids,
        np.full(len(ids), "train"),
        np.arange(len(ids)),
        "per-attribute",
        {"color": labels},
        {"color": scores},
    )


def swapped_blobs(n_wrong=20):
    """Codes with errors, those without, and out-of-fold probabilities of the former."""
    rng = np.random.default_rng(0)
    X, true = make_blobs(N, 10, centers=4, cluster_std=2.0, random_state=0)
    given = true.copy()
    wrong = rng.permutation(N)[:n_wrong]
    given[wrong] = (true[wrong] + rng.integers(1, 4, n_wrong)) % 4
    scores = cross_val_predict(
        LogisticRegression(max_iter=1000), X, given, cv=5, method="predict_proba"
    )
    return given, true, scores


def test_injected_errors_are_found_first():
    given, true, scores = swapped_blobs()
    errors = find_label_errors(predictions(np.eye(4, dtype=bool)[given], scores, True))
    rows = [int(error.image.removesuffix(".jpg")) for error in errors]
    wrong = set(np.flatnonzero(given != true))
    assert np.isin(rows[:20], list(wrong)).mean() >= 0.95
    assert len(wrong & set(rows)) / len(wrong) >= 0.85
    for error, row in zip(errors[:15], rows[:15], strict=True):
        assert error.given == (CLASSES[given[row]],)
        assert error.suggested == (CLASSES[true[row]],)
        assert error.probability_given == pytest.approx(scores[row, given[row]])
        assert error.probability_suggested == pytest.approx(scores[row, true[row]])
    scores_of_errors = [error.score for error in errors]
    assert scores_of_errors == sorted(scores_of_errors, reverse=True)
    # The quality of a label is its own probability (Northcutt et al., 2021: self-confidence).
    np.testing.assert_allclose(scores_of_errors, 1 - scores[rows, given[rows]], atol=1e-9)


def test_sound_labels_are_left_alone():
    _, true, _ = swapped_blobs()
    confident = np.where(np.eye(4, dtype=bool)[true], 0.97, 0.01)
    assert find_label_errors(predictions(np.eye(4, dtype=bool)[true], confident, True)) == []


def test_missing_labels_and_classes_without_rows_play_no_role():
    given, true, scores = swapped_blobs()
    labelled = np.arange(N) % 10 != 0
    # "green" is known to the manifest, but no training row has it.
    indicator = np.insert(np.eye(4, dtype=bool)[given], 2, False, axis=1)
    classes = ("black", "blue", "green", "red", "white")
    found = find_label_errors(
        predictions(indicator, np.insert(scores, 2, 0.0, axis=1), True, labelled, classes)
    )
    rows = {int(error.image.removesuffix(".jpg")) for error in found}
    assert not rows & set(np.flatnonzero(~labelled))
    wrong = set(np.flatnonzero((given != true) & labelled))
    assert len(rows & wrong) / len(wrong) >= 0.85
    assert not any("green" in error.suggested for error in found)


def test_one_class_alone_has_no_errors():
    indicator = np.ones((10, 1), dtype=bool)
    assert find_label_errors(predictions(indicator, np.ones((10, 1)), True, None, ("a",))) == []


def test_labels_missing_from_sets_and_too_many_in_them_are_suggested():
    rng = np.random.default_rng(1)
    true = rng.random((N, 4)) < 0.4
    scores = np.where(true, rng.uniform(0.8, 0.99, (N, 4)), rng.uniform(0.01, 0.2, (N, 4)))
    given = true.copy()
    rows = rng.permutation(N)[:16]
    given[rows, np.arange(16) % 4] ^= True
    errors = find_label_errors(predictions(given, scores, False))
    found = {int(error.image.removesuffix(".jpg")): error for error in errors}
    # Those whose probability is not better than usual for their class stay in doubt.
    assert set(found) <= set(rows)
    assert len(found) >= 12
    for row, error in found.items():
        assert error.given == tuple(np.array(CLASSES)[given[row]])
        assert error.suggested == tuple(np.array(CLASSES)[true[row]])
        (column,) = np.flatnonzero(given[row] != true[row])
        gone, new = error.probability_given, error.probability_suggested
        assert (gone if given[row, column] else new) == pytest.approx(scores[row, column])
        assert np.isnan(new if given[row, column] else gone)
