import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.datasets import make_classification
from sklearn.ensemble import BaggingClassifier
from sklearn.linear_model import SGDClassifier
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.estimator_checks import parametrize_with_checks

from featurepipe.models.heads.estimators.bagged_sgd import BaggedSGDClassifier

# It fails for BaggingClassifier(SGDClassifier(loss="log_loss")) as well.
FAILS = {
    "check_classifiers_train": "the mean of probabilities and that of scores may disagree",
}


@parametrize_with_checks(
    [BaggedSGDClassifier(random_state=0)], expected_failed_checks=lambda estimator: FAILS
)
def test_it_is_a_classifier_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize("check", FAILS)
def test_what_it_fails_bagging_fails_too(check):
    from sklearn.utils.estimator_checks import check_estimator

    bagging = BaggingClassifier(SGDClassifier(loss="log_loss"), random_state=0)
    results = check_estimator(bagging, on_fail=None)
    assert "failed" in {each["status"] for each in results if each["check_name"] == check}


def make_features(n=600, n_features=80, n_classes=5, seed=0):
    """Features as networks pool them: none below 0, none centred, classes that overlap."""
    rng = np.random.default_rng(seed)
    codes = rng.choice(n_classes, size=n, p=np.arange(1, n_classes + 1) / sum(range(n_classes + 1)))
    centres = rng.normal(0.5, 0.25, (n_classes, n_features))
    mixing = rng.normal(0, 0.08, (20, n_features))
    X = centres[codes] + rng.normal(size=(n, 20)) @ mixing + rng.normal(0, 0.3, (n, n_features))
    return np.maximum(X, 0).astype(np.float32), codes


def whole(**options):
    """One member that draws everything that can be drawn, so that it can be followed."""
    return BaggedSGDClassifier(1, max_samples=1.0, max_features=1.0, random_state=0, **options)


def bag(n_rows, n_members=10, seed=0, **options):
    """The recipe's bag for so many rows."""
    return BaggedSGDClassifier(n_members, alpha=1 / n_rows, random_state=seed, **options)


def drawn(n, n_features):
    """Rows and features, literally repeated, of the only member of `whole`."""
    seed = np.random.RandomState(0).randint(np.iinfo(np.int32).max, size=1)[0]
    rng = np.random.default_rng(seed)
    return rng.integers(0, n, n), rng.integers(0, n_features, n_features)


def objective(weights, X, truth, costs, alpha, l1_ratio):
    """Of one output, with every repeated row and column spelt out."""
    scores = X @ weights
    loss = np.mean(costs * (np.logaddexp(0, scores) - truth * scores))
    l1, l2 = np.abs(weights).sum(), np.square(weights).sum()
    return loss + alpha * (l1_ratio * l1 + (1 - l1_ratio) / 2 * l2)


def spelt_out(model, X, codes):
    """Drawn rows and columns, and for each class: its weights, the truth and the costs."""
    rows, columns = drawn(*X.shape)
    n_copies = np.bincount(columns, minlength=X.shape[1])
    balance = compute_class_weight("balanced", classes=model.classes_, y=codes[rows])
    problems = []
    for k, coef in enumerate(model.coefs_[0].astype(np.float64)):
        truth = codes[rows] == k
        costs = np.where(truth, balance[k], 1.0)
        problems.append(((coef / np.maximum(n_copies, 1))[columns], truth, costs))
    return X[np.ix_(rows, columns)].astype(np.float64), codes[rows], problems


@pytest.mark.parametrize(("penalty", "l1_ratio"), [("elasticnet", 0.15), ("l2", 0.0)])
def test_the_objective_is_as_low_as_where_scikit_learn_stops(penalty, l1_ratio):
    X, codes = make_features()
    alpha = 1 / len(X)
    model = whole(alpha=alpha, l1_ratio=l1_ratio).fit(X, codes)
    features, drawn_codes, problems = spelt_out(model, X, codes)
    literal = SGDClassifier(
        loss="log_loss",
        penalty=penalty,
        alpha=alpha,
        class_weight="balanced",
        fit_intercept=False,
        tol=1e-3,
        random_state=0,
    ).fit(features, drawn_codes)
    ours, theirs = (
        np.mean(
            [
                objective(weights, features, truth, costs, alpha, l1_ratio)
                for weights, (_, truth, costs) in zip(coefs, problems, strict=True)
            ]
        )
        for coefs in ([weights for weights, _, _ in problems], literal.coef_)
    )
    assert ours < 1.02 * theirs


def test_more_passes_lead_to_the_minimum():
    X, codes = make_features(n=300, n_features=30, n_classes=3)
    model = whole(l1_ratio=0, max_iter=600, alpha=0.01).fit(X, codes)
    features, _, problems = spelt_out(model, X, codes)
    for weights, truth, costs in problems:

        def of(weights, truth=truth, costs=costs):
            return objective(weights, features, truth, costs, 0.01, 0)

        def slope(weights, truth=truth, costs=costs):
            errors = costs * (expit(features @ weights) - truth)
            return features.T @ errors / len(features) + 0.01 * weights

        least = minimize(of, np.zeros(features.shape[1]), jac=slope, method="L-BFGS-B", tol=1e-12)
        assert of(weights) == pytest.approx(least.fun, rel=1e-3)


def test_a_strong_l1_penalty_leaves_little_but_a_few_weights():
    X, codes = make_features()
    options = {"alpha": 0.02, "max_iter": 100}
    sparse, dense = (whole(l1_ratio=share, **options).fit(X, codes) for share in (1.0, 0.0))
    assert np.mean(np.abs(sparse.coef_) < 1e-3) > 0.75
    # 41 % of the features are not drawn at all.
    assert np.mean(np.abs(dense.coef_) < 1e-3) < 0.45
    assert sparse.score(X, codes) > 0.5


def test_it_tells_classes_apart_as_well_as_scikit_learn():
    X, codes = make_features(n=1200)
    literal = BaggingClassifier(
        SGDClassifier(
            loss="log_loss",
            penalty="elasticnet",
            alpha=1 / 800,
            class_weight="balanced",
            fit_intercept=False,
        ),
        max_samples=0.5,
        max_features=0.5,
        bootstrap_features=True,
        random_state=0,
    ).fit(X[:800], codes[:800])
    ours = bag(800).fit(X[:800], codes[:800])
    assert ours.score(X[800:], codes[800:]) >= literal.score(X[800:], codes[800:]) - 0.01
    assert ours.coefs_.shape == (10, 5, 80)
    # Half of the features, drawn with replacement, are about 39 % of them.
    assert 0.33 < np.mean((ours.coefs_ != 0).any(axis=1)) < 0.45
    np.testing.assert_allclose(ours.decision_function(X), X @ ours.coef_.T, rtol=1e-4, atol=1e-4)


def test_probabilities_are_the_mean_of_the_members():
    X, codes = make_features()
    model = bag(600, 3).fit(X, codes)
    by_member = [expit(X @ coef.T) for coef in model.coefs_]
    by_member = [each / each.sum(axis=1, keepdims=True) for each in by_member]
    np.testing.assert_allclose(model.predict_proba(X), np.mean(by_member, axis=0), atol=1e-5)
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1)


def test_two_classes_have_one_output():
    X, codes = make_features(n_classes=2)
    names = np.array(["cat", "dog"])[codes]
    model = bag(600).fit(X, names)
    assert model.coef_.shape == (1, 80)
    assert model.decision_function(X).shape == (600,)
    assert model.score(X, names) > 0.9
    np.testing.assert_allclose(
        model.predict_proba(X)[:, 1], np.mean([expit(X @ c[0]) for c in model.coefs_], 0), atol=1e-5
    )


def test_sets_of_labels():
    X, codes = make_features(n_classes=3)
    truth = np.column_stack([codes == 0, codes != 1, codes == 2]).astype(int)
    model = bag(600).fit(X, truth)
    assert model.predict_proba(X).shape == model.decision_function(X).shape == (600, 3)
    assert np.mean(model.predict(X) == truth) > 0.9
    # A label is learnt as if it were alone: every member draws the same rows either way.
    # Rounding differs, and grows from step to step.
    together, alone = (bag(600, max_iter=3).fit(X, y).coefs_ for y in (truth, truth[:, 1]))
    np.testing.assert_allclose(together[:, [1]], alone, atol=1e-3)


def test_rare_classes_count_as_much_as_frequent_ones():
    X, codes = make_features(n=2000, n_classes=2)
    rare = np.flatnonzero(codes == 0)[:30]
    rows = np.concatenate([rare, np.flatnonzero(codes == 1)])
    balanced = BaggedSGDClassifier(alpha=0.05, random_state=0).fit(X[rows], codes[rows])
    member = SGDClassifier(
        loss="log_loss", penalty="elasticnet", alpha=0.05, fit_intercept=False, random_state=0
    )
    plain = BaggingClassifier(
        member, max_samples=0.5, max_features=0.5, bootstrap_features=True, random_state=0
    ).fit(X[rows], codes[rows])
    others = np.setdiff1d(np.flatnonzero(codes == 0), rare)
    assert balanced.score(X[others], codes[others]) > plain.score(X[others], codes[others]) + 0.2


def test_the_same_seed_gives_the_same_whatever_the_threads():
    X, codes = make_features()
    one, two, other = (
        bag(600, seed=seed, n_jobs=n_jobs).fit(X, codes).coefs_
        for seed, n_jobs in ((0, 1), (0, 2), (1, 1))
    )
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_estimators": 0}, "n_estimators is 0, expected at least 1"),
        ({"max_features": 1.5}, r"max_features is 1.5, expected a share in \(0, 1\]"),
        ({"batch_size": 0}, "batch_size is 0, expected at least 1"),
    ],
)
def test_parameters_out_of_range(options, message):
    X, codes = make_classification(50, random_state=0)
    with pytest.raises(ValueError, match=message):
        BaggedSGDClassifier(**options).fit(X, codes)
