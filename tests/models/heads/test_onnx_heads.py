"""Heads as ONNX nodes, against the heads themselves."""

import numpy as np
import pytest
from sklearn.naive_bayes import GaussianNB

from featurepipe.errors import UsageError
from featurepipe.features.onnx.nodes import BOOL, DOUBLE, FLOAT, Nodes
from featurepipe.manifest import Labels
from featurepipe.models.answers.onnx_answers import write_answer, write_attributes
from featurepipe.models.heads.fitting import fit_heads
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.heads.onnx_heads import (
    require_writable_head,
    write_columns,
    write_head,
)
from featurepipe.models.heads.registry import GRIDS, HEADS
from onnx_running import run_nodes

N_FEATURES = 30
ONE, TWO = ((0, 30),), ((0, 10), (14, 30))
ALL_HEADS = [(head, solver) for head, solvers in HEADS.items() for solver in solvers]
CALIBRATIONS = ["temperature", "sigmoid", "isotonic", "none"]


def make_rows(n=90, seed=0):
    """Features of different means and scales, some constant, that show colour, kind and tags."""
    rng = np.random.default_rng(seed)
    color, kind = np.arange(n) % 3, (np.arange(n) // 3) % 2
    tags = np.stack([color > 0, kind > 0, rng.random(n) < 0.5, np.ones(n)], axis=1).astype(bool)
    X = rng.normal(size=(n, N_FEATURES))
    X[np.arange(n), color] += 2
    X[np.arange(n), 15 + kind] += 2
    X[np.arange(n), 26 + color] += 2
    X = X * np.geomspace(0.1, 3, N_FEATURES) + np.linspace(-2, 4, N_FEATURES)
    X[:, [5, 20]] = 7
    everyone = np.ones(n, bool)
    labels = {
        # No image is green.
        "color": Labels(
            "color", ("black", "blue", "green", "red"), True,
            np.array([0, 1, 3])[color][:, None] == np.arange(4), everyone,
        ),
        "kind": Labels(
            "kind", ("dress", "shirt"), True, kind[:, None] == np.arange(2), everyone
        ),
        # All images have the last one.
        "tags": Labels("tags", ("a", "b", "c", "d"), False, tags, everyone),
    }  # fmt: skip
    return X.astype(np.float32), labels


def fit(names=("color", "kind", "tags"), columns=ONE, tuned=None, **settings):
    X, labels = make_rows()
    labels = {name: labels[name] for name in names}
    of_all = dict.fromkeys(labels, columns)
    model = fit_heads(
        X, labels, np.arange(len(X)), HeadSettings.of(**settings), columns=of_all, n_jobs=2
    ).model
    return model


def answers_of(model, X):
    """What the graph of a model says, by attribute."""
    nodes, outputs = Nodes(), {}
    features = nodes.add_input("features", FLOAT, ["n_images", N_FEATURES])
    coverage = nodes.add_input("coverage", DOUBLE, [])
    heads = {name: write_head(nodes, head, features) for name, head in model.heads.items()}
    outputs |= {f"{name} scores": (values.scores, DOUBLE) for name, values in heads.items()}
    raw = write_attributes(nodes, model, {name: one.probabilities for name, one in heads.items()})
    for name in model.classes:
        read = write_columns(nodes, model.head_for(name), features)
        answer = write_answer(nodes, model, name, raw[name], read, coverage)
        outputs |= {
            f"{name} raw": (raw[name], DOUBLE),
            f"{name} probabilities": (answer.probabilities, DOUBLE),
            f"{name} given": (answer.given, BOOL),
            f"{name} known": (answer.known, BOOL),
            f"{name} p_value": (answer.p_value, DOUBLE),
            f"{name} distance": (answer.distance, DOUBLE),
        }
    return run_nodes(nodes, outputs, features=X, coverage=np.array(0.9))


def assert_same_answers(model, seed=1):
    X = np.vstack([make_rows(40, seed)[0], 5 * make_rows(20, seed)[0]])
    got = answers_of(model, X)
    for name, head in model.heads.items():
        np.testing.assert_allclose(
            got[f"{name} scores"], head.decision_scores(X), rtol=1e-4, atol=1e-4
        )
    raw = model.predict(X)
    p_values = model.image_p_values(model.p_values(X, raw))
    some_known = some_unknown = False
    for name, (_, probabilities) in model.in_words(raw).items():
        np.testing.assert_allclose(got[f"{name} raw"], raw[name], atol=1e-4)
        np.testing.assert_allclose(got[f"{name} probabilities"], probabilities, atol=1e-4)
        novelty = model.rejectors[name].novelty(model.head_for(name).select(X))
        np.testing.assert_allclose(got[f"{name} distance"], novelty, atol=1e-4)
        # P-values are ranks, which rounding may move by one.
        assert np.abs(got[f"{name} p_value"] - p_values[name]).max() <= 2.1 / 90
        assert np.mean(got[f"{name} p_value"] == p_values[name]) >= 0.9
        known = got[f"{name} known"]
        np.testing.assert_array_equal(known, got[f"{name} p_value"] > 1 - 0.9)
        given = model.given(name, got[f"{name} raw"]) & known[:, None]
        np.testing.assert_array_equal(got[f"{name} given"], given)
        some_known, some_unknown = some_known or known.any(), some_unknown or not known.all()
    assert some_known and some_unknown


@pytest.mark.parametrize("columns", [ONE, TWO], ids=["one block", "two blocks"])
@pytest.mark.parametrize(("head", "solver"), ALL_HEADS)
def test_every_head_answers_the_same(head, solver, columns):
    assert_same_answers(fit(head=head, solver=solver, columns=columns))


@pytest.mark.parametrize("task", ["multi-label", "joint"])
@pytest.mark.parametrize(("head", "solver"), ALL_HEADS)
def test_every_task_has_the_same_answers(head, solver, task):
    names = ("color", "kind") if task == "joint" else ("color", "kind", "tags")
    assert_same_answers(fit(names, head=head, solver=solver, task=task))


@pytest.mark.parametrize("calibrate", CALIBRATIONS)
@pytest.mark.parametrize("head", HEADS)
def test_every_calibration_has_the_same_probabilities(head, calibrate):
    assert_same_answers(fit(head=head, calibrate=calibrate))


def test_thresholds_of_labels_are_those_of_the_run():
    model = fit(("tags",), head="logistic", thresholds="recall=0.9")

    assert (model.thresholds["tags"] != 0.5).any()
    assert_same_answers(model)


@pytest.mark.parametrize(
    ("head", "scaling"),
    [(head, scaling) for head, grid in GRIDS.items() for scaling in grid["scaling"]],
)
def test_every_scaling_that_tuning_tries_is_written(head, scaling, monkeypatch):
    grid = {**GRIDS[head], "scaling": (scaling,)}
    monkeypatch.setitem(GRIDS, head, grid)

    assert_same_answers(fit(("color",), head=head))


def test_a_head_of_ones_own_is_refused_by_the_name_of_its_class():
    X, labels = make_rows()
    settings = HeadSettings.of(GaussianNB())
    model = fit_heads(X, {"color": labels["color"]}, np.arange(len(X)), settings).model

    with pytest.raises(UsageError, match="'color' cannot be part of an ONNX file: GaussianNB"):
        require_writable_head("color", model.heads["color"])


def test_an_uncalibrated_bag_of_scikit_learn_is_refused():
    model = fit(("color",), head="bagged-sgd", solver="sklearn", calibrate="none")

    with pytest.raises(UsageError, match="BaggingClassifier is not calibrated"):
        require_writable_head("color", model.heads["color"])
