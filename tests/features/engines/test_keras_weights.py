"""Weights that the Keras engine reads from files."""

import shutil
import zipfile
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import pytest

from engine_pictures import PICTURES, decode, distances, picture
from featurepipe.errors import WeightsError
from featurepipe.features.backbones import find_backbone
from featurepipe.features.engines import open_engine
from featurepipe.features.engines.keras_weights import load_weights
from featurepipe.features.headless import HeadlessNetwork
from featurepipe.features.weights import Weights, resolve_weights

keras = pytest.importorskip("keras")


pytestmark = [
    pytest.mark.keras,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:keras"),
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file"),
]

MOBILENET = find_backbone("mobilenet")
SIZE = 96


@pytest.fixture(scope="module")
def images():
    return decode([picture(seed, 100 + seed, 120, "PNG") for seed in range(9)], SIZE)


@pytest.fixture(scope="module")
def preprocessed(images):
    return keras.applications.mobilenet.preprocess_input(images.astype(np.float32))


@pytest.fixture(scope="module")
def networks(preprocessed):
    """A headless MobileNet with random weights, and the same with a top."""
    keras.utils.set_random_seed(11)
    headless = keras.applications.MobileNet(
        weights=None, include_top=False, input_shape=(SIZE, SIZE, 3), pooling="avg"
    )
    for layer in headless.layers:
        # Moments of the images at once: the initial ones could be mixed up unseen.
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    headless(preprocessed, training=True)
    whole = keras.applications.MobileNet(weights=None, input_shape=(SIZE, SIZE, 3), classes=7)
    values = headless.get_weights()
    whole.set_weights(values + whole.get_weights()[len(values) :])
    return {"headless": headless, "whole": whole}


@pytest.fixture(scope="module")
def expected_features(networks, preprocessed):
    features = networks["headless"].predict(preprocessed, verbose=0)
    assert features.std(axis=0).min() > 1e-3
    return features


def file_engine(path, backbone=MOBILENET, size=SIZE):
    weights = resolve_weights(str(path), backbone)
    return open_engine(HeadlessNetwork(backbone, weights, size), batch_size=9)


def write(network, path):
    if path.name.endswith(".weights.h5"):
        network.save_weights(path)
    else:
        network.save(path)
    return path


@pytest.fixture(scope="module")
def written(networks, tmp_path_factory):
    """Files of the networks: each is written once, and none is changed."""
    folder = tmp_path_factory.mktemp("written")
    return cache(lambda network, suffix: write(networks[network], folder / (network + suffix)))


@pytest.fixture
def save(tmp_path, written):
    """Save a network, of which the test may change the file."""

    def save(network, name):
        path = tmp_path / name
        return Path(shutil.copyfile(written(network, "".join(path.suffixes)), path))

    return save


@pytest.mark.parametrize("name", ["saved.h5", "saved.weights.h5", "saved.keras"])
@pytest.mark.parametrize("network", ["headless", "whole"])
def test_files_round_trip(save, images, expected_features, network, name):
    path = save(network, name)
    assert distances(file_engine(path).embed(images), expected_features).max() <= 1e-4


def test_layers_of_several_kernels_are_found_by_path(tmp_path):
    """Separable convolutions."""
    network = keras.applications.Xception(weights=None, include_top=False, input_shape=(71, 71, 3))
    before = network.get_weights()
    network.save_weights(tmp_path / "saved.weights.h5")
    network.set_weights([np.zeros_like(values) for values in before])
    load_weights(network, tmp_path / "saved.weights.h5", "xception")
    for found, expected in zip(network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_float16_files_are_cast(save, images, expected_features):
    path = save("headless", "half.weights.h5")
    with h5py.File(path, "r+") as file:
        paths = []
        file.visititems(lambda name, item: paths.append(name) if "vars/" in name else None)
        for name in paths:
            values = file[name][()].astype(np.float16)
            del file[name]
            file[name] = values
    distance = distances(file_engine(path).embed(images), expected_features).max()
    assert 0 < distance < 0.1


def test_the_configuration_of_a_keras_file_is_not_looked_at(
    tmp_path, save, images, expected_features
):
    path = save("headless", "saved.keras")
    bare = tmp_path / "bare.keras"
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(bare, "w") as copy:
        copy.writestr("model.weights.h5", archive.read("model.weights.h5"))
        copy.writestr("config.json", "not even JSON")
    assert distances(file_engine(bare).embed(images), expected_features).max() <= 1e-4


@pytest.mark.shared
def test_a_classifier_on_top_is_left_aside(shared):
    backbone = find_backbone("mobilenet_v2")
    photos = sorted((shared / "data" / "photos").glob("*"))[:4]
    pixels = decode([path.read_bytes() for path in photos], 224)
    features = [
        file_engine(shared / "weights" / f"mobilenet_v2_{top}.h5", backbone, 224).embed(pixels)
        for top in ("notop", "top")
    ]
    np.testing.assert_array_equal(*features)


@pytest.mark.shared
def test_weights_of_another_backbone(shared):
    xception = find_backbone("xception")
    with pytest.raises(WeightsError) as error:
        file_engine(shared / "weights" / "resnet50_notop.h5", xception)
    assert str(error.value) == (
        "resnet50_notop.h5 does not fit xception: layer 'block1_conv1' expects kernel "
        "(3, 3, 3, 32), the file has (7, 7, 3, 64) ('conv1_conv'). Use the weights of "
        "xception, or --backbone resnet50."
    )


@pytest.mark.parametrize("name", ["mine.h5", "mine.weights.h5"])
def test_weights_of_another_backbone_in_any_layout(save, name):
    path = save("headless", name)
    with pytest.raises(WeightsError) as error:
        file_engine(path, find_backbone("resnet50"))
    wanted = "kernel" if name == "mine.h5" else "weight 0"
    held = "'conv1'" if name == "mine.h5" else "'layers/conv2d/vars/0'"
    assert str(error.value) == (
        f"{name} does not fit resnet50: layer 'conv1_conv' expects {wanted} (7, 7, 3, 64), the "
        f"file has (3, 3, 3, 32) ({held}). Use the weights of resnet50, or another --backbone."
    )


@pytest.mark.parametrize("name", ["part.h5", "part.weights.h5"])
def test_fewer_layers_than_needed(tmp_path, networks, name):
    headless = networks["headless"]
    part = keras.Model(headless.input, headless.get_layer("conv_pw_12_bn").output)
    with pytest.raises(WeightsError) as error:
        file_engine(write(part, tmp_path / name))
    assert str(error.value) == (
        f"{name} does not fit mobilenet: layer 'conv_dw_13' expects "
        f"{'kernel' if name == 'part.h5' else 'weight 0'} (3, 3, 1024, 1), the file has "
        "nothing for it. Use the weights of mobilenet, or another --backbone."
    )


@pytest.mark.parametrize("name", ["cut.h5", "cut.weights.h5", "cut.keras"])
@pytest.mark.parametrize("part", [0, 0.5, 0.99])
def test_cut_off_files(save, name, part):
    path = save("headless", name)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(WeightsError, match=f"^{name} cannot be read as weights"):
        file_engine(path)


def test_a_damaged_keras_file(save):
    path = save("headless", "damaged.keras")
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"^damaged\.keras cannot be read as weights"):
        file_engine(path)


def test_files_that_are_no_weights(tmp_path):
    (tmp_path / "text.h5").write_text("<html>404</html>")
    with pytest.raises(WeightsError, match=r"^text\.h5 cannot be read as weights"):
        file_engine(tmp_path / "text.h5")
    with h5py.File(tmp_path / "table.h5", "w") as file:
        file["x"] = np.arange(3)
    with pytest.raises(WeightsError, match=r"^table\.h5 holds no weights in the layout of \.h5"):
        file_engine(tmp_path / "table.h5")
    with h5py.File(tmp_path / "none.h5", "w") as file:
        file.attrs["layer_names"] = ["a"]
        file.create_group("a").attrs["weight_names"] = np.array([], dtype="S1")
    with pytest.raises(WeightsError, match=r"layer 'conv1' expects kernel .* has nothing for it"):
        file_engine(tmp_path / "none.h5")


def test_a_misnamed_file(tmp_path, save):
    path = save("headless", "saved.weights.h5")
    path = path.rename(tmp_path / "saved.h5")
    with pytest.raises(WeightsError, match=r"rename it to saved\.weights\.h5\.$"):
        file_engine(path)


@pytest.mark.parametrize("saved", ["saved.h5", "saved.weights.h5"])
@pytest.mark.parametrize("how", ["external storage", "external link"])
def test_weights_that_lie_in_another_file_are_not_fetched(tmp_path, save, saved, how):
    path = save("headless", saved)
    with h5py.File(tmp_path / "secret", "w") as other:
        other["secret"] = np.zeros((3, 3, 3, 32), np.float32)
    with h5py.File(path, "r+") as file:
        group = file["model_weights/conv1" if saved == "saved.h5" else "layers/conv2d/vars"]
        name = group.attrs["weight_names"][0] if saved == "saved.h5" else "0"
        del group[name]
        if how == "external link":
            group[name] = h5py.ExternalLink(str(tmp_path / "secret"), "secret")
        else:
            elsewhere = [(str(tmp_path / "secret"), 0, h5py.h5f.UNLIMITED)]
            group.create_dataset(name, (3, 3, 3, 32), np.float32, external=elsewhere)
    with pytest.raises(WeightsError, match=r"lies in another file|is a link"):
        file_engine(path)


# --- ImageNet weights, as they would lie in the cache ---


def test_imagenet_weights_are_the_file_that_was_hashed(
    save, images, expected_features, monkeypatch
):
    def get_file(*_, **__):
        raise AssertionError("Keras shall not look for another file")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", get_file)
    path = save("headless", MOBILENET.weights_file)
    weights = Weights("imagenet", "imagenet", MOBILENET.name, "0" * 64, path=path)
    engine = open_engine(HeadlessNetwork(MOBILENET, weights, SIZE), batch_size=9)
    assert distances(engine.embed(images), expected_features).max() <= 1e-4


def test_imagenet_weights_of_efficientnet_have_a_graph_of_their_own(tmp_path, monkeypatch):
    backbone = find_backbone("efficientnet_b0")
    path = tmp_path / "efficientnetb0_notop.h5"
    keras.applications.EfficientNetB0(weights=None, include_top=False).save(path)
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda *_, **__: path)
    pixels = decode(PICTURES, 32)
    model = keras.applications.EfficientNetB0(include_top=False, pooling="avg")
    expected = model.predict(pixels.astype(np.float32), verbose=0)
    weights = Weights("imagenet", "imagenet", backbone.name, "0" * 64, path=path)
    engine = open_engine(HeadlessNetwork(backbone, weights, 32), batch_size=3)
    assert distances(engine.embed(pixels), expected).max() <= 1e-4
