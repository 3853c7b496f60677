import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurepipe.reports.intervals import wilson_interval


def test_published_example():
    # Newcombe (1998), Two-sided confidence intervals for the single proportion,
    # table I, method 3: 81 of 263 and 1 of 29.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_all_right_is_not_certainty():
    low, high = wilson_interval(20, 20)
    assert high == 1
    assert low == pytest.approx(20 / (20 + 1.959964**2))


def test_nothing_asked_says_nothing():
    assert np.isnan(wilson_interval(0, 0)).all()


@given(st.integers(1, 5000), st.data())
def test_intervals_hold_the_share_and_stay_in_range(n, data):
    n_right = data.draw(st.integers(0, n))
    low, high = wilson_interval(n_right, n)
    assert 0 <= low <= n_right / n + 1e-12
    assert n_right / n <= high + 1e-12 <= 1 + 1e-12
    wide_low, wide_high = wilson_interval(n_right, n, level=0.99)
    assert wide_low <= low
    assert high <= wide_high
