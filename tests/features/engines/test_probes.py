import numpy as np
import pytest

from featurepipe.features.engines.probes import N_PROBES, distance, probe_images, tolerance


def test_the_pictures_never_change():
    pictures = probe_images((6, 5))
    assert pictures.dtype == np.uint8
    assert pictures.shape == (N_PROBES, 6, 5, 3)
    assert pictures[0, 0, 0].tolist() == [39, 39, 39]
    assert int(probe_images((64, 64)).astype(int).sum()) == 15_327_797


def test_the_pictures_are_unlike_each_other():
    pictures = probe_images((32, 32)).reshape(N_PROBES, -1).astype(int)
    apart = np.abs(pictures[:, None] - pictures[None]).mean(axis=2)
    assert apart[~np.eye(N_PROBES, dtype=bool)].min() > 8


def test_the_distance_of_float32_is_the_largest_relative_one():
    reference = np.array([[3.0, 4.0], [0.0, 10.0]], np.float32)
    moved = reference + np.array([[0.0, 0.05], [0.02, 0.0]], np.float32)
    assert distance(moved, reference, "float32") == pytest.approx(0.01, rel=1e-4)
    assert tolerance("float32") == 1e-4


def test_the_distance_of_reduced_precision_is_a_share_of_that_between_images():
    reference = np.array([[100.0, 0], [100, 1], [100, 2]], np.float32)
    moved = reference + np.array([[0.01, 0], [0.02, 0], [0.03, 0]], np.float32)
    # Pairs are 1, 1 and 2 apart: the median is 1.
    assert distance(moved, reference, "bfloat16") == pytest.approx(0.02, rel=1e-3)
    assert tolerance("bfloat16") == 0.03
