import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

import featurepipe
from featurepipe.errors import UsageError
from featurepipe.features.backbones import find_backbone
from featurepipe.features.extraction.embedding import embed_images
from featurepipe.features.extraction.recipe import make_recipe, repeat_recipe
from featurepipe.features.extraction.updating import extract_features
from featurepipe.features.store import FeatureStore
from featurepipe.sources import LocalFolder
from pictures import draw, draw_data_set

BACKBONE = find_backbone("hsv-histogram")
SIDE = 32


def open_histogram(**options):
    return make_recipe("hsv-histogram", **options).open_engine()


@pytest.fixture(scope="module")
def engine():
    return open_histogram(size_px=SIDE)


def painted(*colours, side=SIDE):
    """One image of each colour."""
    images = np.empty((len(colours), side, side, 3), np.uint8)
    images[:] = np.reshape(colours, (-1, 1, 1, 3))
    return images


def bin_number(hue, saturation, value):
    return (hue * 6 + saturation) * 6 + value


def shares(engine, images):
    """The share of the image's weight that is in each bin."""
    return engine.embed(images).astype(float) ** 2


@pytest.mark.parametrize(
    ("colour", "bins"),
    [
        ((255, 0, 0), (0, 5, 5)),
        ((255, 255, 0), (2, 5, 5)),  # 1/6 turn
        ((0, 255, 0), (5, 5, 5)),  # 1/3
        ((0, 255, 255), (8, 5, 5)),
        ((0, 0, 255), (10, 5, 5)),
        ((255, 0, 255), (13, 5, 5)),
        ((255, 0, 1), (15, 5, 5)),
        ((100, 50, 50), (0, 3, 2)),  # half as saturated: the fourth sixth begins at 1/2
        ((101, 51, 51), (0, 2, 2)),
        ((30, 60, 200), (10, 5, 4)),  # 0.637 turns, 0.85, 0.784
    ],
)
def test_a_plain_picture_is_in_one_bin(engine, colour, bins):
    expected = np.zeros(576)
    expected[bin_number(*bins)] = 1
    np.testing.assert_allclose(engine.embed(painted(colour))[0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("grey", "value"), [(0, 0), (42, 0), (43, 1), (127, 2), (128, 3), (212, 4), (213, 5), (255, 5)]
)
def test_greys_have_neither_hue_nor_saturation(engine, grey, value):
    features = engine.embed(painted((grey,) * 3))[0]
    assert np.flatnonzero(features).tolist() == [bin_number(0, 0, value)]


def exact_bins(red, green, blue):
    """Hue, saturation and value by the book, in fractions."""
    high, low = max(red, green, blue), min(red, green, blue)
    delta, turns = high - low, Fraction(0)
    if delta and high == red:
        turns = Fraction(green - blue, delta) % 6 / 6
    elif delta and high == green:
        turns = (Fraction(blue - red, delta) + 2) / 6
    elif delta:
        turns = (Fraction(red - green, delta) + 4) / 6
    saturation = Fraction(delta, high) if high else Fraction(0)
    return int(turns * 16), min(int(saturation * 6), 5), min(int(Fraction(high, 255) * 6), 5)


def test_every_colour_is_in_the_bin_that_fractions_say():
    rng = np.random.default_rng(0)
    # Few steps a channel give many colours that lie on the borders of bins.
    colours = np.concatenate([rng.integers(0, 256, (2000, 3)), 5 * rng.integers(0, 52, (2000, 3))])
    found = open_histogram(size_px=1).embed(painted(*colours, side=1)).argmax(axis=1)
    expected = [bin_number(*exact_bins(*map(int, colour))) for colour in colours]
    assert found.tolist() == expected


def test_pixels_weigh_by_their_distance_from_the_centre():
    image = painted((255, 0, 0), side=2).repeat(2, axis=1).repeat(2, axis=2)
    image[0, 0, 0] = (0, 255, 0)
    image[0, 1, 1] = (0, 0, 255)
    found = shares(open_histogram(size_px=4), image)[0]
    # Along a side, pixels lie at -3/4, -1/4, 1/4 and 3/4; the deviation is 1/2.
    outer, inner = np.exp(-((3 / 4) ** 2) * 2), np.exp(-((1 / 4) ** 2) * 2)
    total = (2 * outer + 2 * inner) ** 2
    assert found[bin_number(5, 5, 5)] == pytest.approx(outer**2 / total, rel=1e-5)
    assert found[bin_number(10, 5, 5)] == pytest.approx(inner**2 / total, rel=1e-5)
    assert found.sum() == pytest.approx(1)


def test_a_small_thing_in_the_middle_outweighs_its_area(engine):
    images = painted((255, 255, 255), (255, 255, 255))
    images[0, 12:20, 12:20] = images[1, :8, :8] = (255, 0, 0)
    area = (8 / SIDE) ** 2
    in_the_middle, in_a_corner = shares(engine, images)[:, bin_number(0, 5, 5)]
    assert in_the_middle > 2 * area
    assert in_a_corner < area / 2


def noise(n_images, seed=0, side=SIDE):
    return np.random.default_rng(seed).integers(0, 256, (n_images, side, side, 3), dtype=np.uint8)


def test_squares_add_up_to_one(engine):
    features = engine.embed(noise(5))
    assert features.dtype == np.float32
    assert features.shape == (5, BACKBONE.n_features) == (5, engine.n_features)
    np.testing.assert_allclose((features.astype(float) ** 2).sum(axis=1), 1, rtol=1e-6)


def test_rows_do_not_depend_on_the_batch(engine):
    images = noise(7)
    alone = np.concatenate([engine.embed(image[None]) for image in images])
    np.testing.assert_array_equal(engine.embed(images), alone)
    np.testing.assert_array_equal(engine.embed(images[::-1]), alone[::-1])
    assert engine.embed(images[:0]).shape == (0, 576)


def test_batches_come_back_in_order(engine):
    images = noise(40)
    futures = [engine.start(images[k : k + 16]) for k in range(0, 40, 16)]
    found = np.concatenate([future.result() for future in futures])
    np.testing.assert_array_equal(found, engine.embed(images))
    assert (engine.batch_size, engine.n_parallel) == (64, 1)


def test_the_default_size():
    assert open_histogram().input_size == (128, 128)


def test_there_is_nothing_to_pool():
    with pytest.raises(UsageError) as error:
        open_histogram(pooling="max")
    assert str(error.value) == (
        "hsv_histogram cannot be pooled by 'max': it is no network and has no layers. "
        "Omit --pooling."
    )


def test_too_small():
    with pytest.raises(UsageError) as error:
        open_histogram(size_px=0)
    assert str(error.value) == (
        "Images of 0 px are too small for hsv_histogram (minimum 1). Use a larger --size; its "
        "default is 128."
    )


def test_a_recipe_and_its_store(tmp_path):
    paths = {name: tmp_path / f"{name}.png" for name in ("blue", "red")}
    for name, path in paths.items():
        draw(path, name, bright_top=False, seed=0)
    recipe = make_recipe("hsv-histogram")
    assert recipe.store_name == "hsv_histogram-none-128-avg-rgb"
    store_path = tmp_path / f"{recipe.store_name}.h5"
    source, ids = LocalFolder(tmp_path), [path.name for path in paths.values()]
    extract_features({store_path: recipe}, source, ids)
    with FeatureStore.open(store_path) as store:
        features, made_by = store.features(), store.made_by
    assert features.shape == (2, 576)
    hues = (features.astype(float) ** 2).reshape(2, 16, -1).sum(axis=-1)
    assert hues.argmax(axis=1).tolist() == [10, 0]
    again = repeat_recipe(recipe.key, str(made_by["weights_source"]))
    assert again == recipe
    rows, _ = embed_images(source, ids, [again])
    np.testing.assert_array_equal(rows, features)


def test_it_is_extracted_fitted_and_predicted_with_like_any_backbone(tmp_path):
    images, place = tmp_path / "images", tmp_path / "workspace"
    draw_data_set(images, n_each=6)
    (done,) = featurepipe.extract(
        images, backbone="hsv-histogram", attributes=["color", "kind"], workspace=place
    )
    assert (done.store.stem, done.n_embedded) == ("hsv_histogram-none-128-avg-rgb", 48)
    fitted = featurepipe.fit(head="logistic", backbone="HSV_Histogram", workspace=place, n_jobs=1)
    assert fitted["backbone"].unique().tolist() == ["hsv_histogram"]
    assert fitted.set_index("attribute").loc["color", "selection_accuracy"] == 1
    board = featurepipe.report(workspace=place)
    assert board["weights"].unique().tolist() == ["none"]
    answers = featurepipe.predict([str(images / "red_plain")], workspace=place)
    assert answers.query("attribute == 'color'")["class"].tolist() == ["red"] * 6


def test_no_keras_is_needed():
    script = (
        "import sys\n"
        "from featurepipe.features.extraction.recipe import make_recipe\n"
        "make_recipe('hsv_histogram').open_engine(32)\n"
        "print(sorted({'keras', 'tensorflow', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
