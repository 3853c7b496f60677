import numpy as np
import pytest

from featurepipe.models.heads.estimators.bagged_sgd import BaggedSGDClassifier


def make_features(n=600, n_features=80, n_classes=5, seed=0):
    """Features as networks pool them: none below 0, none centred, classes that overlap."""
    rng = np.random.default_rng(seed)
    codes = rng.choice(n_classes, size=n, p=np.arange(1, n_classes + 1) / sum(range(n_classes + 1)))
    centres = rng.normal(0.5, 0.25, (n_classes, n_features))
    mixing = rng.normal(0, 0.08, (20, n_features))
    X = centres[codes] + rng.normal(size=(n, 20)) @ mixing + rng.normal(0, 0.3, (n, n_features))
    return np.maximum(X, 0).astype(np.float32), codes


def bag(n_rows, **options):
    return BaggedSGDClassifier(alpha=1 / n_rows, random_state=0, **options)


def stream(model, X, y, size, n_jobs=1):
    """Fit a bag on all passes of a stream, in chunks of a size."""
    label_sets = y.ndim == 2
    classes = np.arange(y.shape[1]) if label_sets else np.unique(y)
    counts = y.sum(axis=0) if label_sets else np.bincount(y)
    chunks = model.begin_stream(classes, counts, len(X), label_sets=label_sets)
    for _ in range(model.max_iter):
        for start in range(0, len(X), size):
            chunks.learn(X[start : start + size], y[start : start + size], n_jobs=n_jobs)
    chunks.finish()
    return model


def mean_objective(model, X, truth):
    """Over all members and outputs, on all rows: what each member minimises in the mean."""
    n, n_outputs = truth.shape
    balance_true = n / (n_outputs if n_outputs > 2 else 2) / truth.sum(axis=0)
    balance_others = np.ones(n_outputs) if n_outputs > 2 else n / 2 / (n - truth.sum(axis=0))
    costs = np.where(truth, balance_true, balance_others)
    return np.mean(
        [
            objective(coef[k].astype(np.float64), X, truth[:, k], costs[:, k], 1 / n, 0.15)
            for coef in model.coefs_
            for k in range(n_outputs)
        ]
    )


def objective(weights, X, truth, costs, alpha, l1_ratio):
    """Of one output."""
    scores = X @ weights
    loss = np.mean(costs * (np.logaddexp(0, scores) - truth * scores))
    l1, l2 = np.abs(weights).sum(), np.square(weights).sum()
    return loss + alpha * (l1_ratio * l1 + (1 - l1_ratio) / 2 * l2)


@pytest.mark.parametrize("n_classes", [2, 5])
def test_a_stream_ends_as_low_as_fit_whatever_its_chunks(n_classes):
    X, codes = make_features(n_classes=n_classes)
    outputs = np.arange(n_classes) if n_classes > 2 else [1]
    truth = codes[:, None] == outputs
    options = {"max_features": 1.0, "max_iter": 20}
    fitted = bag(600, **options).fit(X, codes)
    for size in (37, 200, 600):
        streamed = stream(bag(600, **options), X, codes, size)
        assert streamed.n_iter_.tolist() == [20] * 10
        assert mean_objective(streamed, X, truth) < 1.06 * mean_objective(fitted, X, truth)
        np.testing.assert_array_less(0.95, streamed.score(X, codes))


def test_sets_of_labels_from_a_stream():
    X, codes = make_features(n_classes=3)
    truth = np.column_stack([codes == 0, codes != 1, codes == 2]).astype(int)
    streamed = stream(bag(600), X, truth, 150)
    fitted = bag(600).fit(X, truth)
    assert np.mean(streamed.predict(X) == truth) > np.mean(fitted.predict(X) == truth) - 0.01
    assert streamed.decision_function(X).shape == (600, 3)


def test_a_member_draws_a_row_by_its_position_in_the_pass():
    from featurepipe.models.heads.estimators.chunked_descent import StreamMember

    costs = np.ones(1, np.float32)
    member = StreamMember(bag(10_000, max_iter=1), 7, np.ones(3, int), costs, 10_000)
    whole = member._draw(0, 10_000)
    chunks = [member._draw(start, 1234) for start in range(0, 10_000, 1234)]
    np.testing.assert_array_equal(np.concatenate(chunks)[:10_000], whole)
    # Poisson: mean and variance are one half, and exp(-1/2) are not drawn.
    assert whole.mean() == pytest.approx(0.5, abs=0.03)
    assert whole.var() == pytest.approx(0.5, abs=0.04)
    assert np.mean(whole == 0) == pytest.approx(np.exp(-0.5), abs=0.02)


def test_the_same_stream_gives_the_same_whatever_the_threads():
    X, codes = make_features()
    one, two = (stream(bag(600, max_iter=3), X, codes, 50, n).coefs_ for n in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_chunks_beyond_the_end_of_a_pass_or_of_the_stream_are_refused():
    X, codes = make_features()
    chunks = bag(600, max_iter=1).begin_stream(np.arange(5), np.bincount(codes), 600)
    chunks.learn(X[:400], codes[:400])
    with pytest.raises(ValueError, match="has 201 rows after 400; expected at most 200, in 1 pass"):
        chunks.learn(X[:201], codes[:201])
    chunks.learn(X[400:], codes[400:])
    with pytest.raises(ValueError, match="has 600 rows after 600"):
        chunks.learn(X, codes)


def test_a_stream_refuses_parameters_out_of_range():
    with pytest.raises(ValueError, match="max_iter is 0, expected at least 1"):
        bag(600, max_iter=0).begin_stream(np.arange(2), np.array([300, 300]), 600)
