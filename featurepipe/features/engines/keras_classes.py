"""Which classes of Keras a `.keras` file or a preset may build.

Others may read files, fetch addresses or hold code, even in Keras' safe mode.
"""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_CLASSES = {
    None: {"__ellipsis__", "__keras_tensor__", "__tensor__"},
    "keras": {"DTypePolicy", "Sequential"},
    "keras.initializers": {
        "Constant", "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "LecunNormal",
        "LecunUniform", "Ones", "RandomNormal", "RandomUniform", "TruncatedNormal",
        "VarianceScaling", "Zeros",
    },
    "keras.layers": {
        "Activation", "Add", "AlphaDropout", "Average", "AveragePooling2D", "BatchNormalization",
        "CenterCrop", "Concatenate", "Conv1D", "Conv2D", "Conv2DTranspose", "Cropping2D", "Dense",
        "DepthwiseConv2D", "Dot", "Dropout", "ELU", "Embedding", "Flatten", "GaussianDropout",
        "GaussianNoise", "GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalMaxPooling1D",
        "GlobalMaxPooling2D", "GroupNormalization", "InputLayer", "LayerNormalization", "LeakyReLU",
        "MaxPooling2D", "Maximum", "Minimum", "MultiHeadAttention", "Multiply", "Normalization",
        "PReLU", "Permute", "RMSNormalization", "RandomBrightness", "RandomContrast", "RandomCrop",
        "RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom", "ReLU", "RepeatVector",
        "Rescaling", "Reshape", "Resizing", "SeparableConv2D", "Softmax", "SpatialDropout2D",
        "Subtract", "UnitNormalization", "UpSampling2D", "ZeroPadding2D",
    },
    "keras.regularizers": {"L1", "L1L2", "L2"},
    "keras.src.applications.convnext": {"LayerScale"},
    "keras.src.applications.inception_resnet_v2": {"CustomScaleLayer"},
    "keras.src.models.functional": {"Functional"},
    "keras.src.ops.image": {"RGBToGrayscale"},
    "keras.src.ops.nn": {"Relu", "Sigmoid", "Silu", "Softmax"},
    "keras.src.ops.numpy": {
        "Add", "Concatenate", "GetItem", "Mean", "Multiply", "Reshape", "Stack", "Subtract",
        "Transpose", "TrueDivide",
    },
}  # fmt: skip
"""By module, the classes of Keras of which networks and backbones consist."""

_MEMBERS = {"config.json", "metadata.json", "model.weights.h5"}


def require_known_classes(path: Path) -> None:
    """Stop unless a `.keras` file consists of layers of networks and backbones.

    Raises
    ------
    ValueError
        If it does not. What else a damaged file raises depends on the damage.
    """
    with zipfile.ZipFile(path) as archive:
        others = set(archive.namelist()) - _MEMBERS
        if others:
            raise ValueError(f"{min(others)} belongs to no network")
        config = json.loads(archive.read("config.json"))
    require_known(config)


def require_known(config: Any, packages: tuple[str, ...] = ()) -> None:
    """Stop unless a config consists of layers of networks and backbones.

    Parameters
    ----------
    config : object
        JSON values.
    packages : tuple of str
        Beginnings of the names of modules, all of whose classes are allowed, too.

    Raises
    ------
    ValueError
        If it does not.
    """
    for module, name in _classes_in(config):
        if name not in _CLASSES.get(module, ()) and not (module or "").startswith(packages):
            raise ValueError(f"{module}.{name} belongs to no network")


def _classes_in(config: Any) -> Iterator[tuple[str | None, str]]:
    if isinstance(config, dict):
        if "class_name" in config:
            yield config.get("module"), config["class_name"]
        config = list(config.values())
    if isinstance(config, list):
        for part in config:
            yield from _classes_in(part)
