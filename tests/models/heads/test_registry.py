import numpy as np
import pytest
from sklearn.base import clone
from sklearn.ensemble import BaggingClassifier
from sklearn.feature_selection import VarianceThreshold
from sklearn.linear_model import SGDClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline

from featurepipe.errors import FitError, UnknownNameError, UsageError
from featurepipe.models.heads.registry import (
    HEADS,
    AbsoluteVarianceThreshold,
    CommonScale,
    RelativeVarianceThreshold,
    build_head,
    build_variance_threshold,
    find_head,
    fit_head,
)


def make_features(n=120, n_features=40, n_classes=3, scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % n_classes
    X = np.abs(rng.normal(size=(n, n_features))) * 0.5
    X[np.arange(n), codes] += 1.5
    return (X * scale).astype(np.float32), codes


def kept(step, X):
    return np.flatnonzero(step.fit(X).get_support()).tolist()


def test_heads_are_listed():
    assert list(HEADS) == ["bagged-sgd", "logistic", "knn"]


def test_unknown_head_gets_the_nearest():
    with pytest.raises(UnknownNameError, match=r"Unknown head 'baged-sgd'.*'bagged-sgd'"):
        find_head("baged-sgd")


def test_solvers():
    assert find_head("bagged-sgd") is find_head("bagged-sgd", "minibatch")
    assert find_head("logistic") is find_head("logistic", "lbfgs")
    with pytest.raises(UnknownNameError, match="Unknown solver of logistic 'minibatch'"):
        find_head("logistic", "minibatch")


def test_relative_threshold_keeps_what_varies_beside_the_mean():
    # Variances 1, 0.04 and 0; a hundredth of their mean is 0.0035.
    X = np.array([[0, 0, 7], [2, 0.4, 7]])
    assert kept(RelativeVarianceThreshold(0.01), X) == [0, 1]
    assert kept(RelativeVarianceThreshold(0.2), X) == [0]


@pytest.mark.parametrize("scale", [1e-12, 1e-5, 1.0, 1e6])
def test_relative_threshold_travels_between_scales(scale):
    X, _ = make_features(scale=scale)
    X[:, 5:20] = X[0, 5:20]
    X[:, 20] *= 0.05
    expected = [column for column in range(40) if not 5 <= column <= 20]
    assert kept(RelativeVarianceThreshold(0.01), X) == expected


def test_constant_features_do_not_survive_by_rounding():
    X = np.full((1000, 3), 0.1, np.float32)
    with pytest.raises(FitError, match="Every feature is constant"):
        RelativeVarianceThreshold().fit(X)


def test_absolute_threshold_is_scikit_learns():
    X, _ = make_features()
    X[:, :7] *= 0.1
    ours = build_variance_threshold("0.05")
    assert kept(ours, X) == kept(VarianceThreshold(0.05), X) == list(range(7, 40))


def test_absolute_threshold_that_removes_all_says_what_to_set():
    X = np.array([[0.0, 0.0], [0.2, 0.1]])
    with pytest.raises(
        FitError, match=r"largest variance is 0\.01, the threshold 0\.1\. Set --variance-threshold"
    ):
        AbsoluteVarianceThreshold(0.1).fit(X)


@pytest.mark.parametrize("text", ["", "much", "1%%", "% 1", "-1", "-1%", "nan", "inf"])
def test_unreadable_thresholds_are_refused(text):
    with pytest.raises(UsageError, match="variance threshold"):
        build_variance_threshold(text)


@pytest.mark.parametrize(
    ("text", "share"), [("1%", 0.01), (" 0.5 % ", 0.005), ("0%", 0.0), ("1e-3%", 1e-5)]
)
def test_percentages_are_shares(text, share):
    assert build_variance_threshold(text).share == pytest.approx(share)


def test_ordinary_features_keep_their_scale_bit_for_bit():
    X, _ = make_features()
    assert CommonScale().fit_transform(X) is X or np.array_equal(CommonScale().fit_transform(X), X)


@pytest.mark.parametrize("scale", [1e-12, 1e-4, 1e4])
def test_extraordinary_features_get_a_root_mean_square_of_1(scale):
    X, _ = make_features(scale=scale)
    scaled = CommonScale().fit_transform(X)
    assert np.sqrt(np.mean(scaled**2)) == pytest.approx(1, rel=1e-5)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled / scaled[0, 0], X / X[0, 0], rtol=1e-5)


@pytest.mark.parametrize("solver", ["minibatch", "sklearn"])
@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e3])
def test_bagged_sgd_learns_features_of_any_scale(scale, solver):
    X, codes = make_features(scale=scale)
    options = {"n_train_rows": 120, "variance_threshold": "1%", "seed": 0}
    head = build_head("bagged-sgd", solver=solver, **options)
    assert head.fit(X, codes).score(X, codes) > 0.9


def test_bagged_sgd_of_sklearn_is_the_anchors_recipe_bit_for_bit():
    X, codes = make_features()
    head = build_head(
        "bagged-sgd", solver="sklearn", n_train_rows=120, variance_threshold="0.001", seed=3
    )
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
    head = build_head("logistic", n_train_rows=120, variance_threshold="0%", seed=0)
    before = head.fit(X, codes).predict_proba(X)
    after = head.fit(X * np.geomspace(0.1, 10, 40), codes).predict_proba(
        X * np.geomspace(0.1, 10, 40)
    )
    np.testing.assert_allclose(before, after, atol=1e-3)


@pytest.mark.parametrize("name", HEADS)
def test_label_sets_are_learnt_by_one_classifier(name):
    X, codes = make_features()
    options = {"n_train_rows": 120, "variance_threshold": "1%", "seed": 0, "one_vs_rest": True}
    head = build_head(name, **options).fit(X, np.eye(3, dtype=int)[codes])
    assert not isinstance(head[-1], OneVsRestClassifier)
    assert np.mean(head.predict(X).argmax(axis=1) == codes) > 0.9


def test_bagged_sgd_of_sklearn_gets_one_classifier_a_label():
    X, codes = make_features()
    options = {"n_train_rows": 120, "variance_threshold": "1%", "seed": 0, "one_vs_rest": True}
    head = build_head("bagged-sgd", solver="sklearn", **options)
    head.fit(X, np.eye(3, dtype=int)[codes])
    assert isinstance(head[-1], OneVsRestClassifier)
    assert len(head[-1].estimators_) == 3


def test_heads_that_hold_rows_out_keep_groups_together():
    X, codes = make_features(n=60)
    # Each row is there twice: one that is held out has been seen unless they stay together.
    X, groups = np.repeat(X, 2, axis=0), np.repeat(np.arange(60), 2)
    coins = np.repeat(np.random.default_rng(0).permutation(codes), 2)
    grouped, alone = (
        fit_head(
            build_head("logistic", n_train_rows=120, variance_threshold="1%", seed=0), X, coins, of
        )[-1]
        for of in (groups, np.arange(120))
    )
    assert np.nanmin(grouped.losses_) > 1.05 > np.nanmin(alone.losses_) + 0.3


@pytest.mark.parametrize("name", HEADS)
def test_every_head_is_fitted_with_groups(name):
    X, codes = make_features()
    head = build_head(name, n_train_rows=120, variance_threshold="1%", seed=0)
    assert fit_head(head, X, codes, np.arange(120) // 2).score(X, codes) > 0.9


@pytest.mark.parametrize(
    "step", [RelativeVarianceThreshold(0.3), AbsoluteVarianceThreshold(1e-9), CommonScale()]
)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_steps_learn_from_a_stream_what_fit_learns(step, scale):
    X, _ = make_features(scale=scale)
    X[:, :7] *= 0.2
    # 0.1 is no binary fraction: constant over all chunks, and over the first only.
    X[:, 7], X[:60, 8] = np.float32(0.1), np.float32(0.1)
    streamed, whole = clone(step), clone(step).fit(X)
    for start in range(0, 120, 50):
        streamed.partial_fit(X[start : start + 50])
    assert streamed.n_samples_seen_ == 120
    np.testing.assert_allclose(streamed.transform(X), whole.transform(X), rtol=1e-6)
    if hasattr(step, "get_support"):
        np.testing.assert_allclose(
            streamed.variances_, np.var(X.astype(float), axis=0), rtol=1e-6, atol=1e-15 * scale**2
        )
        assert streamed.variances_[7] == 0
    # What came before is forgotten.
    np.testing.assert_array_equal(streamed.fit(X).transform(X), whole.transform(X))


def test_a_stream_may_begin_with_chunks_that_leave_no_feature():
    step = RelativeVarianceThreshold().partial_fit(np.ones((3, 2)))
    assert not step.get_support().any()
    assert step.partial_fit(np.array([[2, 1]])).get_support().tolist() == [True, False]
