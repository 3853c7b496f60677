"""Evidence in images: its sum is exact, and it lies where the features come from."""

import io

import numpy as np
import pytest
from PIL import Image

from featurepipe.features.extraction.embedding import embed_images
from featurepipe.features.extraction.evidence import FeatureLocator
from featurepipe.features.extraction.file_recipe import FileOptions
from featurepipe.features.extraction.recipe import make_recipe
from featurepipe.features.extraction.views import VIEWS, find_view
from featurepipe.sources.given_images import GivenImages
from model_graphs import PATCH, Graph, embed_patches

SIDE = 60
N_CELLS = SIDE // PATCH
WEIGHTS = np.array([1.0, -2, 0.5, 0, 3])


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def noise(height=SIDE, width=SIDE, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def recipe_of(folder, view="rgb", **preprocess):
    """A network whose cells are patches of its input, each seen by no other cell."""
    graph = Graph(["n", 3, SIDE, SIDE])
    path = graph.save(folder / "small.onnx", graph.maps)
    how = {"scale": 1.0, "mean": (0.0,), "std": (1.0,), **preprocess} if preprocess else "none"
    return make_recipe(str(path), view=view, size_px=SIDE, of_file=FileOptions(how))


def features_of(recipe, data):
    features, refused = embed_images(GivenImages([data]), ["0"], [recipe])
    assert not refused
    return features[0].astype(float)


def grid_of(recipe, data, weights=WEIGHTS):
    return FeatureLocator(recipe, {}).locate(data).grid(weights)


@pytest.mark.parametrize("view", VIEWS)
def test_the_evidence_sums_to_the_weighted_features(tmp_path, view):
    recipe, pixels = recipe_of(tmp_path, view), noise(90, 47)
    located = FeatureLocator(recipe, {}).locate(png(pixels))
    expected = features_of(recipe, png(pixels)) @ WEIGHTS
    scale = features_of(recipe, png(pixels)) @ np.abs(WEIGHTS)
    assert located.grid(WEIGHTS).sum() == pytest.approx(expected, abs=1e-5 * scale)
    for size in [(90, 47), (360, 188), (11, 3)]:
        evidence = located.evidence(WEIGHTS, (90, 47), size)
        assert evidence.shape == size
        assert evidence.sum() == pytest.approx(expected, abs=1e-5 * scale)


def cells_by_hand(pixels):
    """What each cell contributes: of shape (N_CELLS, N_CELLS)."""
    return np.tensordot(WEIGHTS, embed_patches(pixels[None].astype(float))[0], 1) / N_CELLS**2


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_as_it_is_and_grey(tmp_path):
    pixels = noise()
    assert_close(grid_of(recipe_of(tmp_path), png(pixels)), cells_by_hand(pixels))
    grey = find_view("grey").apply(pixels[None])[0]
    assert_close(grid_of(recipe_of(tmp_path, "grey"), png(pixels)), cells_by_hand(grey))


def test_flip_is_the_mean_of_the_map_and_of_the_mirrored_map_of_the_mirror_image(tmp_path):
    pixels = noise()
    mirrored = cells_by_hand(pixels[:, ::-1])[:, ::-1]
    expected = (cells_by_hand(pixels) + mirrored) / 2
    assert_close(grid_of(recipe_of(tmp_path, "flip"), png(pixels)), expected)


def test_shuffled_pixels_get_the_evidence_of_the_cell_that_showed_them(tmp_path):
    """Each pixel holds its own number, so the shuffled picture tells where it was shown."""
    numbers = np.arange(SIDE * SIDE)
    pixels = np.stack([numbers // 256, numbers % 256, 0 * numbers], axis=-1)
    pixels = pixels.reshape(SIDE, SIDE, 3).astype(np.uint8)
    shown = find_view("shuffle").apply(pixels[None])[0]
    cells = cells_by_hand(shown)
    expected = np.empty((SIDE, SIDE))
    for row in range(SIDE):
        for column in range(SIDE):
            number = shown[row, column].astype(int) @ [256, 1, 0]
            of_cell = cells[row // PATCH, column // PATCH]
            expected[divmod(number, SIDE)] = of_cell / PATCH**2
    assert (shown != pixels).any()
    assert_close(grid_of(recipe_of(tmp_path, "shuffle"), png(pixels)), expected)


def test_an_image_that_is_cropped_has_no_evidence_beside_the_crop(tmp_path):
    recipe = recipe_of(tmp_path, resize="shorter-side+crop", crop_pct=0.75)
    assert recipe.framing.shorter_px == 80
    data = png(noise(160, 320))
    located = FeatureLocator(recipe, {}).locate(data)
    evidence = located.evidence(WEIGHTS, (160, 320), (80, 160))
    rows, columns = np.nonzero(np.abs(evidence) > 1e-12)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 69, 50, 109)
    expected = features_of(recipe, data) @ WEIGHTS
    assert evidence.sum() == pytest.approx(expected, rel=1e-4)


def test_a_bright_spot_of_a_cropped_image_has_the_evidence(tmp_path):
    """Black patches have no features, so that all evidence comes from the spot."""
    recipe = recipe_of(tmp_path, resize="shorter-side+crop", crop_pct=0.75)
    pixels = np.zeros((160, 320, 3), np.uint8)
    pixels[40:48, 180:188] = 255, 40, 200
    evidence = (
        FeatureLocator(recipe, {}).locate(png(pixels)).evidence(WEIGHTS, (160, 320), (160, 320))
    )
    rows, columns = np.mgrid[:160, :320] + 0.5
    total = np.abs(evidence).sum()
    assert (np.abs(evidence) * rows).sum() / total == pytest.approx(44, abs=4)
    assert (np.abs(evidence) * columns).sum() / total == pytest.approx(184, abs=4)


HSV = make_recipe("hsv_histogram", "none", size_px=32)
RED, BLUE = (220, 10, 10), (10, 10, 220)


def test_colours_are_projected_back_to_their_pixels():
    """The left quarter is red, the rest blue; each bin has one weight."""
    pixels = np.empty((32, 32, 3), np.uint8)
    pixels[:, :8], pixels[:, 8:] = RED, BLUE
    features = features_of(HSV, png(pixels))
    (of_red, of_blue) = np.flatnonzero(features)
    assert features[of_red] < features[of_blue]
    weights = np.zeros(576)
    weights[[of_red, of_blue]] = 2, -3
    grid = grid_of(HSV, png(pixels), weights)
    assert grid.shape == (32, 32)
    assert grid[:, :8].sum() == pytest.approx(2 * features[of_red], rel=1e-5)
    assert grid[:, 8:].sum() == pytest.approx(-3 * features[of_blue], rel=1e-5)
    assert (grid[:, :8] > 0).all() and (grid[:, 8:] < 0).all()
    # Pixels count as in the histogram: more in the middle.
    x, y = (2 * np.array([12, 2]) + 1) / 32 - 1, (2 * np.array([20, 31]) + 1) / 32 - 1
    expected = np.exp(-2 * (x[0] ** 2 + y[0] ** 2)) / np.exp(-2 * (x[0] ** 2 + y[1] ** 2))
    assert grid[20, 12] / grid[31, 12] == pytest.approx(expected)


@pytest.mark.parametrize("view", VIEWS)
def test_the_evidence_of_colours_sums_to_the_weighted_features(view):
    recipe = make_recipe("hsv_histogram", "none", size_px=32, view=view)
    data, weights = png(noise(50, 70)), np.random.default_rng(1).normal(size=576)
    features = features_of(recipe, data)
    grid = grid_of(recipe, data, weights)
    assert grid.sum() == pytest.approx(features @ weights, abs=1e-5 * (features @ abs(weights)))


def test_views_of_one_network_share_it(tmp_path):
    opened = {}
    for view in ("rgb", "grey"):
        FeatureLocator(recipe_of(tmp_path, view), opened)
    FeatureLocator(HSV, opened)
    assert len(opened) == 2
