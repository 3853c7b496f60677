from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from featurepipe.errors import UnknownNameError
from featurepipe.features.extraction.embedders import share_engines
from featurepipe.features.extraction.embedding import embed_images
from featurepipe.features.extraction.recipe import make_recipe
from featurepipe.features.extraction.updating import extract_features
from featurepipe.features.extraction.views import VIEWS, find_view
from featurepipe.features.headless import HeadlessNetwork
from featurepipe.features.store import FeatureStore
from featurepipe.sources import LocalFolder
from pictures import ColourMean


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


# --- shuffle ---


def numbered(height, width):
    """One image whose every pixel is another colour, and the numbers of these."""
    numbers = np.arange(height * width).reshape(height, width)
    channels = [numbers >> shift & 255 for shift in (16, 8, 0)]
    return np.stack(channels, axis=-1).astype(np.uint8)[None], numbers


def shuffled_numbers(height, width):
    """The number of the pixel that is shown at each place."""
    red, green, blue = np.moveaxis(
        find_view("shuffle").apply(numbered(height, width)[0])[0].astype(int), -1, 0
    )
    return (red << 16) + (green << 8) + blue


@pytest.mark.parametrize(
    "size", [(224, 224), (299, 299), (128, 128), (75, 331), (30, 20), (8, 8), (1, 1)]
)
def test_shuffle_shows_every_pixel_once(size):
    shuffled = shuffled_numbers(*size)
    assert shuffled.shape == size
    assert sorted(shuffled.ravel()) == list(range(size[0] * size[1]))


@pytest.mark.parametrize("side", [224, 128, 299])
def test_shuffle_keeps_patches_whole_and_moves_them_far(side):
    shuffled, numbers = shuffled_numbers(side, side), numbered(side, side)[1]
    borders = np.floor(np.arange(29) * side / 28 + 0.5).astype(int)
    moved = []
    for top, bottom in pairwise(borders):
        for left, right in pairwise(borders):
            patch = shuffled[top:bottom, left:right]
            own = numbers[top:bottom, left:right]
            np.testing.assert_array_equal(patch - patch[0, 0], own - own[0, 0])
            moved.append(np.subtract(divmod(patch[0, 0], side), (top, left)) / side)
    rows, columns = np.abs(moved).T
    # Two places that have nothing to do with each other are a third apart.
    assert abs(rows.mean() - 1 / 3) < 0.03
    assert abs(columns.mean() - 1 / 3) < 0.03
    assert not np.any((rows == 0) & (columns == 0))
    # No row of patches stays together.
    assert rows.reshape(28, 28).std(axis=1).min() > 0.1


def test_shuffle_is_the_same_for_every_image_and_always(images):
    view = find_view("shuffle")
    together = view.apply(images)
    assert together.dtype == np.uint8
    alone = [view.apply(image[None])[0] for image in images]
    np.testing.assert_array_equal(together, alone)
    # Stores of earlier versions are of this very permutation.
    assert shuffled_numbers(28, 28)[0, :6].tolist() == [150, 10, 227, 499, 756, 755]


def test_shuffle_leaves_its_input_alone(images):
    before = images.copy()
    find_view("shuffle").apply(images)
    np.testing.assert_array_equal(images, before)


# --- flip ---


def test_flip_shows_images_first_and_then_their_mirror_images(images):
    view = find_view("flip")
    shown = view.apply(images)
    assert (view.n_pictures, shown.dtype, shown.shape) == (2, np.uint8, (8, 64, 48, 3))
    np.testing.assert_array_equal(shown[:4], images)
    np.testing.assert_array_equal(shown[4:], [np.fliplr(image) for image in images])


def test_flip_averages_features():
    features = np.array([[1, 2], [3, 4], [5, 6], [9, 0]], np.float32)
    merged = find_view("flip").merge(features)
    assert merged.dtype == np.float32
    assert merged.tolist() == [[3, 4], [6, 2]]


@pytest.mark.parametrize("name", ["rgb", "grey", "shuffle"])
def test_other_views_leave_features_as_they_are(name):
    features = np.random.default_rng(0).random((3, 5), dtype=np.float32)
    view = find_view(name)
    assert view.n_pictures == 1
    np.testing.assert_array_equal(view.merge(features), features)


class LeftHalf(ColourMean):
    """Sees the left half only: mirror images differ to it."""

    def compute(self, images):
        left = np.zeros_like(images)
        left[:, :, : self.input_size[1] // 2] = images[:, :, : self.input_size[1] // 2]
        return super().compute(left)


@pytest.fixture
def files(tmp_path, images):
    """Files of three images, and of the mirror images of these."""
    pictures = [*images[:3, :8, :8], *images[:3, :8, :8][:, :, ::-1]]
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(picture).save(path)
    return paths


def test_an_image_and_its_mirror_image_have_the_same_features(files, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "featurepipe.features.extraction.recipe.open_engine",
        lambda *_, batch_size, **__: LeftHalf((8, 8), batch_size=batch_size),
    )
    monkeypatch.setattr(HeadlessNetwork, "require_possible", lambda _: None)
    source, ids = LocalFolder(tmp_path), [path.name for path in files]
    as_is = make_recipe("mobilenet_v2", "random", size_px=8)
    once, _ = embed_images(source, ids, [as_is])
    assert np.abs(once[:3] - once[3:]).min() > 1e-4
    by_hand = (once[:3] + once[3:]) / 2

    recipe = make_recipe("mobilenet_v2", "random", size_px=8, view="flip")
    rows, _ = embed_images(source, ids, [recipe], engines=share_engines([recipe], 4))
    np.testing.assert_array_equal(rows, np.concatenate([by_hand, by_hand]))
    store_path = tmp_path / "flip.h5"
    extract_features({store_path: recipe}, source, ids, batch_size=4)
    with FeatureStore.open(store_path) as store:
        np.testing.assert_array_equal(store.features(), rows)


def test_views_are_found_by_their_name():
    assert list(VIEWS) == ["rgb", "grey", "shuffle", "flip"]
    assert all(view.name == name and view.summary for name, view in VIEWS.items())


def test_unknown_view():
    with pytest.raises(UnknownNameError) as error:
        find_view("gray")
    assert str(error.value) == "Unknown view 'gray'. Did you mean 'grey'?"
