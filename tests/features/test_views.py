import numpy as np
import pytest
from PIL import Image

from featurepipe.errors import UnknownNameError
from featurepipe.features.views import VIEWS, find_view


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (4, 64, 48, 3), dtype=np.uint8)


def test_rgb_is_the_image_itself(images):
    np.testing.assert_array_equal(find_view("rgb").apply(images), images)


def test_grey_is_pillows_luminance_three_times(images):
    grey = find_view("grey").apply(images)
    expected = [np.asarray(Image.fromarray(image).convert("L").convert("RGB")) for image in images]
    assert grey.dtype == np.uint8
    np.testing.assert_array_equal(grey, expected)


def test_grey_at_the_ends_and_of_pure_colours():
    colours = [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255)]
    images = np.array(colours, dtype=np.uint8)[:, None, None]
    grey = find_view("grey").apply(images)
    assert grey[:, 0, 0].tolist() == [[v] * 3 for v in (0, 255, 76, 150, 29)]


def test_grey_of_grey_is_itself(images):
    once = find_view("grey").apply(images)
    np.testing.assert_array_equal(find_view("grey").apply(once), once)


def test_views_are_found_by_their_name():
    assert list(VIEWS) == ["rgb", "grey"]
    assert all(view.name == name and view.summary for name, view in VIEWS.items())


def test_unknown_view():
    with pytest.raises(UnknownNameError) as error:
        find_view("gray")
    assert str(error.value) == "Unknown view 'gray'. Did you mean 'grey'?"
