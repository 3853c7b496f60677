import numpy as np

from featurepipe.features.engines.calibration_pictures import calibration_pictures


def test_the_pictures_never_change():
    pictures = calibration_pictures(range(2), (64, 48))
    assert pictures.dtype == np.uint8
    assert pictures.shape == (2, 64, 48, 3)
    assert pictures[0, 0, 0].tolist() == [224, 245, 205]
    assert int(pictures.astype(int).sum()) == 4_046_261


def test_a_number_is_a_picture():
    one, two = calibration_pictures(range(5, 7), (32, 32))
    np.testing.assert_array_equal(calibration_pictures(range(6, 7), (32, 32))[0], two)
    assert (one != two).mean() > 0.5


def test_the_pictures_are_as_different_as_photographs():
    pictures = calibration_pictures(range(100), (32, 32)).astype(float)
    brightness, contrast = pictures.mean(axis=(1, 2, 3)), pictures.std(axis=(1, 2, 3))
    assert brightness.min() < 60
    assert brightness.max() > 190
    assert contrast.min() < 30
    assert contrast.max() > 80
    # Colourless ones, and those of one strong colour.
    colour = np.ptp(pictures.mean(axis=(1, 2)), axis=1)
    assert colour.min() < 15
    assert colour.max() > 120


def test_small_shapes_are_more_frequent_than_large_ones():
    rows = calibration_pictures(range(40), (64, 64)).astype(int)
    steps = np.abs(np.diff(rows, axis=2)).max(axis=-1)
    # Most neighbours are alike, as in photographs, and few differ strongly.
    assert np.median(steps) < 20
    assert 0.02 < (steps > 60).mean() < 0.3
