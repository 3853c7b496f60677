import numpy as np
import pytest
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

from featurepipe.models.heads.estimators.knn import CosineNeighbours


@parametrize_with_checks([CosineNeighbours()])
def test_it_is_a_classifier_of_scikit_learn(estimator, check):
    check(estimator)


def make_features(n=150, n_features=20, n_classes=4, seed=0):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, n_classes, n)
    centres = np.random.default_rng(99).normal(0, 0.6, (n_classes, n_features))
    return (centres[codes] + rng.normal(0, 1, (n, n_features))).astype(np.float32), codes


def by_scikit_learn(k):
    # Its distance is 1 - cosine; the factor common to all votes does not matter.
    return KNeighborsClassifier(
        k, metric="cosine", weights=lambda distances: np.exp(-distances / 0.07)
    )


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("k", [1, 20])
def test_votes_are_those_of_scikit_learn_and_one_that_all_share(k, n_classes):
    X, codes = make_features(n_classes=n_classes)
    X_new, _ = make_features(n=40, n_classes=n_classes, seed=1)
    ours = CosineNeighbours((k,)).fit(X, codes)
    theirs = by_scikit_learn(k).fit(X, codes)
    distances, _ = theirs.kneighbors(X_new)
    total = np.exp((distances[:, :1] - distances) / 0.07).sum(axis=1, keepdims=True)
    expected = (theirs.predict_proba(X_new) * total + 1 / n_classes) / (total + 1)
    np.testing.assert_allclose(ours.predict_proba(X_new), expected, atol=1e-4)
    np.testing.assert_array_equal(ours.predict(X_new), theirs.predict(X_new))


def test_scores_are_logarithms_of_the_shares():
    X, codes = make_features()
    model = CosineNeighbours().fit(X, codes)
    np.testing.assert_allclose(
        np.exp(model.decision_function(X)), model.predict_proba(X), rtol=1e-5
    )
    two = CosineNeighbours().fit(X, codes > 1)
    shares = two.predict_proba(X)
    np.testing.assert_allclose(
        two.decision_function(X), np.log(shares[:, 1] / shares[:, 0]), atol=1e-5
    )


def test_scores_of_the_certain_are_finite():
    X = np.repeat(np.eye(2, 5, dtype=np.float32), 300, axis=0)
    model = CosineNeighbours().fit(X, np.repeat([0, 1], 300))
    assert np.isfinite(model.decision_function(X)).all()
    assert model.score(X, np.repeat([0, 1], 300)) == 1


@pytest.mark.parametrize("n_copies", [1, 2])
def test_k_has_the_lowest_loss_by_rows_of_other_groups(n_copies):
    X, codes = make_features(n=120)
    X, codes = np.repeat(X, n_copies, axis=0), np.repeat(codes, n_copies)
    groups = np.repeat(np.arange(120), n_copies)
    numbers = (1, 3, 10, 40)
    ours = CosineNeighbours(numbers).fit(X, codes, groups)
    losses = []
    for number in numbers:
        held_out = np.empty((len(X), 4))
        for group in range(120):
            others = groups != group
            alone = CosineNeighbours((number,)).fit(X[others], codes[others])
            held_out[~others] = alone.predict_proba(X[~others])
        losses.append(log_loss(codes, held_out))
    np.testing.assert_allclose(ours.losses_, losses, rtol=1e-3)
    assert ours.n_neighbors_ == numbers[np.argmin(losses)]


def test_labels_of_sets_are_voted_on_one_by_one():
    X, codes = make_features()
    truth = np.column_stack([codes == 0, codes != 1, codes >= 2]).astype(int)
    together = CosineNeighbours((7,)).fit(X, truth)
    for k, label in enumerate(truth.T):
        alone = CosineNeighbours((7,)).fit(X, label)
        np.testing.assert_allclose(
            together.predict_proba(X)[:, k], alone.predict_proba(X)[:, 1], rtol=1e-5
        )
        np.testing.assert_allclose(
            together.decision_function(X)[:, k], alone.decision_function(X), atol=1e-5
        )
    assert together.predict(X).shape == (150, 3)


def test_length_does_not_matter_and_few_rows_are_all_neighbours():
    X, codes = make_features(n=9)
    model = CosineNeighbours().fit(X, codes)
    scaled = CosineNeighbours().fit(X * np.arange(1, 10)[:, None], codes)
    np.testing.assert_allclose(model.predict_proba(X), scaled.predict_proba(X), rtol=1e-4)
    # All numbers come to the same 9 rows: at equal losses the larger.
    assert model.n_neighbors_ == 200


def test_a_single_group_leaves_nothing_to_choose_by():
    X, codes = make_features()
    model = CosineNeighbours().fit(X, codes, np.zeros(len(X)))
    assert model.n_neighbors_ == 10
    assert np.isnan(model.losses_).all()


@pytest.mark.parametrize("options", [{"n_neighbors": (0, 5)}, {"temperature": 0}])
def test_parameters_out_of_range(options):
    with pytest.raises(ValueError, match="expected numbers of 1 or more"):
        CosineNeighbours(**options).fit(*make_features())
