import numpy as np
import pytest
from sklearn.base import clone

from featurepipe.models.heads.estimators.scaling import BlockScale, CommonScale
from featurepipe.models.heads.estimators.variances import (
    AbsoluteVarianceThreshold,
    RelativeVarianceThreshold,
)


def make_features(n=120, n_features=40, n_classes=3, scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % n_classes
    X = np.abs(rng.normal(size=(n, n_features))) * 0.5
    X[np.arange(n), codes] += 1.5
    return (X * scale).astype(np.float32), codes


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


@pytest.mark.parametrize(
    "step",
    [RelativeVarianceThreshold(0.3), AbsoluteVarianceThreshold(1e-9), CommonScale(), BlockScale()],
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
