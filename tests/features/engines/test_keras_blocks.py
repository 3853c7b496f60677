import re
from collections import Counter
from functools import cache

import pytest

from featurepipe.errors import UsageError
from featurepipe.features.backbones import BACKBONES, find_backbone
from featurepipe.features.engines.keras_blocks import last_blocks, layer_blocks

NETWORKS = {name: spec for name, spec in BACKBONES.items() if spec.kind == "network"}


def in_each(blocks, layers):
    return [f"{block}_{layer}" for block in blocks for layer in layers]


RESNET = ["1_conv", "1_bn", "2_conv", "2_bn", "3_conv", "3_bn"]
INVERTED = ["expand", "expand_BN", "depthwise", "depthwise_BN", "project", "project_BN"]
SQUEEZED = ["squeeze_excite_conv", "squeeze_excite_conv_1", *map(str.lower, INVERTED)]
EXCITED = ["expand_conv", "expand_bn", "dwconv", "bn", "se_reduce", "se_expand"]
EXCITED += ["project_conv", "project_bn"]
CONVNEXT = ["depthwise_conv", "layernorm", "pointwise_conv_1", "pointwise_conv_2", "layer_scale"]
DENSE = [f"conv4_block{i}" for i in range(1, 25)] + [f"conv5_block{i}" for i in range(1, 17)]

# Blocks with the stem, and the layers with weights of the last two. Layers whose names Keras
# made up are there without their numbers.
EXPECTED = {
    "xception": (
        14,
        [
            *in_each(["block13", "block14"], ["sepconv1", "sepconv2"]),
            *in_each(["block13", "block14"], ["sepconv1_bn", "sepconv2_bn"]),
            "conv2d",
            "batch_normalization",
        ],
    ),
    "vgg16": (5, in_each(["block4", "block5"], ["conv1", "conv2", "conv3"])),
    "resnet50": (17, in_each(["conv5_block2", "conv5_block3"], RESNET)),
    "resnet50_v2": (
        17,
        [
            *in_each(["conv5_block2", "conv5_block3"], ["preact_bn", *RESNET[:-1]]),
            "post_bn",
        ],
    ),
    "inception_v3": (12, ["conv2d", "batch_normalization"] * 18),
    "inception_resnet_v2": (
        44,
        [
            *["conv2d", "batch_normalization"] * 8,
            *["block8_9_conv", "block8_10_conv", "conv_7b", "conv_7b_bn"],
        ],
    ),
    "mobilenet": (
        14,
        in_each(["conv_dw", "conv_pw"], ["12", "12_bn", "13", "13_bn"]),
    ),
    "mobilenet_v2": (18, [*in_each(["block_15", "block_16"], INVERTED), "Conv_1", "Conv_1_bn"]),
    "mobilenet_v3_small": (
        12,
        [
            *in_each(["expanded_conv_9", "expanded_conv_10"], SQUEEZED),
            *["conv_1", "conv_1_bn"],
        ],
    ),
    "densenet121": (
        5,
        [*in_each(DENSE, ["0_bn", "1_conv", "1_bn", "2_conv"]), "pool4_bn", "pool4_conv", "bn"],
    ),
    "efficientnet_b0": (
        8,
        [
            *in_each(["block6a", "block6b", "block6c", "block6d", "block7a"], EXCITED),
            *["top_conv", "top_bn"],
        ],
    ),
    "convnext_tiny": (
        19,
        [
            *in_each(["convnext_tiny_stage_3_block_1", "convnext_tiny_stage_3_block_2"], CONVNEXT),
            "layer_normalization",
        ],
    ),
}
MADE_UP = re.compile(r"(conv2d|batch_normalization|layer_normalization)(_\d+)?$")
BUILT = [*EXPECTED, "nasnet_mobile", "efficientnet_v2_b0"]

each_network = pytest.mark.parametrize("name", BUILT)


@cache
def build(name):
    keras = pytest.importorskip("keras")
    constructor = getattr(keras.applications, find_backbone(name).constructor)
    return constructor(weights=None, include_top=False, input_shape=(96, 96, 3), pooling="avg")


def numberless(layers):
    return Counter(MADE_UP.sub(r"\1", layer.name) for layer in layers if layer.weights)


def test_every_network_says_what_its_blocks_are():
    assert {re.compile(spec.blocks).groups for spec in NETWORKS.values()} == {1}


@pytest.mark.keras
def test_every_module_is_seen_here():
    assert {find_backbone(name).module for name in BUILT} | {"vgg19"} == {
        spec.module for spec in NETWORKS.values()
    }


@pytest.mark.keras
@pytest.mark.parametrize("name", EXPECTED)
def test_last_two_blocks(name):
    n_blocks, names = EXPECTED[name]
    spec = find_backbone(name)
    assert len(layer_blocks(build(name), spec)) == n_blocks
    assert numberless(last_blocks(build(name), spec, 2)) == Counter(names)


@pytest.mark.keras
def test_cells_of_nasnet_are_blocks_although_each_is_linked_to_the_two_before():
    blocks = layer_blocks(build("nasnet_mobile"), find_backbone("nasnet_mobile"))
    cells = ["stem_1", "stem_2", *"0123", "reduce_4", *"5678", "reduce_8", "9", "10", "11", "12"]
    weighted = [[layer.name for layer in block if layer.weights] for block in blocks]
    assert weighted[0] == ["stem_conv1", "stem_bn1"]
    for cell, names in zip(cells, weighted[1:], strict=True):
        assert len(names) in (22, 24, 25)
        assert all(name.endswith(f"_{cell}") for name in names)


@pytest.mark.keras
@each_network
def test_each_layer_is_in_one_block(name):
    model = build(name)
    blocks = layer_blocks(model, find_backbone(name))
    assert sorted(layer.name for block in blocks for layer in block) == sorted(
        layer.name for layer in model.layers
    )
    assert all(any(layer.weights for layer in block) for block in blocks)


@pytest.mark.keras
@each_network
def test_no_layer_needs_one_of_a_later_block(name):
    keras = pytest.importorskip("keras")
    model, before = build(name), set()
    for block in layer_blocks(model, find_backbone(name)):
        before |= {layer.name for layer in block}
        outputs = [layer.output for layer in block]
        assert {layer.name for layer in keras.Model(model.input, outputs).layers} <= before


@pytest.mark.keras
def test_a_shortcut_is_in_the_block_that_it_leads_around():
    blocks = layer_blocks(build("xception"), find_backbone("xception"))
    with_shortcut = [
        number
        for number, block in enumerate(blocks, 1)
        if {"conv2d", "batch_normalization"} <= set(numberless(block))
    ]
    assert with_shortcut == [2, 3, 4, 13]


@pytest.mark.keras
def test_how_many_networks_were_built_before_makes_no_difference():
    spec = find_backbone("inception_v3")
    first, second = build(spec.name), build.__wrapped__(spec.name)
    assert first.layers[1].name != second.layers[1].name
    positions = [
        [[model.layers.index(layer) for layer in block] for block in layer_blocks(model, spec)]
        for model in (first, second)
    ]
    assert positions[0] == positions[1]


@pytest.mark.keras
def test_mixed_precision_makes_no_difference():
    keras = pytest.importorskip("keras")
    spec = find_backbone("mobilenet_v3_small")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = build.__wrapped__(spec.name)
    finally:
        keras.config.set_dtype_policy(before)
    assert [len(block) for block in layer_blocks(mixed, spec)] == [
        len(block) for block in layer_blocks(build(spec.name), spec)
    ]


@pytest.mark.keras
def test_all_blocks_are_all_layers_and_none_is_none():
    model, spec = build("vgg16"), find_backbone("vgg16")
    assert last_blocks(model, spec, 5) == model.layers
    assert last_blocks(model, spec, 0) == []


@pytest.mark.keras
def test_more_blocks_than_there_are():
    with pytest.raises(UsageError) as error:
        last_blocks(build("xception"), find_backbone("xception"), 20)
    assert str(error.value) == (
        "xception has 14 blocks, so that the last 20 cannot be unfrozen. Use at most 14."
    )
