"""Presets of KerasHub with random weights, compared with KerasHub itself."""

import json
import shutil

import numpy as np
import pytest

from featurepipe.errors import FeaturepipeError, UsageError
from featurepipe.features.engines import open_engine
from featurepipe.features.extraction.recipe import make_recipe

reason = "KerasHub is not installed: pip install 'featurepipe[keras-hub]'"
keras_hub = pytest.importorskip("keras_hub", reason=reason)

pytestmark = [
    pytest.mark.keras,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

SIDE = 64


def save(folder, backbone, converter, **options):
    options = {"image_size": (SIDE, SIDE)} | options
    converter = getattr(keras_hub.layers, converter)(**options)
    backbone.save_to_preset(str(folder))
    converter.save_to_preset(str(folder))
    return f"keras-hub:{folder}", converter


def resnet(n_channels=64):
    return keras_hub.models.ResNetBackbone(
        input_conv_filters=[n_channels],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[n_channels],
        stackwise_num_blocks=[1],
        stackwise_num_strides=[1],
        block_type="basic_block",
    )


def dinov2():
    return keras_hub.models.DINOV2Backbone(
        patch_size=14,
        num_layers=2,
        hidden_dim=16,
        num_heads=2,
        intermediate_dim=32,
        num_register_tokens=4,
        image_shape=(70, 70, 3),
        position_embedding_shape=(56, 56),
    )


def clip():
    sizes = {"hidden_dim": 16, "num_layers": 2, "num_heads": 2, "intermediate_dim": 32}
    return keras_hub.models.CLIPBackbone(
        keras_hub.models.CLIPVisionEncoder(patch_size=16, image_shape=(SIDE, SIDE, 3), **sizes),
        keras_hub.models.CLIPTextEncoder(20, 16, max_sequence_length=8, **sizes),
        projection_dim=12,
    )


def noise(side=SIDE, n_images=5):
    return np.random.default_rng(2).integers(0, 256, (n_images, side, side, 3), dtype=np.uint8)


def assert_close(found, expected, tolerance=1e-4):
    assert found.shape == expected.shape
    away = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert away.max() < tolerance


def features_of(source, pixels, **options):
    network = make_recipe(source, **options).network
    return open_engine(network, batch_size=2, engine="openvino").embed(pixels)


def refused(source, kind=FeaturepipeError, **options):
    with pytest.raises(kind) as error:
        features_of(source, noise(n_images=1), **options)
    return str(error.value)


def test_a_convolutional_network(tmp_path):
    scales = {"scale": [0.01, 0.02, 0.03], "offset": [0.1, 0.0, -0.3]}
    backbone = resnet()
    source, converter = save(tmp_path / "net", backbone, "ResNetImageConverter", **scales)
    maps = np.asarray(backbone(converter(noise().astype("float32"))))
    assert_close(features_of(source, noise()), maps.mean(axis=(1, 2)))
    assert_close(features_of(source, noise(), pooling="max"), maps.max(axis=(1, 2)))
    # Of any size, since this one takes any; and the weights say which it is.
    converter.image_size = (96, 96)
    maps = np.asarray(backbone(converter(noise(96).astype("float32"))))
    assert_close(features_of(source, noise(96), size_px=96), maps.mean(axis=(1, 2)))
    again = shutil.copytree(tmp_path / "net", tmp_path / "again" / "net")
    assert make_recipe(f"keras-hub:{again}").key == make_recipe(source).key
    other, _ = save(tmp_path / "other" / "net", resnet(), "ResNetImageConverter", **scales)
    assert make_recipe(other).key.weights != make_recipe(source).key.weights
    assert make_recipe(other).network.backbone.licence == "see source"


def test_a_transformer_with_registers(tmp_path):
    backbone = dinov2()
    options = {"image_size": (70, 70), "scale": 1 / 255, "interpolation": "bicubic"}
    source, converter = save(tmp_path / "net", backbone, "DINOV2ImageConverter", **options)
    tokens = np.asarray(backbone({"images": converter(noise(70).astype("float32"))}))
    both = np.concatenate([tokens[:, 0], tokens[:, 5:].mean(axis=1)], axis=1)
    assert_close(features_of(source, noise(70), pooling="cls+mean"), both)
    key = make_recipe(source, pooling="mean").key
    assert (key.prefix_tokens, key.resize) == (5, "pillow-bicubic-crop-70")
    assert "Use --pooling cls or mean or cls+mean" in refused(source)
    # Built for another size, with the same weights.
    folder = source.removeprefix("keras-hub:")
    larger = keras_hub.models.Backbone.from_preset(folder, image_shape=(84, 84, 3))
    tokens = np.asarray(larger({"images": noise(84).astype("float32") / 255}))
    assert_close(features_of(source, noise(84), pooling="cls", size_px=84), tokens[:, 0])


def test_the_image_tower_of_clip(tmp_path):
    backbone = clip()
    options = {"scale": 1 / 255, "crop_to_aspect_ratio": False}
    source, converter = save(tmp_path / "net", backbone, "CLIPImageConverter", **options)
    images = converter(noise().astype("float32"))
    embedding = np.asarray(backbone.get_vision_embeddings(images))
    assert_close(features_of(source, noise()), embedding)
    tokens = np.asarray(backbone.vision_encoder({"images": images}))
    assert_close(features_of(source, noise(), pooling="mean"), tokens[:, 1:].mean(axis=1))
    assert make_recipe(source).key.resize == "pillow-bilinear"
    assert "cannot compute images of 80 x 80 px" in refused(source, size_px=80)


def test_what_cannot_be_done(tmp_path):
    padding = {"crop_to_aspect_ratio": False, "pad_to_aspect_ratio": True}
    source, _ = save(tmp_path / "net", resnet(), "ResNetImageConverter", **padding)
    assert "pads images, which is not supported" in refused(source, UsageError)
    config = tmp_path / "net" / "image_converter.json"
    said = json.loads(config.read_text())
    said["config"]["dtype"] = {"class_name": "Hashing", "module": "keras.layers", "config": {}}
    config.write_text(json.dumps(said))
    assert "keras.layers.Hashing belongs to no network" in refused(source, UsageError)
    message = refused("keras-hub:resnet_50_imagene", UsageError)
    assert "Did you mean 'resnet_50_imagenet'?" in message
