import numpy as np
import pytest
from scipy.special import expit
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from featurepipe.models.heads.estimators import svm
from featurepipe.models.heads.estimators.svm import RbfSVM


@parametrize_with_checks([RbfSVM()])
def test_it_is_a_classifier_of_scikit_learn(estimator, check):
    check(estimator)


def make_features(n=150, n_features=20, n_classes=4, seed=0):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, n_classes, n)
    centres = np.random.default_rng(99).normal(0, 0.6, (n_classes, n_features))
    return (centres[codes] + rng.normal(0, 1, (n, n_features))).astype(np.float32), codes


def test_one_over_gamma_is_the_mean_squared_distance_of_two_rows():
    X, codes = make_features(n=40)
    apart = np.square(X[:, None] - X).sum(axis=2)
    assert 1 / RbfSVM().fit(X, codes).gamma_ == pytest.approx(apart.mean(), rel=1e-5)


@pytest.mark.parametrize("C", [0.1, 10.0])
def test_classes_and_labels_are_those_of_scikit_learn(C):
    X, codes = make_features()
    X_new, _ = make_features(n=40, seed=1)
    sets = np.column_stack([codes > 1, codes % 2, codes == 0]).astype(int)
    for targets in (codes, sets):
        ours = RbfSVM(C).fit(X, targets)
        theirs = OneVsRestClassifier(SVC(C=C, gamma=ours.gamma_)).fit(X.astype(float), targets)
        expected = theirs.decision_function(X_new.astype(float))
        np.testing.assert_allclose(ours.decision_function(X_new), expected, atol=2e-3)
        given = expected.argmax(axis=1) if targets is codes else expected > 0
        np.testing.assert_array_equal(ours.predict(X_new), given)


def test_two_classes_have_one_machine():
    X, codes = make_features(n_classes=2)
    names = np.array(["no", "yes"])[codes]
    ours = RbfSVM().fit(X, names)
    theirs = SVC(C=10, gamma=ours.gamma_).fit(X.astype(float), names)
    scores = ours.decision_function(X)
    np.testing.assert_allclose(scores, theirs.decision_function(X.astype(float)), atol=2e-3)
    np.testing.assert_allclose(ours.predict_proba(X)[:, 1], expit(scores))
    assert ours.predict_proba(X).sum(axis=1) == pytest.approx(1)
    assert len(ours.support_vectors_) == len(theirs.support_) < len(X)


def test_rows_that_support_no_machine_are_not_kept():
    X = np.concatenate([make_features(seed=seed)[0] for seed in range(3)])
    codes = np.concatenate([make_features(seed=seed)[1] for seed in range(3)])
    # Far from the others, and alike.
    X[codes == 0] += 20
    model = RbfSVM().fit(X, codes == 0)
    assert 0 < len(model.support_vectors_) < len(X) / 2
    assert model.score(X, codes == 0) == 1
    assert (model.dual_coef_ != 0).any(axis=1).all()


def test_chunks_change_nothing(monkeypatch):
    X, codes = make_features()
    model = RbfSVM().fit(X, codes)
    whole = model.decision_function(X)
    monkeypatch.setattr(svm, "_CHUNK_BYTES", 7 * 4 * len(model.support_vectors_))
    np.testing.assert_allclose(model.decision_function(X), whole, atol=1e-5)


def test_equal_rows_are_no_division_by_zero():
    model = RbfSVM().fit(np.ones((6, 3)), [0, 1, 2, 0, 1, 2])
    assert model.gamma_ == 1 and np.isfinite(model.predict_proba(np.ones((2, 3)))).all()
