"""Networks in `.keras` and `.tflite` files."""

import json
import zipfile
from pathlib import Path

import numpy as np
import openvino as ov
import pytest

from featurepipe.errors import ModelFileError
from featurepipe.features.engines import open_engine
from featurepipe.features.engines.model_graph import export
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
    """MobileNet with seeded random weights, as Keras saves it; its parts are outputs."""
    import keras

    keras.utils.set_random_seed(3)
    model = keras.applications.MobileNet(
        input_shape=(SIDE, SIDE, 3), include_top=False, weights=None
    )
    folder = tmp_path_factory.mktemp("networks")
    model.save(folder / "net.keras")
    model.save_weights(folder / "net.weights.h5")
    return folder


def test_a_keras_file_equals_the_named_backbone_with_its_weights(mobilenet):
    weights = str(mobilenet / "net.weights.h5")
    expected = features_of("mobilenet", noise(), weights=weights, size_px=SIDE)
    found = features_of_file(mobilenet / "net.keras", noise(), TO_MINUS_1)
    assert_close(found, expected)
    # Which tells a network from another.
    assert np.linalg.norm(found[0] - found[1]) > 1e-3 * np.linalg.norm(found[0])


def test_a_tflite_file_has_the_features_of_its_network(tmp_path):
    import keras
    import tensorflow as tf

    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.GlobalMaxPooling2D()(inputs))
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    (tmp_path / "net.tflite").write_bytes(converter.convert())
    images = noise(side=8)
    found = features_of_file(tmp_path / "net.tflite", images, "none", size_px=8)
    np.testing.assert_allclose(found, images.max(axis=(1, 2)), rtol=1e-6)


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


def test_one_of_several_outputs_is_chosen_by_its_layer(small, tmp_path):
    import keras

    path = small(keras.layers.GlobalAveragePooling2D(name="mean"), keras.layers.Flatten(name="all"))

    def features(output):
        # In this process, where TensorFlow is imported already.
        graph = tmp_path / "graph.xml"
        how = {"size_px": 8, "pooling": "avg", "normalisation": "none", "prefix_tokens": None}
        export(path, graph, output=output, **how)
        return ov.compile_model(graph, "CPU")(noise(side=8))[0]

    with pytest.raises(ModelFileError, match=r"has 2 outputs: mean, all\. Choose one with"):
        features(None)
    with pytest.raises(ModelFileError) as error:
        features("sum")
    assert "small.keras has no layer 'sum'. Its last ones are" in str(error.value)
    mean = noise(side=8).mean(axis=(1, 2))
    np.testing.assert_allclose(features("mean"), mean, rtol=1e-2)


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
    path = small(keras.layers.Lambda(lambda x, file=str(witness): (Path(file).touch(), x)[1]))
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
