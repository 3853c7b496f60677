import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.utils.estimator_checks import parametrize_with_checks

from featurepipe.models.heads.estimators.logistic import PROBED_CS, LogisticSweep
from featurepipe.splits import inner_folds


@parametrize_with_checks([LogisticSweep(Cs=(0.01, 1.0))])
def test_it_is_a_classifier_of_scikit_learn(estimator, check):
    check(estimator)


def make_features(n=240, n_features=30, n_classes=4, noise=1.5, seed=0):
    """Classes that overlap, and features of which some are nearly the same."""
    rng = np.random.default_rng(seed)
    codes = rng.choice(n_classes, size=n, p=np.arange(1, n_classes + 1) / sum(range(n_classes + 1)))
    X = rng.normal(0, 1, (n_classes, n_features))[codes] + rng.normal(0, noise, (n, n_features))
    X[:, -5:] = X[:, :5] + rng.normal(0, 0.01, (n, 5))
    return (X - X.mean(axis=0)) / X.std(axis=0), codes


def of_scikit_learn(C):
    return LogisticRegression(C=C, tol=1e-10, max_iter=100_000)


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("n_features", [30, 400])
@pytest.mark.parametrize("C", [1e-4, 0.1, 100.0])
def test_weights_are_those_of_scikit_learn(C, n_features, n_classes):
    X, codes = make_features(n_features=n_features, n_classes=n_classes)
    ours = LogisticSweep(Cs=(C,), tol=1e-14).fit(X, codes)
    theirs = of_scikit_learn(C).fit(X, codes)
    for name in ("coef_", "intercept_"):
        expected = getattr(theirs, name)
        tolerance = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(getattr(ours, name), expected, atol=tolerance)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-4)


@pytest.mark.parametrize("C", [1e-4, 0.1, 100.0])
def test_single_precision_and_the_usual_tolerance_do_nearly_as_well(C):
    X, codes = make_features(n=400, n_features=200)
    ours = LogisticSweep(Cs=(C,)).fit(X.astype(np.float32), codes)
    theirs = of_scikit_learn(C).fit(X, codes)
    assert ours.coef_.dtype == ours.predict_proba(X.astype(np.float32)).dtype == np.float32

    def objective(model):
        losses = log_loss(codes, model.predict_proba(X), normalize=True)
        return losses + np.square(model.coef_).sum() / (2 * C * len(X))

    assert objective(theirs) <= objective(ours) < objective(theirs) + 1e-4


@pytest.mark.parametrize("n_classes", [2, 4])
def test_single_precision_finds_the_coefficients_of_scikit_learn(n_classes):
    X, codes = make_features(n_classes=n_classes)
    ours = LogisticSweep(n_folds=3).fit(X.astype(np.float32), codes)
    theirs = of_scikit_learn(ours.C_).fit(X, codes)
    # Five pairs of features are nearly the same, so that rounding moves their coefficients.
    tolerance = 0.01 * np.abs(theirs.coef_).max()
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=tolerance)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=2e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_two_rows_a_class_and_constant_features_are_enough(dtype):
    X = np.array([[0, 1], [0.2, 1], [5, 1], [5.3, 1], [9, 1], [9.4, 1]], dtype)
    codes = np.repeat([0, 1, 2], 2)
    model = LogisticSweep(n_folds=2).fit(X, codes)
    np.testing.assert_array_equal(model.predict(X), codes)
    theirs = of_scikit_learn(model.C_).fit(X, codes)
    np.testing.assert_allclose(model.predict_proba(X), theirs.predict_proba(X), atol=1e-3)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_c_is_that_of_a_sweep_by_scikit_learn(n_classes, grouped):
    X, codes = make_features(n_classes=n_classes)
    groups = np.arange(len(X)) // 3 if grouped else np.arange(len(X))
    ours = LogisticSweep(n_folds=3, random_state=5, tol=1e-11)
    ours.fit(X, codes, groups=groups if grouped else None)
    folds = inner_folds(codes, groups, 3, 5)
    losses = []
    for C in PROBED_CS:
        held_out = np.empty((len(X), n_classes))
        for training, validation in folds:
            model = of_scikit_learn(C).fit(X[training], codes[training])
            held_out[validation] = model.predict_proba(X[validation])
        losses.append(log_loss(codes, held_out))
    assert PROBED_CS[np.argmin(losses)] == ours.C_
    tried = np.isfinite(ours.losses_)
    np.testing.assert_allclose(ours.losses_[tried], np.array(losses)[tried], rtol=1e-3)
    # The path has ended, and what it left out would not have been chosen.
    assert 20 < tried.sum() < 45
    assert not tried[tried.sum() :].any()


def test_sets_of_labels_are_one_regression_a_label_with_one_c():
    X, codes = make_features(noise=3)
    truth = np.column_stack([codes == 0, codes != 1, codes >= 2]).astype(int)
    Cs = (1e-4, 1e-3, 1e-2, 0.1, 1.0)
    ours = LogisticSweep(Cs, n_folds=3, tol=1e-13).fit(X, truth)
    _, strata = np.unique(truth, axis=0, return_inverse=True)
    losses = np.zeros(len(Cs))
    for training, validation in inner_folds(strata, np.arange(len(X)), 3, 0):
        for number, C in enumerate(Cs):
            for label in truth.T:
                model = of_scikit_learn(C).fit(X[training], label[training])
                held_out = model.predict_proba(X[validation])
                losses[number] += log_loss(label[validation], held_out, normalize=False)
    tried = np.isfinite(ours.losses_)
    np.testing.assert_allclose(ours.losses_[tried], losses[tried] / truth.size, rtol=1e-4)
    assert Cs[np.argmin(losses)] == ours.C_
    for k, label in enumerate(truth.T):
        alone = of_scikit_learn(ours.C_).fit(X, label)
        np.testing.assert_allclose(ours.coef_[k], alone.coef_[0], atol=1e-4)
    np.testing.assert_allclose(ours.predict_proba(X), expit(ours.decision_function(X)))
    np.testing.assert_array_equal(ours.predict(X), ours.decision_function(X) > 0)


def test_flat_losses_take_the_strongest_penalty():
    rng = np.random.default_rng(0)
    X = np.zeros((60, 3))
    X[:, 0] = rng.normal(size=60) * 1e-12
    model = LogisticSweep().fit(X, np.arange(60) % 2)
    assert PROBED_CS[0] == model.C_
    assert np.isfinite(model.losses_).all()


def test_rows_of_a_class_that_their_fold_lacks_do_not_choose():
    X, codes = make_features()
    # All rows of the last class are of one group.
    groups = np.where(codes == 3, 0, np.arange(len(X)))
    losses = []
    for training, validation in inner_folds(codes, groups, 3, 0):
        model = of_scikit_learn(0.1).fit(X[training], codes[training])
        known = validation[np.isin(codes[validation], model.classes_)]
        held_out = model.predict_proba(X[known])
        losses.append(log_loss(codes[known], held_out, normalize=False, labels=model.classes_))
    ours = LogisticSweep(Cs=(0.1,), n_folds=3, tol=1e-12).fit(X, codes, groups)
    assert ours.losses_ == pytest.approx(sum(losses) / np.count_nonzero(codes != 3), rel=1e-3)


@pytest.mark.parametrize("groups", [np.zeros(60, int), np.arange(60) % 2])
def test_where_nothing_can_be_held_out_c_is_a_hundredth(groups):
    X, _ = make_features(n=60)
    codes = np.arange(60) % 2
    model = LogisticSweep(tol=1e-14).fit(X, codes, groups)
    assert model.C_ == 0.01
    assert np.isnan(model.losses_).all()
    np.testing.assert_allclose(model.coef_, of_scikit_learn(0.01).fit(X, codes).coef_, atol=1e-5)
