"""Sidecars as transformers and timm write them; the values are those of files on the hub."""

import json

import pytest

from featurepipe.errors import UsageError
from featurepipe.features.framing import Framing
from featurepipe.features.model_files.normalisation import Normalisation
from featurepipe.features.model_files.sidecars import CONFIG_FILE, PROCESSOR_FILE, read_sidecars

HALF = [0.5, 0.5, 0.5]
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
NORMALISED = Normalisation(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CENTRED = Normalisation(1 / 255, (0.5,) * 3, (0.5,) * 3)

VIT = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": HALF,
    "image_processor_type": "ViTImageProcessor",
    "image_std": HALF,
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 224, "width": 224},
}
DINOV2 = {
    **IMAGENET,
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_processor_type": "BitImageProcessor",
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 256},
}
CONVNEXT = {
    **IMAGENET,
    "crop_pct": 0.875,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_processor_type": "ConvNextImageProcessor",
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 224},
}
CLIP = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 224,
}
CLIP_NORMALISED = Normalisation(1 / 255, tuple(CLIP["image_mean"]), tuple(CLIP["image_std"]))
OLD_VIT = {
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "ViTFeatureExtractor",
    "image_mean": HALF,
    "image_std": HALF,
    "size": 224,
}
OLD_CONVNEXT = {
    **IMAGENET,
    "crop_pct": 0.875,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "ConvNextFeatureExtractor",
    "resample": 3,
    "size": 224,
}
DINOV3 = {
    **IMAGENET,
    "crop_size": None,
    "data_format": "channels_first",
    "default_to_square": True,
    "do_center_crop": None,
    "do_normalize": True,
    "do_pad": None,
    "do_rescale": True,
    "do_resize": True,
    "image_processor_type": "DINOv3ViTImageProcessorFast",
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 224, "width": 224},
}
MOBILEVIT = {
    "crop_size": {"height": 256, "width": 256},
    "do_center_crop": True,
    "do_flip_channel_order": True,
    "do_rescale": True,
    "do_resize": True,
    "image_processor_type": "MobileViTImageProcessor",
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 288},
}
TIMM = {
    "architecture": "vit_small_patch16_224",
    "num_features": 384,
    "global_pool": "token",
    "pretrained_cfg": {
        "tag": "augreg_in21k",
        "input_size": [3, 224, 224],
        "fixed_input_size": True,
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "crop_mode": "center",
        "mean": HALF,
        "std": HALF,
        "num_classes": 21843,
    },
}


def timm(**changed):
    return TIMM | {"pretrained_cfg": TIMM["pretrained_cfg"] | changed}


@pytest.fixture
def beside(tmp_path):
    """Write sidecars beside a model, and read them."""

    def read(processor=None, config=None, model="model.onnx"):
        for name, values in ((PROCESSOR_FILE, processor), (CONFIG_FILE, config)):
            if values is not None:
                content = values if isinstance(values, bytes) else json.dumps(values).encode()
                (tmp_path / name).write_bytes(content)
        return read_sidecars(tmp_path / model)

    return read


@pytest.mark.parametrize(
    "processor, framing, normalisation",
    [
        (VIT, Framing(224, 224, "bilinear"), CENTRED),
        (OLD_VIT, Framing(224, 224, "bilinear"), CENTRED),
        (DINOV2, Framing(224, 224, "bicubic", 256), NORMALISED),
        (DINOV3, Framing(224, 224, "bilinear"), NORMALISED),
        (CONVNEXT, Framing(224, 224, "bicubic", 256), NORMALISED),
        (CONVNEXT | {"size": {"shortest_edge": 384}}, Framing(384, 384, "bicubic"), NORMALISED),
        (OLD_CONVNEXT, Framing(224, 224, "bicubic", 256), NORMALISED),
        (OLD_CONVNEXT | {"size": 384}, Framing(384, 384, "bicubic"), NORMALISED),
        (CLIP, Framing(224, 224, "bicubic", 224), CLIP_NORMALISED),
        (
            CLIP
            | {
                "image_processor_type": "CLIPImageProcessor",
                "crop_size": {"height": 224, "width": 224},
                "size": {"shortest_edge": 224},
                "do_rescale": True,
                "rescale_factor": 1 / 255,
            },
            Framing(224, 224, "bicubic", 224),
            CLIP_NORMALISED,
        ),
        (
            MOBILEVIT,
            Framing(256, 256, "bilinear", 288),
            Normalisation(1 / 255, channels="bgr"),
        ),
        (VIT | {"do_normalize": False}, Framing(224, 224), Normalisation(1 / 255)),
        (VIT | {"do_rescale": False}, Framing(224, 224), Normalisation(1, (0.5,) * 3, (0.5,) * 3)),
        (VIT | {"resample": 1}, Framing(224, 224, "lanczos"), CENTRED),
        (
            VIT | {"do_center_crop": True, "crop_size": 224},
            Framing(224, 224, "bilinear"),
            CENTRED,
        ),
    ],
)
def test_processors_of_hugging_face(beside, processor, framing, normalisation):
    found = beside(processor)
    assert found.framing() == framing
    assert found.normalisation() == normalisation
    assert found.prefix_tokens is None


@pytest.mark.parametrize(
    "processor, what",
    [
        (VIT | {"do_pad": True}, "pads images"),
        (VIT | {"size": {"height": 224, "width": 200}}, "says the size 224 x 200"),
        (VIT | {"image_processor_type": "LevitImageProcessor"}, "is of the type 'Levit'"),
        (VIT | {"image_processor_type": "made up"}, "is of the type 'made up'"),
        (VIT | {"do_resize": False}, "does not say to what size"),
        (VIT | {"size": None}, "does not say to what size"),
        (VIT | {"image_std": None}, "does not say both image_mean and image_std"),
        (OLD_VIT | {"feature_extractor_type": None}, "says neither image_processor_type"),
        (CLIP | {"resample": None}, "does not say how images are resampled"),
        (CLIP | {"do_center_crop": False}, "does not crop a square"),
        # Which part of an image this DeiT sees is no framing that featurepipe has.
        (
            CLIP | {"feature_extractor_type": "DeiTFeatureExtractor", "size": 256},
            "squashes images to 256 px and crops 224 px",
        ),
    ],
)
def test_processors_that_do_something_else_are_refused(beside, processor, what):
    with pytest.raises(UsageError) as error:
        beside(processor)
    assert what in str(error.value)
    assert PROCESSOR_FILE in str(error.value)
    assert "Move it away and give the preprocessing with --mean, --std and --size." in str(
        error.value
    )


@pytest.mark.parametrize(
    "config, framing",
    [
        (TIMM, Framing(224, 224, "bicubic", 248)),
        (timm(crop_pct=1.0), Framing(224, 224, "bicubic", 224)),
        (timm(crop_pct=1.0, crop_mode="squash"), Framing(224, 224, "bicubic")),
        (timm(interpolation="bilinear"), Framing(224, 224, "bilinear", 248)),
    ],
)
def test_config_of_timm(beside, config, framing):
    found = beside(config=config)
    assert found.framing() == framing
    assert found.normalisation() == CENTRED


@pytest.mark.parametrize(
    "config, what",
    [
        (timm(crop_mode="border"), "says the crop mode 'border' of 0.9"),
        (timm(crop_mode="squash"), "says the crop mode 'squash' of 0.9"),
        (timm(interpolation="random"), "says the interpolation 'random'"),
        (timm(input_size=[3, 224, 288]), "says the size 224 x 288"),
    ],
)
def test_configs_of_timm_that_are_refused(beside, config, what):
    with pytest.raises(UsageError, match=what):
        beside(config=config)


@pytest.mark.parametrize(
    "config, prefix_tokens",
    [
        ({"model_type": "vit"}, 1),
        ({"model_type": "dinov2"}, 1),
        ({"model_type": "dinov2_with_registers", "num_register_tokens": 4}, 5),
        ({"model_type": "dinov3_vit", "num_register_tokens": 4}, 5),
        ({"model_type": "deit"}, 2),
        ({"model_type": "siglip_vision_model"}, 0),
    ],
)
def test_a_config_of_transformers_says_which_tokens_are_no_patches(beside, config, prefix_tokens):
    assert beside(config=config).prefix_tokens == prefix_tokens
    assert not beside(config=config).says_values
    both = beside(processor=DINOV2)
    assert both.prefix_tokens == prefix_tokens
    assert both.framing() == Framing(224, 224, "bicubic", 256)
    assert both.source.endswith(PROCESSOR_FILE)


def test_other_configs_say_nothing(beside):
    assert beside() is None
    assert beside(config={"model_type": "swin"}) is None
    assert beside(config={"architectures": ["X"]}) is None


def test_a_processor_comes_before_timm(beside):
    both = beside(processor=VIT, config=TIMM)
    assert both.framing() == Framing(224, 224, "bilinear")
    assert beside(processor=DINOV2).framing() == Framing(224, 224, "bicubic", 256)


def test_graphs_in_the_hub_s_folder_have_their_sidecars_above(beside, tmp_path):
    (tmp_path / "onnx").mkdir()
    assert beside(processor=DINOV2, model="onnx/model.onnx").framing().shorter_px == 256
    (tmp_path / "onnx" / PROCESSOR_FILE).write_text(json.dumps(VIT))
    assert beside(model="onnx/model.onnx").framing().shorter_px is None
    (tmp_path / "other").mkdir()
    assert beside(model="other/model.onnx") is None


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "Expecting value"),
        (b"[]", "should be a valid dictionary"),
        (b"null", "should be a valid dictionary"),
        (b"\xff\xfe\xfd", ""),
        (b"\x80{}", "utf-8"),
        (b"{", ""),
        (b"[" * 100_000, ""),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, ""),
        (b'{"size": ' + b"9" * 5000 + b"}", "4300"),
        (b" " * 1_000_001, "1"),
        (json.dumps(VIT | {"size": "224"}).encode()[:-1] + b', "size": "big"}', "size"),
        (json.dumps(VIT | {"size": 0}).encode(), "size"),
        (json.dumps(VIT | {"size": 10**9}).encode(), "size"),
        (json.dumps(VIT | {"resample": 6}).encode(), "resample"),
        (json.dumps(VIT | {"image_mean": "0.5"}).encode(), "image_mean"),
        (json.dumps(VIT | {"image_mean": [0.5] * 4}).encode(), "image_mean"),
        (json.dumps(VIT | {"do_resize": "perhaps"}).encode(), "do_resize"),
        (json.dumps(VIT | {"image_processor_type": 7}).encode(), "image_processor_type"),
        (json.dumps(CONVNEXT | {"crop_pct": float("nan")}).encode(), "crop_pct"),
    ],
)
def test_hostile_files(beside, content, reason):
    with pytest.raises(UsageError) as error:
        beside(content)
    assert f"{PROCESSOR_FILE} cannot be used (" in str(error.value)
    assert reason in str(error.value)
    assert "Mend it, or move it away" in str(error.value)
    assert len(str(error.value)) < 600


def test_a_folder_of_that_name_is_no_sidecar(beside, tmp_path):
    (tmp_path / PROCESSOR_FILE).mkdir()
    assert beside() is None


@pytest.mark.parametrize("field", ["rescale_factor", "image_mean", "image_std"])
@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_refused(beside, field, number):
    values = json.dumps(VIT | {field: number if field == "rescale_factor" else [number]})
    found = beside(values.replace(f'"{number}"', number).encode())
    with pytest.raises(UsageError, match="is impossible"):
        found.normalisation()
