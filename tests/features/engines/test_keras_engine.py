import io
import random
import subprocess
import sys
from functools import cache, partial

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import pdist

from engine_pictures import PICTURES, decode, distances, picture
from featurepipe.errors import UnknownNameError, UsageError
from featurepipe.features.backbones import find_backbone
from featurepipe.features.engines import open_engine
from featurepipe.features.engines.openvino_engine import cpu_has_bfloat16
from featurepipe.features.engines.precision import native_precision
from featurepipe.features.engines.probes import distance, probe_images, tolerance
from featurepipe.features.extraction.recipe import make_recipe
from featurepipe.features.extraction.views import find_view
from featurepipe.features.headless import HeadlessNetwork
from featurepipe.features.weights import resolve_weights
from hidden_modules import hiding

keras = pytest.importorskip("keras")


pytestmark = [
    pytest.mark.keras,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:keras"),
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file"),
]

MISSION = ("xception", "inception_v3", "resnet50", "inception_resnet_v2", "mobilenet_v2")
MOBILENET = find_backbone("mobilenet")
SIZE = 96


def reference_features(model, backbone, files):
    """Features by Keras' own means alone."""
    side = (backbone.size_px, backbone.size_px)
    images = [
        keras.utils.load_img(io.BytesIO(data), target_size=side, interpolation="bilinear")
        for data in files
    ]
    pixels = np.stack([keras.utils.img_to_array(image) for image in images])
    module = getattr(keras.applications, backbone.module)
    return keras.ops.convert_to_numpy(model(module.preprocess_input(pixels), training=False))


def random_engine(seed=0, pooling="avg", size=SIZE, **options):
    weights = resolve_weights("random", MOBILENET, seed)
    return open_engine(HeadlessNetwork(MOBILENET, weights, size, pooling), **options)


@pytest.fixture(scope="module")
def small():
    """MobileNet at 96 px with random weights, four images a batch."""
    return random_engine(batch_size=4)


@pytest.fixture(scope="module")
def images():
    return decode([picture(seed, 100 + seed, 120, "PNG") for seed in range(9)], SIZE)


@pytest.fixture(scope="module")
def in_keras(name):
    """Open a network of a backbone in Keras and float32, two images a batch; each network once."""
    return cache(partial(open_engine, batch_size=2, engine="keras", precision="float32"))


@pytest.mark.parametrize("name", MISSION, scope="module")
def test_parity_with_keras(shared, name, in_keras):
    """With real weights, where they are there: features of random ones hardly differ."""
    backbone = find_backbone(name)
    weights = shared / "weights" / f"{name}_notop.h5"
    is_real = weights.is_file()
    network = make_recipe(name, str(weights) if is_real else "random").network
    keras.utils.set_random_seed(0)
    constructor = getattr(keras.applications, backbone.constructor)
    model = constructor(weights=str(weights) if is_real else None, include_top=False, pooling="avg")
    expected = reference_features(model, backbone, PICTURES)
    # The pictures differ by more than what is allowed, or the test says nothing.
    assert distances(expected[1:], expected[:-1]).min() > 1e-3
    in_openvino = open_engine(network, batch_size=2, engine="openvino", precision="float32")
    for engine in (in_keras(network), in_openvino):
        features = engine.embed(decode(PICTURES, backbone.size_px))
        assert features.dtype == np.float32
        assert features.shape == (3, backbone.n_features) == (3, engine.n_features)
        assert engine.input_size == (backbone.size_px, backbone.size_px)
        assert distances(features, expected).max() <= 1e-4
    # Reduced precision is chosen only where the probes keep to their tolerance: these
    # MobileNetV2 weights, batch norm folded, do not bear bfloat16.
    bears_bfloat16 = not (is_real and name == "mobilenet_v2")
    chosen = native_precision("openvino", network)
    assert (chosen == "bfloat16") == (cpu_has_bfloat16() and bears_bfloat16)


@pytest.mark.parametrize("name", MISSION, scope="module")
def test_keras_in_bfloat16_with_random_weights(name, in_keras):
    network = make_recipe(name, "random").network
    pictures = probe_images(network.input_size)
    exact = in_keras(network).embed(pictures)
    reduced = open_engine(network, batch_size=2, engine="keras", precision="bfloat16")
    moved_by = distance(reduced.embed(pictures), exact, "bfloat16")
    # Keras rounds after every layer, OpenVINO after several: random weights of InceptionV3 do
    # not bear the first (real ones do), and `auto` takes float32 for them.
    assert (0 < moved_by <= tolerance("bfloat16")) == (name != "inception_v3")


@pytest.fixture(scope="module")
def photos(shared):
    return [path.read_bytes() for path in sorted((shared / "data" / "photos").glob("*"))]


@pytest.mark.shared
@pytest.mark.parametrize("name", ["mobilenet_v2", "inception_v3", "resnet50"], scope="module")
def test_reduced_precision_on_photos(shared, photos, name, in_keras):
    path = shared / "weights" / f"{name}_notop.h5"
    network = make_recipe(name, str(path)).network
    pixels = decode(photos[::8], network.size_px)

    def embed(engine, precision):
        opened = open_engine(network, batch_size=4, engine=engine, precision=precision)
        return opened.embed(pixels)

    exact = embed("openvino", "float32")
    assert distances(in_keras(network).embed(pixels), exact).max() <= 1e-4

    def moved_by(engine, precision):
        """Median error as a share of the median distance between photographs."""
        errors = np.linalg.norm(embed(engine, precision) - exact, axis=1)
        return np.median(errors) / np.median(pdist(exact))

    for engine in ("openvino", "keras"):
        assert moved_by(engine, "float16") <= 0.03
        # Without it, the engine computes in float32.
        if engine == "keras" or cpu_has_bfloat16():
            # See `test_parity_with_keras`.
            assert (moved_by(engine, "bfloat16") <= 0.03) == (name != "mobilenet_v2")


@pytest.mark.shared
def test_photos_are_recognised(shared, photos):
    model = keras.applications.MobileNetV2(weights=str(shared / "weights" / "mobilenet_v2_top.h5"))
    pixels = decode(photos, 224).astype(np.float32)
    preprocessed = keras.applications.mobilenet_v2.preprocess_input(pixels)
    answers = model.predict(preprocessed, batch_size=50, verbose=0).argmax(axis=1)
    # 0.84, exactly as by `load_img`, since photos are squeezed into a square (0.92 if they
    # are cropped to one); 0.63 with red and blue exchanged, 0.76 with half the contrast.
    assert np.mean(answers == 10 * np.arange(len(photos)) + 5) >= 0.82


def test_batches_that_are_started_at_once_come_back_in_order(small, images):
    futures = [small.start(images[[number]]) for number in range(9)]
    found = np.concatenate([future.result() for future in futures])
    np.testing.assert_allclose(found, small.embed(images), rtol=1e-5, atol=1e-6)
    assert len(np.unique(found, axis=0)) == 9
    assert (small.batch_size, small.n_parallel) == (4, 1)


def test_a_batch_that_fails_says_so_and_harms_no_other(small, images):
    with pytest.raises(Exception, match="conv1"):
        small.start(images[:2, ..., :1]).result()
    assert small.start(images[:2]).result().shape == (2, 1024)


def test_random_weights_are_those_of_their_seed(small, images):
    features = small.embed(images[:4])
    np.testing.assert_array_equal(random_engine(batch_size=4).embed(images[:4]), features)
    other = random_engine(seed=1, batch_size=4).embed(images[:4])
    assert distances(other, features).min() > 0.1


def draw():
    return random.random(), np.random.random()  # noqa: NPY002


def test_other_random_numbers_are_not_disturbed():
    keras.utils.set_random_seed(5)
    expected = draw()
    keras.utils.set_random_seed(5)
    random_engine(size=32)
    assert draw() == expected


def test_who_computes(small):
    backend = keras.backend.backend()
    assert small.name == f"keras-{backend}"
    assert small.versions["keras"] == keras.__version__
    assert set(small.versions) == {"keras", backend}
    assert small.versions[backend][0].isdigit()


@pytest.mark.parametrize("n_images", range(10))
def test_padding_changes_nothing(small, images, n_images):
    together = small.embed(images)
    features = small.embed(images[:n_images])
    assert features.shape == (n_images, 1024)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, together[:n_images], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 9])
def test_the_batch_size_changes_nothing(small, images, batch_size):
    features = random_engine(batch_size=batch_size).embed(images)
    assert distances(features, small.embed(images)).max() <= 1e-5


def test_the_images_are_not_changed(small, images):
    before = images.copy()
    small.embed(images)
    np.testing.assert_array_equal(images, before)


def test_grey_view_shows_what_a_grey_picture_shows(small):
    coloured = Image.open(io.BytesIO(PICTURES[1])).resize((SIZE, SIZE))
    grey = np.asarray(coloured.convert("L").convert("RGB"))[None]
    view = find_view("grey")
    expected = small.embed(grey)
    np.testing.assert_array_equal(small.embed(view.apply(np.asarray(coloured)[None])), expected)
    assert distances(small.embed(np.asarray(coloured)[None]), expected).min() > 1e-3


def test_bfloat16_is_near_float32(small, images):
    reduced = random_engine(batch_size=9, precision="bfloat16").embed(images)
    assert reduced.dtype == np.float32
    assert 1e-4 < distances(reduced, small.embed(images)).max() < 0.05


def test_the_batch_size_that_is_found():
    assert random_engine(size=32).batch_size == 16


def test_maximum_and_layers(small, images):
    average = small.embed(images[:4])
    layer = random_engine(batch_size=4, pooling="conv_pw_13_relu").embed(images[:4])
    np.testing.assert_allclose(layer, average, rtol=1e-5, atol=1e-6)
    maximum = random_engine(batch_size=4, pooling="max").embed(images[:4])
    assert (maximum >= average).all()
    assert (maximum > average).any()
    assert random_engine(pooling="conv_pw_3_relu").n_features == 128


def test_a_layer_that_gives_a_vector():
    options = {"size_px": 32, "pooling": "block1a_se_squeeze"}
    network = make_recipe("efficientnet_b0", "random", **options).network
    assert open_engine(network).n_features == 32


def test_unknown_layer():
    with pytest.raises(UnknownNameError) as error:
        random_engine(size=32, pooling="conv_pw_13_rel")
    assert str(error.value) == (
        "Unknown layer 'conv_pw_13_rel'. Did you mean 'conv_pw_13_relu'? "
        "Or use avg or max; the last layer is 'conv_pw_13_relu'."
    )


def test_too_small():
    with pytest.raises(UsageError) as error:
        make_recipe("xception", "random", size_px=70)
    assert str(error.value) == (
        "Images of 70 px are too small for xception (minimum 71). Use a larger --size; its "
        "default is 299."
    )


def test_convnext_normalises_after_pooling():
    pixels = decode(PICTURES, 32)
    network = make_recipe("convnext_tiny", "random", size_px=32).network
    engine = open_engine(network, batch_size=3)
    keras.utils.set_random_seed(0)
    model = keras.applications.ConvNeXtTiny(weights=None, include_top=False, pooling="avg")
    expected = model.predict(pixels.astype(np.float32), verbose=0)
    assert distances(engine.embed(pixels), expected).max() <= 1e-4


# --- a process of its own ---


def run_python(script, **environment):
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={"PATH": "", "HOME": "/nonexistent", **environment},
    )


OPEN = """
from featurepipe.errors import UsageError
from featurepipe.features.extraction.recipe import make_recipe
recipe = make_recipe("mobilenet", "random", size_px=32, engine="keras")
import sys
assert "keras" not in sys.modules
try:
    engine = recipe.open_engine(1)
except UsageError as error:
    print(error)
else:
    import numpy as np
    print(engine.embed(np.zeros((1, 32, 32, 3), np.uint8)).shape)
"""


def test_nothing_is_said_on_stderr():
    done = run_python(OPEN)
    assert (done.stdout, done.stderr) == ("(1, 1024)\n", "")


def test_a_backend_that_is_not_installed():
    done = run_python(hiding("torch") + OPEN, KERAS_BACKEND="torch")
    assert done.stdout == (
        "Keras cannot be loaded with the backend 'torch' (No module named 'torch'). Install it, "
        "or set KERAS_BACKEND to one that is installed.\n"
    ), done.stderr
