"""Networks in `.keras` and `.tflite` files."""

import json
import zipfile

import numpy as np
import pytest

from featurepipe.errors import ModelFileError
from featurepipe.features.engines import open_engine
from featurepipe.features.engines.model_reading import inspect
from featurepipe.features.extraction.file_recipe import FileOptions
from featurepipe.features.extraction.recipe import make_recipe

pytestmark = [
    pytest.mark.keras,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

SIDE = 64
TO_MINUS_1 = {"scale": "1/127.5", "mean": 1, "std": 1}


def noise(n_images=5, side=SIDE):
    return np.random.default_rng(2).integers(0, 256, (n_images, side, side, 3), dtype=np.uint8)


def features_of(backbone, images, **options):
    network = make_recipe(str(backbone), **options).network
    return open_engine(network, batch_size=2, engine="openvino").embed(images)


def features_of_file(path, images, preprocess, **options):
    of_file = FileOptions(preprocess, options.pop("output", None))
    return features_of(path, images, of_file=of_file, **options)


def assert_close(found, expected, tolerance=1e-4):
    assert found.shape == expected.shape
    away = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert away.max() < tolerance


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory):
    """MobileNetV2 with seeded random weights, as Keras saves it; its parts are outputs."""
    import keras

    keras.utils.set_random_seed(3)
    model = keras.applications.MobileNetV2(
        input_shape=(SIDE, SIDE, 3), include_top=False, weights=None
    )
    folder = tmp_path_factory.mktemp("networks")
    model.save(folder / "net.keras")
    model.save_weights(folder / "net.weights.h5")
    return folder


def test_a_keras_file_equals_the_named_backbone_with_its_weights(mobilenet):
    weights = str(mobilenet / "net.weights.h5")
    expected = features_of("mobilenet_v2", noise(), weights=weights, size_px=SIDE)
    found = features_of_file(mobilenet / "net.keras", noise(), TO_MINUS_1)
    assert_close(found, expected)
    # Which tells a network from another.
    assert np.linalg.norm(found[0] - found[1]) > 1e-3 * np.linalg.norm(found[0])


def test_a_layer_of_a_keras_file_equals_that_of_the_named_backbone(mobilenet):
    weights = str(mobilenet / "net.weights.h5")
    layer = "block_12_project_BN"
    expected = features_of("mobilenet_v2", noise(), weights=weights, size_px=SIDE, pooling=layer)
    found = features_of_file(mobilenet / "net.keras", noise(), TO_MINUS_1, output=layer)
    assert_close(found, expected)
    with pytest.raises(ModelFileError) as error:
        features_of_file(mobilenet / "net.keras", noise(), TO_MINUS_1, output="block_99")
    assert "net.keras has no layer 'block_99'. Its last ones are" in str(error.value)
    assert "Choose one of its layers with --output." in str(error.value)


def test_a_tflite_file_equals_the_keras_file(mobilenet):
    import keras
    import tensorflow as tf

    model = keras.saving.load_model(mobilenet / "net.keras", compile=False)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    (mobilenet / "net.tflite").write_bytes(converter.convert())
    expected = features_of_file(mobilenet / "net.keras", noise(), TO_MINUS_1)
    assert_close(features_of_file(mobilenet / "net.tflite", noise(), TO_MINUS_1), expected, 1e-3)


@pytest.mark.shared
def test_real_weights_in_a_keras_file_equal_the_named_backbone(shared, tmp_path):
    import keras

    weights = shared / "weights" / "mobilenet_v2_notop.h5"
    model = keras.applications.MobileNetV2(
        input_shape=(224, 224, 3), include_top=False, weights=str(weights)
    )
    model.save(tmp_path / "net.keras")
    images = noise(3, 224)
    expected = features_of("mobilenet_v2", images, weights=str(weights))
    assert_close(features_of_file(tmp_path / "net.keras", images, TO_MINUS_1), expected)


@pytest.fixture
def small(tmp_path):
    """Save a network of one layer, or of several outputs."""
    import keras

    def save(*layers, side=8):
        inputs = keras.Input((side, side, 3))
        outputs = [layer(inputs) for layer in layers]
        path = tmp_path / "small.keras"
        keras.Model(inputs, outputs[0] if len(outputs) == 1 else outputs).save(path)
        return path

    return save


def test_one_of_several_outputs_is_chosen_by_its_layer(small):
    import keras

    path = small(keras.layers.GlobalAveragePooling2D(name="mean"), keras.layers.Flatten(name="all"))
    with pytest.raises(ModelFileError, match=r"has 2 outputs: mean, all\. Choose one with"):
        features_of_file(path, noise(side=8), "none")
    found = features_of_file(path, noise(side=8), "none", output="mean")
    np.testing.assert_allclose(found, noise(side=8).mean(axis=(1, 2)), rtol=1e-5)


def change_config(path, change):
    """Rewrite the configuration in a `.keras` file."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    change(config["config"]["layers"][1])
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def refused(path):
    with pytest.raises(ModelFileError) as error:
        inspect(path)
    assert str(error.value).startswith("small.keras cannot be read as a network (")
    return str(error.value)


def test_code_in_a_lambda_layer_is_not_run(small, tmp_path):
    import keras

    witness = tmp_path / "run"
    path = small(keras.layers.Lambda(lambda x, file=witness: (file.touch(), x)[1]))
    witness.unlink()
    assert "Lambda belongs to no network" in refused(path)
    assert not witness.exists()


@pytest.mark.parametrize(
    "module, name",
    [
        ("keras.layers", "TextVectorization"),
        ("keras.layers", "StringLookup"),
        ("keras.layers", "TFSMLayer"),
        ("keras.layers", "Lambda"),
        ("keras.layers", "TorchModuleWrapper"),
        ("os", "system"),
        ("builtins", "eval"),
        ("my_layers", "Mine"),
        (None, "function"),
        (None, "__lambda__"),
        ("keras.layers", ["Dense"]),
        (["keras.layers"], "Dense"),
    ],
)
def test_layers_of_other_classes_are_refused(small, tmp_path, module, name):
    import keras

    path = small(keras.layers.Flatten())
    (tmp_path / "my_layers.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')")
    wrong = {"class_name": name, "module": module, "config": {"filepath": "/etc/hostname"}}
    change_config(path, lambda layer: layer.update(wrong))
    refused(path)
    # In a part of a layer as well.
    path = small(keras.layers.Flatten())
    change_config(path, lambda layer: layer["config"].update(dtype=wrong))
    refused(path)
    assert not (tmp_path / "run").exists()


def test_a_custom_class_is_refused(small, tmp_path):
    import keras

    class Mine(keras.layers.Layer):
        def call(self, x):
            return x

    assert "Mine belongs to no network" in refused(small(Mine()))


def test_files_that_keras_would_unpack_are_refused(small):
    import keras

    path = small(keras.layers.Flatten())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("assets/../../run.txt", "x")
    assert "assets/../../run.txt belongs to no network" in refused(path)


def test_a_compressed_file_is_refused(small):
    import keras

    path = small(keras.layers.Flatten())
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert "it is compressed" in refused(path)
