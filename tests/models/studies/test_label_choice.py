"""Which images are chosen, on features drawn by hand."""

import numpy as np
import pytest

from featurepipe.models.answers.arrays import unit_blocks
from featurepipe.models.studies import label_choice
from featurepipe.models.studies.label_choice import choose_images, doubts


def test_doubt_is_one_minus_the_margin_of_the_best_two_classes():
    probabilities = np.array([[0.41, 0.39, 0.2], [0.98, 0.01, 0.01], [0.5, 0.5, 0]])
    assert doubts(probabilities, exclusive=True) == pytest.approx([0.98, 0.03, 1])
    assert doubts(np.ones((2, 1)), exclusive=True).tolist() == [0, 0]


def test_doubt_of_a_set_is_that_of_its_least_sure_label():
    probabilities = np.array([[0.99, 0.5], [0.9, 0.05], [1, 0]])
    assert doubts(probabilities, exclusive=False) == pytest.approx([1, 0.2, 0])


def test_every_block_counts_equally_and_empty_rows_stay_empty():
    X = np.array([[3, 4, 100, 0], [0, 0, 0, 2]], dtype=np.float32)
    scaled = unit_blocks(X, [(0, 2), (2, 4)])
    np.testing.assert_allclose(scaled, [[0.6, 0.8, 1, 0], [0, 0, 0, 1]])


BLOCKS = [(0, 2)]


def three_groups():
    """30 rows in one direction, 20 in another, and 3 in a third; of any length."""
    rng = np.random.default_rng(0)
    angles = np.repeat([0.0, 1, 2], [30, 20, 3]) + rng.normal(0, 0.01, 53)
    return rng.uniform(1, 9, (53, 1)) * np.column_stack([np.cos(angles), np.sin(angles)])


def test_one_image_of_each_group_is_chosen_the_largest_groups_first():
    chosen, n_nearest = choose_images(three_groups(), np.ones(53), 3, BLOCKS)
    groups = np.repeat([0, 1, 2], [30, 20, 3])[chosen]
    assert dict(zip(groups.tolist(), n_nearest.tolist(), strict=True)) == {0: 29, 1: 19, 2: 2}


def test_images_that_the_run_is_sure_of_attract_no_choice():
    weights = np.repeat([0.0, 0, 1], [30, 20, 3])
    chosen, _ = choose_images(three_groups(), weights, 2, BLOCKS)
    assert (chosen >= 50).all()


def test_each_image_is_chosen_once_and_all_if_so_many_are_wanted():
    for weights in (np.ones(53), np.zeros(53)):
        chosen, n_nearest = choose_images(three_groups(), weights, 100, BLOCKS)
        assert sorted(chosen.tolist()) == list(range(53))
        assert n_nearest.tolist() == [0] * 53


def test_of_many_images_those_with_the_largest_weights_are_compared(monkeypatch):
    monkeypatch.setattr(label_choice, "MAX_COMPARED", 10)
    weights = np.zeros(53)
    weights[[4, 7, 31, 40, 50]] = [0.5, 0.9, 0.8, 0.7, 0.6]
    weights[10:16] = 0.1
    chosen, n_nearest = choose_images(three_groups(), weights, 3, BLOCKS)
    assert set(chosen.tolist()) <= {4, 7, 31, 40, 50, *range(10, 16)}
    assert n_nearest.sum() == 10 - 3
