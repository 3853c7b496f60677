import inspect
import subprocess
import sys

import numpy as np
import pytest

from featurepipe.errors import UnknownNameError
from featurepipe.features.backbones import BACKBONES, find_backbone

NETWORKS = {name: spec for name, spec in BACKBONES.items() if spec.kind == "network"}


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("InceptionV3", "inception_v3"),
        ("inceptionv3", "inception_v3"),
        ("Inception-ResNet-V2", "inception_resnet_v2"),
        ("RESNET_50", "resnet50"),
        ("EfficientNetB0", "efficientnet_b0"),
        ("EfficientNetV2S", "efficientnet_v2_s"),
        ("hsv-histogram", "hsv_histogram"),
        ("HSVHistogram", "hsv_histogram"),
    ],
)
def test_names_are_found_as_people_write_them(written, name):
    assert find_backbone(written) is BACKBONES[name]


def test_unknown_backbone():
    with pytest.raises(UnknownNameError) as error:
        find_backbone("resnet5")
    assert str(error.value) == (
        "Unknown backbone 'resnet5'. Did you mean 'resnet50'? "
        "List them all: featurepipe extract --list-backbones"
    )


def test_every_constructor_is_found_by_its_own_name():
    assert all(spec.name == name for name, spec in BACKBONES.items())
    for spec in NETWORKS.values():
        assert find_backbone(spec.constructor) is spec


def test_what_is_no_network_has_nothing_of_keras():
    descriptors = [spec for name, spec in BACKBONES.items() if name not in NETWORKS]
    assert [(spec.name, spec.kind) for spec in descriptors] == [("hsv_histogram", "descriptor")]
    for spec in descriptors:
        assert not (spec.constructor or spec.module or spec.weights_url or spec.weights_file)
        assert not spec.blocks


def test_the_table_needs_no_heavy_import():
    script = (
        "import sys, featurepipe.features.backbones\n"
        "print(sorted({'numpy', 'keras', 'PIL', 'h5py', 'pooch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


class Anything:
    """Stands for layers and tensors: a network is then built in no time.

    The widths of the networks are not seen so; test_keras_engine.py looks at them.
    """

    def __init__(self, calls):
        self._calls = calls

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        self._calls.append(name)
        return self

    def __call__(self, *args, **kwargs):
        return self

    def __getitem__(self, key):
        return self

    def __mul__(self, other):
        return self

    __rmul__ = __add__ = __radd__ = __floordiv__ = __truediv__ = __mul__

    def __gt__(self, other):
        return False

    def __int__(self):
        return 8

    __index__ = __int__


@pytest.fixture
def sketch(monkeypatch):
    """Runs a constructor of `keras.applications` with all layers faked."""
    keras = pytest.importorskip("keras")
    from keras.src import applications
    from keras.src.applications import imagenet_utils
    from keras.src.utils import file_utils

    asked = {}

    def get_file(fname, origin, cache_subdir, file_hash=None):
        asked["file"] = (fname, origin, file_hash)
        return "nowhere.h5"

    def obtain_input_shape(input_shape, default_size, min_size, **_):
        asked["sizes"] = (default_size, min_size)
        return default_size, default_size, 3

    monkeypatch.setattr(file_utils, "get_file", get_file)
    monkeypatch.setattr(imagenet_utils, "correct_pad", lambda *_: 0)
    monkeypatch.setattr(imagenet_utils, "obtain_input_shape", obtain_input_shape)
    calls = []
    for _, module in inspect.getmembers(applications, inspect.ismodule):
        for name, member in vars(module).copy().items():
            if name == "layers" or (inspect.isclass(member) and issubclass(member, keras.Layer)):
                monkeypatch.setattr(module, name, Anything(calls))

    def build(constructor, **options):
        calls.clear()
        asked.clear()
        getattr(keras.applications, constructor)(include_top=False, **options)
        return dict(asked), [name for name in calls if name != "load_weights"]

    return build


@pytest.mark.keras
def test_every_classification_model_is_there_once():
    keras = pytest.importorskip("keras")
    constructors = [
        name
        for name, member in inspect.getmembers(keras.applications, inspect.isfunction)
        if "weights" in inspect.signature(member).parameters
    ]
    assert sorted(spec.constructor for spec in NETWORKS.values()) == sorted(constructors)


@pytest.mark.keras
@pytest.mark.filterwarnings("ignore:`input_shape` is undefined")
@pytest.mark.parametrize("spec", NETWORKS.values(), ids=NETWORKS)
def test_sizes_and_downloads_are_what_keras_says(sketch, spec):
    asked, _ = sketch(spec.constructor, weights="imagenet")
    assert asked["file"] == (spec.weights_file, spec.weights_url, spec.weights_hash)
    # MobileNetV3 has sizes of its own, in its text only.
    assert (spec.size_px, spec.min_size_px) == asked.get("sizes", (224, 32))


@pytest.mark.keras
@pytest.mark.filterwarnings("ignore:`input_shape` is undefined")
@pytest.mark.parametrize("spec", NETWORKS.values(), ids=NETWORKS)
def test_which_graphs_depend_on_the_weights(sketch, spec):
    from featurepipe.features.engines.keras_engine import GRAPH_FOLLOWS_WEIGHTS

    _, graph_of_random = sketch(spec.constructor, weights=None)
    _, graph_of_imagenet = sketch(spec.constructor, weights="imagenet")
    differs = graph_of_random != graph_of_imagenet
    assert differs == (spec.module in GRAPH_FOLLOWS_WEIGHTS)


@pytest.mark.keras
@pytest.mark.parametrize("module", sorted({spec.module for spec in NETWORKS.values()}))
def test_preprocessing_is_what_keras_does(module):
    applications = pytest.importorskip("keras").applications
    mode = next(spec.preprocessing for spec in NETWORKS.values() if spec.module == module)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 3)).astype(np.float32)
    preprocessed = getattr(applications, module).preprocess_input(images.copy())
    expected = images
    if mode != "none":
        expected = applications.imagenet_utils.preprocess_input(images.copy(), mode=mode)
        assert not np.allclose(expected, images)
    np.testing.assert_array_equal(preprocessed, expected)
