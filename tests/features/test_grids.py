import numpy as np
import pytest

from featurepipe.features.grids import spread


def test_each_pixel_of_a_cell_gets_an_equal_part():
    grid = np.array([[6.0, -12.0]])
    np.testing.assert_allclose(spread(grid, (2, 6)), [[1, 1, 1, -2, -2, -2]] * 2)
    # The border of the two cells is in the middle of a pixel.
    np.testing.assert_allclose(spread(grid, (1, 3)), [[4, -2 - 0.0, -8]])


def test_smoothly_a_cell_reaches_to_the_centres_of_its_neighbours():
    found = spread(np.array([[0.0, 1.0, 0.0]]), (1, 300), smooth=True)[0]
    assert found.argmax() in (149, 150)
    inside = np.flatnonzero(found)
    assert (inside.min(), inside.max()) == (50, 249)
    assert found[100] / found[149] == pytest.approx(0.505 / 0.995)


def test_a_box_keeps_what_is_outside_of_it_at_zero():
    for smooth in (False, True):
        found = spread(np.ones((2, 2)), (30, 60), (20, 5, 40, 25), smooth=smooth)
        rows, columns = np.nonzero(found)
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 24, 20, 39)


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (7, 7), (224, 130), (3, 1)])
@pytest.mark.parametrize("cells", [(7, 7), (1, 1), (128, 128), (10, 3)])
def test_the_sum_stays(size, cells, smooth):
    grids = np.random.default_rng(0).normal(size=(2, *cells))
    height, width = size
    for box in (None, (0.3 * width, 0.1 * height, 0.31 * width, 0.9 * height)):
        found = spread(grids, size, box, smooth=smooth)
        assert found.shape == (2, *size)
        np.testing.assert_allclose(found.sum(axis=(1, 2)), grids.sum(axis=(1, 2)))


def test_uniform_evidence_stays_uniform_inside():
    found = spread(np.ones((8, 8)), (80, 80), smooth=True)
    np.testing.assert_allclose(found[15:65, 15:65], 1 / 100)
