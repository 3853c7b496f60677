import numpy as np
import pytest
from sklearn.feature_selection import VarianceThreshold

from featurepipe.errors import FitError, UsageError
from featurepipe.models.heads.estimators.variances import (
    AbsoluteVarianceThreshold,
    RelativeVarianceThreshold,
    build_variance_threshold,
)


def make_features(n=120, n_features=40, n_classes=3, scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % n_classes
    X = np.abs(rng.normal(size=(n, n_features))) * 0.5
    X[np.arange(n), codes] += 1.5
    return (X * scale).astype(np.float32), codes


def kept(step, X):
    return np.flatnonzero(step.fit(X).get_support()).tolist()


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


def test_a_stream_may_begin_with_chunks_that_leave_no_feature():
    step = RelativeVarianceThreshold().partial_fit(np.ones((3, 2)))
    assert not step.get_support().any()
    assert step.partial_fit(np.array([[2, 1]])).get_support().tolist() == [True, False]


def test_variances_of_many_rows_are_those_of_numpy_in_chunks_of_any_size():
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(1000, 6)) * [1, 1e-3, 10, 1, 1, 0] + [0, 100, -5, 1e4, 0, 7]).astype(
        np.float32
    )
    expected = np.var(X, axis=0, dtype=np.float64)
    for size in (1, 100, 1000):
        step = RelativeVarianceThreshold(0)
        for start in range(0, len(X), size):
            step.partial_fit(X[start : start + size])
        np.testing.assert_allclose(step.variances_, expected, rtol=1e-10)
        assert step.variances_[5] == 0
