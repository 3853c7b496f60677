"""Sidecars: files beside a network that say what its preprocessing is.

Read are `preprocessor_config.json` of Hugging Face's image processors, and `config.json` with the
`pretrained_cfg` of timm; and from a `config.json` of transformers, which tokens are no patches.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from featurepipe.errors import NotReadableError, UsageError
from featurepipe.features.framing import INTERPOLATIONS
from featurepipe.features.model_files.preprocessing import CROP, MAX_SIDE_PX, SQUASH, Preprocessing
from featurepipe.files import read_file
from featurepipe.words import invalid_field

PROCESSOR_FILE = "preprocessor_config.json"
CONFIG_FILE = "config.json"

_MAX_BYTES = 1_000_000
_INSTEAD = "Move it away and give the preprocessing with --mean, --std and --size."
# Where the hub keeps graphs of a model whose sidecars lie one folder up.
_GRAPH_FOLDER = "onnx"
# Pillow's numbers of its filters.
_FILTERS = dict(enumerate(("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")))
_PROCESSOR = re.compile(r"(?P<family>\w+?)(ImageProcessor|FeatureExtractor)\w*")
# To a size of one number, these resize the shorter side; the others squash the image.
_BY_SHORTER_SIDE = {
    "Bit", "CLIP", "ConvNext", "MobileNetV1", "MobileNetV2", "MobileViT", "ViTHybrid",
}  # fmt: skip
_BY_BOTH_SIDES = {"Beit", "DINOv3ViT", "DeiT", "Siglip", "ViT"}
_CLASS_TOKENS = {
    "beit": 1, "clip_vision_model": 1, "deit": 2, "dinov2": 1, "dinov2_with_registers": 1,
    "dinov3_vit": 1, "siglip_vision_model": 0, "vit": 1, "vit_mae": 1,
}  # fmt: skip

_Px = Annotated[int, Field(gt=0, le=MAX_SIDE_PX)]
_Channels = Annotated[tuple[float, ...], Field(min_length=1, max_length=3)]


class _Sides(BaseModel):
    shortest_edge: _Px | None = None
    height: _Px | None = None
    width: _Px | None = None


class _Processor(BaseModel):
    """A `preprocessor_config.json`, as transformers writes it."""

    model_config = ConfigDict(extra="ignore")

    image_processor_type: str | None = None
    feature_extractor_type: str | None = None
    do_resize: bool = True
    size: _Px | _Sides | None = None
    resample: Annotated[int, Field(ge=0, le=5)] | None = None
    do_center_crop: bool = False
    crop_size: _Px | _Sides | None = None
    crop_pct: Annotated[float, Field(gt=0, le=1)] | None = None
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool | None = None
    image_mean: _Channels | None = None
    image_std: _Channels | None = None
    do_flip_channel_order: bool = False
    do_pad: bool = False

    @property
    def family(self) -> str | None:
        """Of which networks it is, such as ``"CLIP"``; None if no type is said."""
        name = self.image_processor_type or self.feature_extractor_type
        if name is None:
            return None
        known = _PROCESSOR.fullmatch(name)
        return known["family"] if known else name


class PretrainedCfg(BaseModel):
    """The `pretrained_cfg` of timm."""

    model_config = ConfigDict(extra="ignore")

    input_size: tuple[int, _Px, _Px]
    interpolation: str
    crop_pct: Annotated[float, Field(gt=0, le=1)]
    crop_mode: str = "center"
    mean: _Channels
    std: _Channels


class _Config(BaseModel):
    """What of a `config.json` says something: of timm, or of transformers."""

    model_config = ConfigDict(extra="ignore")

    pretrained_cfg: PretrainedCfg | None = None
    model_type: str | None = None
    num_register_tokens: Annotated[int, Field(ge=0, le=MAX_SIDE_PX)] = 0


def read_sidecars(model: Path) -> Preprocessing | None:
    """What files beside a network say about its preprocessing.

    Parameters
    ----------
    model : Path
        The file of the network.

    Returns
    -------
    Preprocessing or None
        None if no such file lies beside it.

    Raises
    ------
    UsageError
        If a sidecar cannot be read, or says what cannot be done.
    """
    folder = model.absolute().parent
    folders = [folder, folder.parent] if folder.name == _GRAPH_FOLDER else [folder]
    processor = _read_first(folders, PROCESSOR_FILE, _of_processor)
    config = _read_first(folders, CONFIG_FILE, _of_config)
    if processor is None or config is None:
        return processor or config
    return processor.over(config)


def _read_first(
    folders: list[Path], name: str, read: Callable[[str, Any], Preprocessing | None]
) -> Preprocessing | None:
    for path in (folder / name for folder in folders):
        if not path.is_file():
            continue
        try:
            return read(str(path), json.loads(read_file(path, _MAX_BYTES)))
        except ValidationError as error:
            reason = invalid_field(error)
        except (ValueError, RecursionError, OSError, NotReadableError) as error:
            reason = str(error)
        raise UsageError(
            f"{path} cannot be used ({reason}). Mend it, or move it away and give the "
            "preprocessing with --mean, --std and --size."
        )
    return None


def _of_processor(source: str, values: Any) -> Preprocessing | None:
    if isinstance(values, dict) and "pretrained_cfg" in values:
        return _of_config(source, values)
    said = _Processor.model_validate(_without_nulls(values))
    _require_supported(source, said)
    normalises = said.do_normalize if said.do_normalize is not None else said.image_mean is not None
    if normalises and (said.image_mean is None or said.image_std is None):
        raise _unusable(source, "normalises images, but does not say both image_mean and image_std")
    size_px, shorter_px = _sides(source, said)
    return Preprocessing(
        source,
        size_px=size_px,
        resize=SQUASH if shorter_px is None else CROP,
        # The first processors of ViT were saved without it.
        interpolation="bilinear" if said.resample is None else _FILTERS[said.resample],
        shorter_px=shorter_px,
        scale=said.rescale_factor if said.do_rescale else 1.0,
        mean=said.image_mean if normalises else None,
        std=said.image_std if normalises else None,
        channels="bgr" if said.do_flip_channel_order else "rgb",
    )


def _require_supported(source: str, said: _Processor) -> None:
    """Stop if a processor does what is not supported, or leaves open what it does."""
    family = said.family
    if family not in (None, *_BY_SHORTER_SIDE, *_BY_BOTH_SIDES):
        raise _unusable(source, f"is of the type {family!r}, which is not supported")
    if said.do_pad:
        raise _unusable(source, "pads images, which is not supported")
    if not said.do_resize or said.size is None:
        raise _unusable(source, "does not say to what size images are resized")
    if family is None and isinstance(said.size, int):
        raise _unusable(source, "says neither image_processor_type nor which side has the size")
    if said.resample is None and family != "ViT":
        raise _unusable(source, "does not say how images are resampled")


def _sides(source: str, said: _Processor) -> tuple[int, int | None]:
    """Side of the input, and to what the shorter side is resized before it is cropped."""
    size, family = said.size, said.family
    assert size is not None
    if isinstance(size, _Sides):
        shorter_px = size.shortest_edge
    else:
        shorter_px = size if family in _BY_SHORTER_SIDE else None
    if said.do_center_crop and said.crop_size is not None:
        cropped = _square(source, said.crop_size)
        if shorter_px is None and _square(source, size) != cropped:
            raise _unusable(
                source,
                f"squashes images to {_square(source, size)} px and crops {cropped} px, which is "
                "not supported",
            )
        return cropped, shorter_px
    if shorter_px is None:
        return _square(source, size), None
    if family != "ConvNext" or said.crop_pct is None:
        raise _unusable(
            source, f"resizes the shorter side to {shorter_px} px and does not crop a square"
        )
    # ConvNeXt's processor crops its share of small images, and squashes those of 384 px or more.
    return shorter_px, int(shorter_px / said.crop_pct) if shorter_px < 384 else None


def _unusable(source: str, what: str, instead: str = _INSTEAD) -> UsageError:
    return UsageError(f"{source} {what}. {instead}")


def _without_nulls(values: Any) -> Any:
    """The values of an object that are said: fast processors write null for the others."""
    if not isinstance(values, dict):
        return values
    return {name: _without_nulls(value) for name, value in values.items() if value is not None}


def _square(source: str, size: int | _Sides) -> int:
    if isinstance(size, int):
        return size
    side = size.shortest_edge or size.height
    if side is None or (size.width or side) != side:
        raise _unusable(source, f"says the size {size.height} x {size.width}, which is not square")
    return side


def _of_config(source: str, values: Any) -> Preprocessing | None:
    said = _Config.model_validate(values)
    if said.pretrained_cfg is not None:
        return of_timm(source, said.pretrained_cfg)
    if said.model_type in _CLASS_TOKENS:
        prefix_tokens = _CLASS_TOKENS[said.model_type] + said.num_register_tokens
        return Preprocessing(source, prefix_tokens=prefix_tokens)
    return None


def of_timm(source: str, said: PretrainedCfg, instead: str = _INSTEAD) -> Preprocessing:
    """What a `pretrained_cfg` of timm says about preprocessing.

    Parameters
    ----------
    source : str
        Who says it, for messages.
    said : PretrainedCfg
    instead : str, optional
        What to do if that is not supported, a sentence.

    Raises
    ------
    UsageError
        If it says what cannot be done.
    """
    _, height, width = said.input_size
    if height != width:
        raise _unusable(source, f"says the size {height} x {width}, which is not square", instead)
    if said.interpolation not in INTERPOLATIONS:
        raise _unusable(
            source,
            f"says the interpolation {said.interpolation!r}, which is not supported",
            instead,
        )
    if said.crop_mode != "center" and (said.crop_mode, said.crop_pct) != ("squash", 1.0):
        raise _unusable(
            source,
            f"says the crop mode {said.crop_mode!r} of {said.crop_pct:g}, which is not supported",
            instead,
        )
    is_cropped = said.crop_mode == "center"
    return Preprocessing(
        source,
        size_px=height,
        resize=CROP if is_cropped else SQUASH,
        interpolation=said.interpolation,
        crop_pct=said.crop_pct if is_cropped else None,
        scale=1 / 255,
        mean=said.mean,
        std=said.std,
    )
