import numpy as np
import pytest
from sklearn.ensemble import BaggingClassifier
from sklearn.feature_selection import VarianceThreshold
from sklearn.linear_model import SGDClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline

from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.heads.pipelines import build_head, fit_head
from featurepipe.models.heads.registry import HEADS


def make_features(n=120, n_features=40, n_classes=3, scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % n_classes
    X = np.abs(rng.normal(size=(n, n_features))) * 0.5
    X[np.arange(n), codes] += 1.5
    return (X * scale).astype(np.float32), codes


def build(name, *, label_sets=False, **settings):
    return build_head(HeadSettings.of(name, **settings), 120, label_sets=label_sets)


@pytest.mark.parametrize("solver", ["minibatch", "sklearn"])
@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e3])
def test_bagged_sgd_learns_features_of_any_scale(scale, solver):
    X, codes = make_features(scale=scale)
    head = build("bagged-sgd", solver=solver)
    assert head.fit(X, codes).score(X, codes) > 0.9


def test_bagged_sgd_of_sklearn_is_the_anchors_recipe_bit_for_bit():
    X, codes = make_features()
    head = build("bagged-sgd", solver="sklearn", variance_threshold="0.001", seed=3)
    by_hand = make_pipeline(
        VarianceThreshold(0.001),
        BaggingClassifier(
            SGDClassifier(
                loss="log_loss",
                penalty="elasticnet",
                alpha=1 / 120,
                class_weight="balanced",
                fit_intercept=False,
                tol=1e-3,
            ),
            n_estimators=10,
            max_samples=0.5,
            max_features=0.5,
            bootstrap_features=True,
            random_state=3,
        ),
    )
    np.testing.assert_array_equal(
        head.fit(X, codes).predict_proba(X), by_hand.fit(X, codes).predict_proba(X)
    )


def test_logistic_does_not_depend_on_the_scale_of_single_features():
    X, codes = make_features()
    head = build("logistic", variance_threshold="0%")
    before = head.fit(X, codes).predict_proba(X)
    after = head.fit(X * np.geomspace(0.1, 10, 40), codes).predict_proba(
        X * np.geomspace(0.1, 10, 40)
    )
    np.testing.assert_allclose(before, after, atol=1e-3)


@pytest.mark.parametrize("name", HEADS)
def test_label_sets_are_learnt_by_one_classifier(name):
    X, codes = make_features()
    head = build(name, label_sets=True).fit(X, np.eye(3, dtype=int)[codes])
    assert not isinstance(head[-1], OneVsRestClassifier)
    assert np.mean(head.predict(X).argmax(axis=1) == codes) > 0.9


def test_bagged_sgd_of_sklearn_gets_one_classifier_a_label():
    X, codes = make_features()
    head = build("bagged-sgd", solver="sklearn", label_sets=True)
    head.fit(X, np.eye(3, dtype=int)[codes])
    assert isinstance(head[-1], OneVsRestClassifier)
    assert len(head[-1].estimators_) == 3


def test_heads_that_hold_rows_out_keep_groups_together():
    X, codes = make_features(n=60)
    # Each row is there twice: one that is held out has been seen unless they stay together.
    X, groups = np.repeat(X, 2, axis=0), np.repeat(np.arange(60), 2)
    coins = np.repeat(np.random.default_rng(0).permutation(codes), 2)
    grouped, alone = (
        fit_head(build("logistic"), X, coins, of)[-1] for of in (groups, np.arange(120))
    )
    assert np.nanmin(grouped.losses_) > 1.05 > np.nanmin(alone.losses_) + 0.3


@pytest.mark.parametrize("name", HEADS)
def test_every_head_is_fitted_with_groups(name):
    X, codes = make_features()
    head = build(name)
    assert fit_head(head, X, codes, np.arange(120) // 2).score(X, codes) > 0.9
