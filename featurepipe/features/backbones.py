"""Backbones: their names, sizes, preprocessing and weights.

Data only, so that they can be listed without NumPy or Keras. A test compares the
rows of the networks with `keras.applications`.
"""

from dataclasses import dataclass
from typing import Literal

from featurepipe.errors import UnknownNameError


@dataclass(frozen=True)
class BackboneSpec:
    """One headless network of `keras.applications` or of a file, or a descriptor.

    A descriptor is computed by featurepipe itself and has no weights: attributes
    on weights and `keras.applications` are empty, as they are for a file.

    Attributes
    ----------
    name : str
        Its name in featurepipe, such as ``"inception_v3"``.
    constructor : str
        Function of `keras.applications` that builds it: ``"InceptionV3"``.
    module : str
        Module of `keras.applications` with its `preprocess_input`.
    size_px, min_size_px : int
        Default and minimum side of its square input.
    n_features : int or None
        Width of its pooled output; None for a file, which shows it when it is loaded.
    preprocessing : str
        What `preprocess_input` does with pixels in [0, 255]: ``"tf"`` (to
        [-1, 1]), ``"caffe"`` (BGR, channel means subtracted), ``"torch"``
        (channel means and deviations of [0, 1]), or ``"none"`` (the network
        does it itself). For a descriptor, the colour space: ``"hsv"``; for a file,
        `featurepipe.features.model_files.normalisation.Normalisation.text`.
    licence : str
        Licence of the ImageNet weights; ``"see source"`` where none is stated.
        For a descriptor, that of featurepipe.
    weights_url, weights_file : str
        URL of the headless ImageNet weights, and their file name in Keras' cache.
    weights_hash : str or None
        MD5 (32 digits) or SHA-256 (64 digits) of that file, if Keras knows it.
    blocks : str
        Regular expression that is matched against the names of layers, from their
        start. Its first group is the block that the layer begins or belongs to:
        ``"block13"`` in ``"block13_sepconv1"``. `featurepipe.features.engines.keras_blocks`
        assigns layers that it does not match.
    kind : str
        ``"network"``, ``"descriptor"`` or ``"file"``.
    """

    name: str
    constructor: str
    module: str
    size_px: int
    min_size_px: int
    n_features: int | None
    preprocessing: str
    licence: str
    weights_url: str
    weights_file: str
    weights_hash: str | None
    blocks: str
    kind: Literal["network", "descriptor", "file"] = "network"


def find_backbone(name: str) -> BackboneSpec:
    """Look up a backbone by its name; case, underscores and hyphens are ignored.

    Parameters
    ----------
    name : str
        Such as ``"inception_v3"`` or ``"InceptionV3"``.

    Raises
    ------
    UnknownNameError
        If there is no such backbone.

    Examples
    --------
    >>> find_backbone("InceptionV3").n_features
    2048
    """
    for spec in BACKBONES.values():
        if bare_name(spec.name) == bare_name(name):
            return spec
    raise UnknownNameError(
        "backbone",
        name,
        BACKBONES,
        "List them all: featurepipe extract --list-backbones",
    )


def bare_name(name: str) -> str:
    """A name without case, underscores and hyphens, for comparison.

    Examples
    --------
    >>> bare_name("Inception_ResNet-V2")
    'inceptionresnetv2'
    """
    return name.lower().replace("_", "").replace("-", "")


@dataclass(frozen=True)
class _Module:
    preprocessing: str
    licence: str
    min_size_px: int
    folder: str


_KERAS = "https://storage.googleapis.com/keras-applications"
_TENSORFLOW = "https://storage.googleapis.com/tensorflow/keras-applications"

_MODULES = {
    "xception": _Module("tf", "MIT", 71, f"{_TENSORFLOW}/xception"),
    "vgg16": _Module("caffe", "CC-BY-4.0", 32, f"{_TENSORFLOW}/vgg16"),
    "vgg19": _Module("caffe", "CC-BY-4.0", 32, f"{_TENSORFLOW}/vgg19"),
    "resnet": _Module("caffe", "MIT", 32, f"{_TENSORFLOW}/resnet"),
    "resnet_v2": _Module("tf", "see source", 32, f"{_TENSORFLOW}/resnet"),
    "inception_v3": _Module("tf", "Apache-2.0", 75, f"{_TENSORFLOW}/inception_v3"),
    "inception_resnet_v2": _Module("tf", "Apache-2.0", 75, f"{_TENSORFLOW}/inception_resnet_v2"),
    "mobilenet": _Module("tf", "Apache-2.0", 32, f"{_TENSORFLOW}/mobilenet"),
    "mobilenet_v2": _Module("tf", "Apache-2.0", 32, f"{_TENSORFLOW}/mobilenet_v2"),
    "mobilenet_v3": _Module("none", "Apache-2.0", 32, f"{_TENSORFLOW}/mobilenet_v3"),
    "densenet": _Module("torch", "BSD-3-Clause", 32, f"{_TENSORFLOW}/densenet"),
    "nasnet": _Module("tf", "Apache-2.0", 32, f"{_TENSORFLOW}/nasnet"),
    "efficientnet": _Module("none", "Apache-2.0", 32, _KERAS),
    "efficientnet_v2": _Module("none", "Apache-2.0", 32, f"{_TENSORFLOW}/efficientnet_v2"),
    "convnext": _Module("none", "MIT", 32, f"{_TENSORFLOW}/convnext"),
}

# What the field calls a block: residual blocks, Inception's modules, NASNet's cells, pairs of
# a depthwise and a pointwise convolution; of DenseNet and EfficientNet, whose layers and
# repeated blocks are small, the stages.
_BLOCKS = {
    "xception": r"(block\d+)_",
    "vgg16": r"(block\d)_",
    "vgg19": r"(block\d)_",
    "resnet": r"(conv\d_block\d+)_",
    "resnet_v2": r"(conv\d_block\d+)_",
    # Only what ends a module is named by it; mixed9_1 is a layer inside mixed10.
    "inception_v3": r"(mixed\d+)$",
    "inception_resnet_v2": r"(mixed_\d[a-z]|block\d+_\d+)",
    "mobilenet": r"conv_(?:pad|dw|pw)_(\d+)",
    "mobilenet_v2": r"(expanded_conv|block_\d+)_",
    "mobilenet_v3": r"(expanded_conv(?:_\d+)?)_",
    # The transition behind a dense block, such as pool2_conv, is placed with it.
    "densenet": r"(conv\d)_block",
    "nasnet": r"(?:adjust|normal|reduction|separable)_.+?_((?:stem_|reduce_)?\d+)$",
    "efficientnet": r"(block\d)[a-z]_",
    "efficientnet_v2": r"(block\d)[a-z]_",
    "convnext": r".+_(stage_\d_block_\d+)_",
}

# Part of the file names of the oldest weights.
_ORDER = "weights_tf_dim_ordering_tf_kernels"

# name, constructor, module, size_px, n_features, file at the source, its hash
_ROWS = f"""
xception             Xception           xception             299  2048  xception_{_ORDER}_notop.h5                           b0042744bf5b25fce3cb969f33bebb97
vgg16                VGG16              vgg16                224  512   vgg16_{_ORDER}_notop.h5                              6d6bbae143d832006294945121d1f1fc
vgg19                VGG19              vgg19                224  512   vgg19_{_ORDER}_notop.h5                              253f8cb515780f3b799900260a226db6
resnet50             ResNet50           resnet               224  2048  resnet50_{_ORDER}_notop.h5                           4d473c1dd8becc155b73f8504c6f6626
resnet101            ResNet101          resnet               224  2048  resnet101_{_ORDER}_notop.h5                          88cf7a10940856eca736dc7b7e228a21
resnet152            ResNet152          resnet               224  2048  resnet152_{_ORDER}_notop.h5                          ee4c566cf9a93f14d82f913c2dc6dd0c
resnet50_v2          ResNet50V2         resnet_v2            224  2048  resnet50v2_{_ORDER}_notop.h5                         fac2f116257151a9d068a22e544a4917
resnet101_v2         ResNet101V2        resnet_v2            224  2048  resnet101v2_{_ORDER}_notop.h5                        c0ed64b8031c3730f411d2eb4eea35b5
resnet152_v2         ResNet152V2        resnet_v2            224  2048  resnet152v2_{_ORDER}_notop.h5                        ed17cf2e0169df9d443503ef94b23b33
inception_v3         InceptionV3        inception_v3         299  2048  inception_v3_{_ORDER}_notop.h5                       bcbd6486424b2319ff4ef7d526e38f63
inception_resnet_v2  InceptionResNetV2  inception_resnet_v2  299  1536  inception_resnet_v2_{_ORDER}_notop.h5                d19885ff4a710c122648d3b5c3b684e4
mobilenet            MobileNet          mobilenet            224  1024  mobilenet_1_0_224_tf_no_top.h5                       -
mobilenet_v2         MobileNetV2        mobilenet_v2         224  1280  mobilenet_v2_{_ORDER}_1.0_224_no_top.h5              -
mobilenet_v3_small   MobileNetV3Small   mobilenet_v3         224  576   weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5 d3e8ec802a04aa4fc771ee12a9a9b836
mobilenet_v3_large   MobileNetV3Large   mobilenet_v3         224  960   weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5 07fb09a5933dd0c8eaafa16978110389
densenet121          DenseNet121        densenet             224  1024  densenet121_{_ORDER}_notop.h5                        30ee3e1110167f948a6b9946edeeb738
densenet169          DenseNet169        densenet             224  1664  densenet169_{_ORDER}_notop.h5                        b8c4d4c20dd625c148057b9ff1c1176b
densenet201          DenseNet201        densenet             224  1920  densenet201_{_ORDER}_notop.h5                        c13680b51ded0fb44dff2d8f86ac8bb1
nasnet_large         NASNetLarge        nasnet               331  4032  NASNet-large-no-top.h5                               d81d89dc07e6e56530c4e77faddd61b5
nasnet_mobile        NASNetMobile       nasnet               224  1056  NASNet-mobile-no-top.h5                              1ed92395b5b598bdda52abe5c0dbfd63
efficientnet_b0      EfficientNetB0     efficientnet         224  1280  efficientnetb0_notop.h5                              50bc09e76180e00e4465e1a485ddc09d
efficientnet_b1      EfficientNetB1     efficientnet         240  1280  efficientnetb1_notop.h5                              74c4e6b3e1f6a1eea24c589628592432
efficientnet_b2      EfficientNetB2     efficientnet         260  1408  efficientnetb2_notop.h5                              111f8e2ac8aa800a7a99e3239f7bfb39
efficientnet_b3      EfficientNetB3     efficientnet         300  1536  efficientnetb3_notop.h5                              af6d107764bb5b1abb91932881670226
efficientnet_b4      EfficientNetB4     efficientnet         380  1792  efficientnetb4_notop.h5                              ebc24e6d6c33eaebbd558eafbeedf1ba
efficientnet_b5      EfficientNetB5     efficientnet         456  2048  efficientnetb5_notop.h5                              38879255a25d3c92d5e44e04ae6cec6f
efficientnet_b6      EfficientNetB6     efficientnet         528  2304  efficientnetb6_notop.h5                              9ecce42647a20130c1f39a5d4cb75743
efficientnet_b7      EfficientNetB7     efficientnet         600  2560  efficientnetb7_notop.h5                              cbcfe4450ddf6f3ad90b1b398090fe4a
efficientnet_v2_b0   EfficientNetV2B0   efficientnet_v2      224  1280  efficientnetv2-b0_notop.h5                           893217f2bb855e2983157299931e43ff
efficientnet_v2_b1   EfficientNetV2B1   efficientnet_v2      240  1280  efficientnetv2-b1_notop.h5                           0e80663031ca32d657f9caa404b6ec37
efficientnet_v2_b2   EfficientNetV2B2   efficientnet_v2      260  1408  efficientnetv2-b2_notop.h5                           1dfe2e7a5d45b6632553a8961ea609eb
efficientnet_v2_b3   EfficientNetV2B3   efficientnet_v2      300  1536  efficientnetv2-b3_notop.h5                           f6abf7b5849ac99a89b50dd3fd532856
efficientnet_v2_s    EfficientNetV2S    efficientnet_v2      384  1280  efficientnetv2-s_notop.h5                            af0682fb74e8c54910f2d4393339c070
efficientnet_v2_m    EfficientNetV2M    efficientnet_v2      480  1280  efficientnetv2-m_notop.h5                            1b8dc055df72dde80d614482840fe342
efficientnet_v2_l    EfficientNetV2L    efficientnet_v2      480  1280  efficientnetv2-l_notop.h5                            b0b66b5c863aef5b46e8608fe1711615
convnext_tiny        ConvNeXtTiny       convnext             224  768   convnext_tiny_notop.h5                               d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1
convnext_small       ConvNeXtSmall      convnext             224  768   convnext_small_notop.h5                              6fc8009faa2f00c1c1dfce59feea9b0745eb260a7dd11bee65c8e20843da6eab
convnext_base        ConvNeXtBase       convnext             224  1024  convnext_base_notop.h5                               40a20c5548a5e9202f69735ecc06c990e6b7c9d2de39f0361e27baeb24cb7c45
convnext_large       ConvNeXtLarge      convnext             224  1536  convnext_large_notop.h5                              96f02b6f0753d4f543261bc9d09bed650f24dd6bc02ddde3066135b63d23a1cd
convnext_xlarge      ConvNeXtXLarge     convnext             224  2048  convnext_xlarge_notop.h5                             de3f8a54174130e0cecdc71583354753d557fcf1f4487331558e2a16ba0cfe05
"""  # noqa: E501

# Files whose name in Keras' cache differs from their name at the source.
_CACHED_AS = {
    "NASNet-mobile-no-top.h5": "nasnet_mobile_no_top.h5",
    "NASNet-large-no-top.h5": "nasnet_large_no_top.h5",
}


def _read_row(row: str) -> BackboneSpec:
    name, constructor, module, size_px, n_features, source_file, weights_hash = row.split()
    its = _MODULES[module]
    return BackboneSpec(
        name=name,
        constructor=constructor,
        module=module,
        size_px=int(size_px),
        min_size_px=its.min_size_px,
        n_features=int(n_features),
        preprocessing=its.preprocessing,
        licence=its.licence,
        weights_url=f"{its.folder}/{source_file}",
        weights_file=_CACHED_AS.get(source_file, source_file),
        weights_hash=None if weights_hash == "-" else weights_hash,
        blocks=_BLOCKS[module],
    )


_DESCRIPTORS = (
    BackboneSpec(
        name="hsv_histogram",
        constructor="",
        module="",
        size_px=128,
        min_size_px=1,
        n_features=576,
        preprocessing="hsv",
        licence="MIT",
        weights_url="",
        weights_file="",
        weights_hash=None,
        blocks="",
        kind="descriptor",
    ),
)

BACKBONES: dict[str, BackboneSpec] = {
    spec.name: spec for spec in (*map(_read_row, _ROWS.strip().splitlines()), *_DESCRIPTORS)
}
