"""Weights of raw features, against the scores of the heads themselves."""

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.ensemble import BaggingClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from featurepipe.errors import NotLinearError
from featurepipe.manifest import Labels
from featurepipe.models.answers.head import ConstantHead, FeatureHead, KnownClasses
from featurepipe.models.heads.fitting import fit_heads
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.heads.linear_form import calibrated_form, linear_form
from featurepipe.models.heads.pipelines import build_head
from featurepipe.models.heads.registry import HEADS

LINEAR = [("bagged-sgd", "minibatch"), ("bagged-sgd", "sklearn"), ("logistic", "lbfgs")]
BLOCKS = {"one": ((0, 30),), "two": ((0, 10), (14, 30)), "swapped": ((12, 30), (0, 12))}


def make_rows(n=90, scale=1.0, seed=0):
    """Features of very different means and scales, some constant, that show colour and kind."""
    rng = np.random.default_rng(seed)
    color, kind = np.arange(n) % 3, (np.arange(n) // 3) % 2
    X = rng.normal(size=(n, 30))
    X[np.arange(n), color] += 2
    X[np.arange(n), 15 + kind] += 2
    X[np.arange(n), 26 + color] += 2
    X = X * np.geomspace(0.1, 3, 30) + np.linspace(-2, 4, 30)
    X[:, [5, 20]] = 7
    labels = {
        "color": one_of("color", color, ["black", "blue", "red"]),
        "kind": one_of("kind", kind, ["dress", "shirt"]),
    }
    return (scale * X).astype(np.float32), labels


def one_of(name, codes, classes):
    indicator = codes[:, None] == np.arange(len(classes))
    return Labels(name, tuple(classes), True, indicator, np.ones(len(codes), bool))


def sets_of(name, indicator, classes):
    return Labels(name, tuple(classes), False, indicator, np.ones(len(indicator), bool))


def fit(X, labels, columns=BLOCKS["one"], **settings):
    settings = HeadSettings.of(**settings)
    of_all = dict.fromkeys(labels, columns)
    return fit_heads(X, labels, np.arange(len(X)), settings, columns=of_all, n_jobs=2).model


def assert_exact(head, seed=1, scale=1.0):
    """Rows far from those that were fitted on have the same scores, by weights alone."""
    rows = np.random.default_rng(seed).normal(1, 3, (40, 30)).astype(np.float32) * scale
    form, expected = linear_form(head), head.decision_scores(rows)
    assert form.weights.shape == (len(head.known.learnt), head.select(rows).shape[1])
    assert expected[:, form.learnt].std() > 0.1
    size = np.abs(head.select(rows)) @ np.abs(form.weights).T + np.abs(form.intercepts)
    np.testing.assert_array_less(
        np.abs(form.scores(head.select(rows)) - expected[:, form.learnt]), 1e-5 * size
    )


@pytest.mark.parametrize("task", ["per-attribute", "multi-label", "joint"])
@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize(("head", "solver"), LINEAR)
def test_every_linear_head_and_task(head, solver, blocks, task):
    X, labels = make_rows()
    model = fit(X, labels, BLOCKS[blocks], head=head, solver=solver, task=task)
    assert len(model.heads) == (2 if task == "per-attribute" else 1)
    for fitted in model.heads.values():
        assert_exact(fitted)


@pytest.mark.parametrize(("head", "solver"), LINEAR)
def test_sets_of_labels_of_which_one_is_on_every_image(head, solver):
    X, labels = make_rows()
    color = labels["color"].indicator
    indicator = np.column_stack([color[:, 0], np.ones(len(X), bool), color[:, 1:]])
    model = fit(
        X, {"tag": sets_of("tag", indicator, ["a", "always", "b", "c"])}, head=head, solver=solver
    )
    assert linear_form(model.heads["tag"]).learnt.tolist() == [0, 2, 3]
    assert_exact(model.heads["tag"])


def test_features_of_an_extraordinary_scale_are_divided():
    X, labels = make_rows(scale=1e-4)
    assert_exact(fit(X, labels, head="bagged-sgd").heads["color"], scale=1e-4)


@pytest.mark.parametrize("scaling", ["as-is", "standardised"])
@pytest.mark.parametrize("head", ["bagged-sgd", "logistic"])
def test_what_tuning_may_choose(head, scaling):
    X, labels = make_rows()
    tuned = {"scaling": scaling, "variance_threshold": "10%"}
    pipeline = build_head(HeadSettings.of(head), len(X), widths=[10, 20], tuned=tuned)
    truth = labels["color"].indicator
    pipeline.fit(X, truth.argmax(axis=1))
    assert_exact(FeatureHead(KnownClasses.of(truth, True), ((0, 30),), estimator=pipeline))


@pytest.mark.parametrize("own", [LogisticRegression(), SGDClassifier(loss="hinge")])
def test_heads_of_ones_own_that_are_linear(own):
    X, labels = make_rows()
    assert_exact(fit(X, labels, BLOCKS["two"], head=own).heads["color"])
    pipeline = make_pipeline(StandardScaler(with_std=False), own)
    assert_exact(fit(X, labels, head=pipeline).heads["kind"])


class Absolute(LogisticRegression):
    def decision_function(self, X):
        return np.abs(super().decision_function(X))


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        ("knn", "CosineNeighbours is not linear"),
        ("svm", "RbfSVM is not linear"),
        (GaussianNB(), "GaussianNB is not linear"),
        (Absolute(), "Absolute is not linear"),
        (BaggingClassifier(DecisionTreeClassifier()), "DecisionTreeClassifier is not linear"),
        (make_pipeline(Normalizer(), LogisticRegression()), "step Normalizer before the head is"),
    ],
)
def test_others_say_why_there_is_no_linear_form(head, reason):
    X, labels = make_rows()
    model = fit(X, labels, BLOCKS["two"], head=head)
    for of_attribute in model.heads.values():
        with pytest.raises(NotLinearError, match=reason):
            linear_form(of_attribute)
    assert {*HEADS} == {"knn", "svm"} | {name for name, _ in LINEAR}


def test_nothing_to_learn():
    known = KnownClasses.of(np.array([[True, False]]), True)
    with pytest.raises(NotLinearError, match="every training image has the same classes"):
        linear_form(ConstantHead(known, ((0, 30),)))


@pytest.mark.parametrize("task", ["per-attribute", "multi-label"])
@pytest.mark.parametrize("calibrate", ["temperature", "sigmoid"])
def test_calibration_is_folded_in(calibrate, task):
    X, labels = make_rows()
    rows = make_rows(seed=2)[0]
    for head in fit(X, labels, head="logistic", calibrate=calibrate, task=task).heads.values():
        scores = calibrated_form(head).scores(head.select(rows))
        if calibrate == "temperature" and head.known.exclusive:
            expected = softmax(scores, axis=1)
        else:
            expected = expit(scores)
            if head.known.exclusive:
                expected /= expected.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(head.predict_proba(rows), expected, atol=1e-5)
        assert not np.allclose(scores, linear_form(head).scores(head.select(rows)), rtol=1e-2)


@pytest.mark.parametrize("calibrate", ["isotonic", "none"])
def test_without_a_slope_the_scores_stay_what_they_are(calibrate):
    X, labels = make_rows()
    head = fit(X, labels, head="logistic", calibrate=calibrate).heads["color"]
    np.testing.assert_array_equal(calibrated_form(head).weights, linear_form(head).weights)
