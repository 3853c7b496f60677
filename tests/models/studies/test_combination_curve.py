from itertools import product

import numpy as np
import pytest

from featurepipe.errors import FitError
from featurepipe.manifest.labels import labels_of
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.studies.combination_curve import (
    CombinationPoint,
    combination_curve,
    require_combinations,
)

NAMES = ("color", "fill", "shape")


@pytest.fixture(scope="module")
def world():
    """27 combinations; features show each class, and each combination shifts them."""
    rng = np.random.default_rng(0)
    codes = np.repeat(list(product(range(3), repeat=3)), 8, axis=0)
    own = np.repeat(np.arange(27), 8)
    X = rng.normal(0, 0.1, (len(codes), 40)).astype(np.float32)
    for k, column in enumerate(codes.T):
        X[np.arange(len(X)), 3 * k + column] += 1
    X += rng.normal(0, 0.15, (27, 40)).astype(np.float32)[own]
    labels = {
        name: labels_of(name, [(f"{name}{code}",) for code in column])
        for name, column in zip(NAMES, codes.T, strict=True)
    }
    return X, labels, np.arange(len(X))


@pytest.fixture(scope="module")
def curve(world):
    columns = dict.fromkeys(NAMES, ((0, 40),))
    return combination_curve(*world, HeadSettings.of("logistic"), columns=columns)


def test_more_combinations_help_with_unseen_ones(curve):
    points = [point for point in curve.points if point.attribute == "all"]
    assert [point.share for point in points] == [0.125, 0.25, 0.5, 1.0]
    # 5 or 6 of the 27 combinations are held out; about 5 random ones have every class.
    assert [point.n_combinations for point in points] == [5, 6, 11, 22]
    assert [point.n_train for point in points] == pytest.approx(
        [8 * n for n in (5, 6, 11, 22)], abs=8
    )
    accuracies = [point.accuracy for point in points]
    assert accuracies == sorted(accuracies)
    assert accuracies[0] < 0.5 < 0.75 < accuracies[-1]
    assert np.isnan(points[0].gain)
    assert points[-1].gain == pytest.approx(accuracies[-1] - accuracies[-2])
    assert all(point.low <= point.accuracy <= point.high for point in points)


def test_an_interval_has_a_width_where_all_are_right(curve):
    right = [point for point in curve.points if point.accuracy == 1]
    assert all(0.8 < point.low < point.high == 1 for point in right)


def test_every_combination_is_asked_without_images_of_its_own(world, curve):
    assert len(curve.accuracies) == 27
    assert list(curve.accuracies.values()) == sorted(curve.accuracies.values())
    (last,) = (p for p in curve.points if p.attribute == "all" and p.share == 1)
    assert np.mean(list(curve.accuracies.values())) == pytest.approx(last.accuracy)
    assert all(name.count("_") == 2 for name in curve.accuracies)


def test_all_attributes_are_right_less_often_than_each(curve):
    of = {(point.attribute, point.share): point.accuracy for point in curve.points}
    assert all(of["all", 1.0] <= of[name, 1.0] for name in NAMES)


@pytest.mark.parametrize(
    ("gain", "margin", "verdict"),
    [
        (0.05, 0.02, "images of more combinations would help"),
        (0.002, 0.004, "images of more combinations would help little"),
        (0.02, 0.05, "too uncertain to say whether images of more combinations would help"),
    ],
)
def test_the_verdict_weighs_the_gain(gain, margin, verdict):
    point = CombinationPoint("all", 1.0, 52, 900, 0.9, 0.85, 0.95, gain, margin)
    assert point.verdict == verdict
    assert "90.0 % (95 % CI 85.0 to 95.0 %)" in point.in_words()


def test_without_two_attributes_there_are_no_combinations(world):
    _, labels, groups = world
    with pytest.raises(FitError, match="--curve combinations needs at least two attributes"):
        require_combinations({"color": labels["color"]}, groups, 0)
