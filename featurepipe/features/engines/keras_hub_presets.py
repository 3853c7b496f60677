"""Presets of KerasHub -> OpenVINO models; imported by the processes of `conversion_tasks` only."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from featurepipe.errors import UnknownNameError, UsageError
from featurepipe.features.engines.keras_classes import require_known
from featurepipe.features.engines.model_reading import converted_keras
from featurepipe.features.engines.preset_errors import changed, fetching, not_installed
from featurepipe.features.model_files.preprocessing import CROP, SQUASH
from featurepipe.features.weights import sha256_of
from featurepipe.files import read_file
from featurepipe.words import one_line

_HF, _KAGGLE = "hf://", "kaggle://"
_CONFIGS = ("config.json", "image_converter.json")
_CONFIG_BYTES = 10_000_000
_FILTERS = {
    "nearest": "nearest", "bilinear": "bilinear", "bicubic": "bicubic", "lanczos3": "lanczos",
}  # fmt: skip
# Pillow does so always, as most image processors by which such weights were trained.
_AVERAGED = ", except that pixels are averaged where images shrink"
_OFFLINE = (
    "Fetch it on a machine that can reach it and copy the folder of its cache, or give a folder "
    "that save_to_preset wrote: keras-hub:PATH"
)


def inspect(name: str) -> dict[str, Any]:
    """Fields of `featurepipe.features.model_files.model_preset.PresetFacts`.

    Parameters
    ----------
    name : str
        A preset, ``hf://…``, ``kaggle://…`` or a folder.

    Raises
    ------
    UnknownNameError, UsageError
        If KerasHub is not installed or has no such preset, or one that does what cannot be done.
    WeightsError
        If it cannot be fetched.
    """
    hub = _import_hub(name)
    place = _require_safe(hub, name)
    with fetching(f"keras-hub:{name}", _place(name), _OFFLINE):
        converter = hub.layers.ImageConverter.from_preset(name)
        backbone = hub.models.Backbone.from_preset(name)
    tower = _tower(backbone)
    library = f"KerasHub {hub.__version__}"
    return {
        "sha256": _digest(place, backbone),
        "library": library,
        "licence": "see source",
        "preprocessing": _preprocessing(name, hub, converter, tower)
        | {"source": library + ("" if converter.antialias else _AVERAGED)},
    }


def read(name: str, sha256: str, *, size_px: int, pooling: str) -> ov.Model:
    """A preset as an OpenVINO model of float32 images, NHWC.

    Parameters
    ----------
    name : str
    sha256 : str
        What its weights must have.
    size_px : int
    pooling : str
        ``"avg"``: its output is the embedding of an image, where the backbone has one. Else what
        that is made of, a map or tokens.

    Raises
    ------
    UsageError, WeightsError
        As `inspect` does; or if it cannot have this size, or the weights are others.
    """
    hub = _import_hub(name)
    place = _require_safe(hub, name)
    with fetching(f"keras-hub:{name}", _place(name), _OFFLINE):
        backbone = hub.models.Backbone.from_preset(name)
    if _digest(place, backbone) != sha256:
        raise changed(f"keras-hub:{name}")
    if _own_px(_tower(backbone)) not in (None, size_px):
        backbone = _resized(hub, name, size_px)
    import keras

    images = keras.Input((size_px, size_px, 3), name="images")
    tower = _tower(backbone)
    if pooling == "avg" and hasattr(backbone, "get_vision_embeddings"):
        computed = backbone.get_vision_embeddings(images)
    else:
        inputs = tower.input
        computed = tower(dict.fromkeys(inputs, images) if isinstance(inputs, dict) else images)
    if isinstance(computed, dict | list | tuple):
        raise UsageError(
            f"keras-hub:{name} computes {len(computed)} outputs, not one. Choose another preset."
        )
    return converted_keras(keras.Model(images, computed))


def _import_hub(name: str) -> Any:
    # Also hides what TensorFlow prints.
    from featurepipe.features.engines import quiet_keras  # noqa: F401

    try:
        import keras_hub
    except ImportError as error:
        raise not_installed(f"keras-hub:{name}", "keras-hub", error) from error
    return keras_hub


def _tower(backbone: Any) -> Any:
    """The part that reads images: that of CLIP or SigLIP, else all of it."""
    return getattr(backbone, "vision_encoder", None) or backbone


def _own_px(tower: Any) -> int | None:
    """Side of its input; None if it takes any."""
    inputs = tower.input
    if isinstance(inputs, dict):
        (inputs,) = inputs.values() if len(inputs) == 1 else (None,)
    shape: tuple[int | None, ...] = getattr(inputs, "shape", ())
    if len(shape) != 4:
        raise UsageError(
            f"{type(tower).__name__} reads no images, or more than that. Choose a preset of an "
            "image backbone."
        )
    return shape[1]


def _resized(hub: Any, name: str, size_px: int) -> Any:
    """The backbone for images of another size than its own."""
    reason = "its size is fixed"
    try:
        backbone = hub.models.Backbone.from_preset(name, image_shape=(size_px, size_px, 3))
        if _own_px(_tower(backbone)) == size_px:
            return backbone
    # Whatever the class of the backbone raises.
    except Exception as error:
        reason = one_line(error)[:200]
    raise UsageError(
        f"keras-hub:{name} cannot compute images of {size_px} x {size_px} px ({reason}). Omit "
        "--size."
    )


def _digest(place: str, backbone: Any) -> str:
    """SHA-256 of the file of the weights; where there are others, of all arrays."""
    file = _fetched(place, "model.weights.h5")
    if file is not None:
        return sha256_of(file)
    # Whatever their names and order, which versions may change.
    arrays = (np.ascontiguousarray(weight.numpy()) for weight in backbone.weights)
    parts = sorted(
        hashlib.sha256(f"{array.shape} {array.dtype} ".encode() + array.tobytes()).digest()
        for array in arrays
    )
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _preprocessing(name: str, hub: Any, converter: Any, tower: Any) -> dict[str, Any]:
    plain = hub.layers.ImageConverter
    if converter is None:
        raise _unusable(name, "says no preprocessing")
    if type(converter).call is not plain.call or type(converter)._call_python != plain._call_python:
        raise _unusable(name, f"has a {type(converter).__name__}, which is not supported")
    if converter.pad_to_aspect_ratio:
        raise _unusable(name, "pads images, which is not supported")
    if converter.interpolation not in _FILTERS:
        raise _unusable(name, f"resizes by {converter.interpolation!r}, which is not supported")
    own_px = _own_px(tower)
    height, width = converter.image_size or (own_px, own_px)
    if height != width:
        raise _unusable(name, f"takes images of {height} x {width} px, which are not square")
    scale = np.broadcast_to(1.0 if converter.scale is None else converter.scale, 3)
    offset = np.broadcast_to(0.0 if converter.offset is None else converter.offset, 3)
    said = {
        "resize": CROP if converter.crop_to_aspect_ratio else SQUASH,
        "interpolation": _FILTERS[converter.interpolation],
        # pixel * scale + offset, as (pixel - mean) / std
        "scale": 1.0,
        # No negative zero: texts of equal values are equal.
        "mean": (0.0 - offset / scale).tolist(),
        "std": (1 / scale).tolist(),
    }
    said |= {} if height is None else {"size_px": height}
    n_prefix = _n_prefix_tokens(tower, own_px)
    return said | ({} if n_prefix is None else {"prefix_tokens": n_prefix})


def _n_prefix_tokens(tower: Any, own_px: int | None) -> int | None:
    """How many tokens are not those of patches; None if that is unknown, or there are none."""
    patch_px: Any = getattr(tower, "patch_size", None)
    patch_height = patch_px[0] if isinstance(patch_px, tuple | list) else patch_px
    sides: tuple[int | None, ...] = getattr(tower.output, "shape", ())
    if len(sides) != 3 or sides[1] is None or own_px is None or patch_height is None:
        return None
    return sides[1] - (own_px // patch_height) ** 2


def _require_safe(hub: Any, name: str) -> str:
    """Where a preset is; stop if it has others than layers of Keras and KerasHub."""
    presets = hub.layers.ImageConverter.presets
    if name not in presets and not name.startswith((_HF, _KAGGLE)) and not Path(name).is_dir():
        hint = "A folder, hf://OWNER/NAME and kaggle://… are possible, too."
        raise UnknownNameError("preset of KerasHub", name, presets, hint)
    place = presets[name]["kaggle_handle"] if name in presets else name
    for file in _CONFIGS:
        with fetching(f"keras-hub:{name}", _place(name), _OFFLINE):
            path = _fetched(place, file)
        if path is not None:
            config = json.loads(read_file(path, _CONFIG_BYTES))
            try:
                require_known(config, ("keras_hub.",))
            except ValueError as error:
                raise _unusable(name, f"cannot be used ({error})") from error
    return place


def _fetched(place: str, file: str) -> Path | None:
    """A file of a preset; None if it has no such file."""
    if place.startswith(_HF):
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            return Path(hf_hub_download(place.removeprefix(_HF), file))
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            return None
    if place.startswith(_KAGGLE):
        import kagglehub
        from kagglehub.exceptions import KaggleApiHTTPError

        try:
            return Path(kagglehub.model_download(place.removeprefix(_KAGGLE), file))
        except KaggleApiHTTPError as error:
            if "404" in str(error):
                return None
            raise
    path = Path(place, file)
    return path if path.is_file() else None


def _unusable(name: str, what: str) -> UsageError:
    return UsageError(f"The preset {name} of KerasHub {what}. Choose another.")


def _place(name: str) -> str:
    if name.startswith(_HF):
        from huggingface_hub.constants import ENDPOINT

        return ENDPOINT
    return "https://www.kaggle.com"
