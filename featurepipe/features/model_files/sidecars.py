"""Sidecars: files beside a network that say what its preprocessing is.

Read are `preprocessor_config.json` of Hugging Face's image processors, and `config.json` with the
`pretrained_cfg` of timm; and from a `config.json` of transformers, which tokens are no patches.
"""

import json
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
# Where the hub keeps graphs of a model whose sidecars lie one folder up.
_GRAPH_FOLDER = "onnx"
# Pillow's numbers of its filters.
_FILTERS = dict(enumerate(("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")))
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


class _PretrainedCfg(BaseModel):
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

    pretrained_cfg: _PretrainedCfg | None = None
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
    said = _Processor.model_validate(values)
    if said.do_pad:
        raise UsageError(
            f"{source} pads images, which is not supported. Move it away and give the "
            "preprocessing with --mean, --std and --size."
        )
    normalises = said.do_normalize if said.do_normalize is not None else said.image_mean is not None
    size_px, shorter_px = _sides(source, said)
    return Preprocessing(
        source,
        size_px=size_px,
        resize=SQUASH if shorter_px is None else CROP,
        interpolation=None if said.resample is None else _FILTERS[said.resample],
        shorter_px=shorter_px,
        scale=said.rescale_factor if said.do_rescale else 1.0,
        mean=said.image_mean if normalises else None,
        std=said.image_std if normalises else None,
        channels="bgr" if said.do_flip_channel_order else "rgb",
    )


def _sides(source: str, said: _Processor) -> tuple[int | None, int | None]:
    """Side of the input, and to what the shorter side is resized before it is cropped."""
    size, crop = said.size if said.do_resize else None, said.crop_size
    if said.do_center_crop and crop is not None:
        cropped = _square(source, crop)
        if isinstance(size, _Sides) and size.shortest_edge is None:
            whole = _square(source, size)
            if whole != cropped:
                raise UsageError(
                    f"{source} squashes images to {whole} px and crops {cropped} px, which is not "
                    "supported. Move it away and give the preprocessing with --mean, --std, --size."
                )
            return cropped, None
        return cropped, size.shortest_edge if isinstance(size, _Sides) else size
    if not isinstance(size, _Sides) or size.shortest_edge is None:
        return (None if size is None else _square(source, size)), None
    # ConvNeXt's processor crops its share of small images, and squashes those of 384 px or more.
    side = size.shortest_edge
    if said.crop_pct is not None and side < 384:
        return side, int(side / said.crop_pct)
    return side, None if said.crop_pct is not None else side


def _square(source: str, size: int | _Sides) -> int:
    if isinstance(size, int):
        return size
    side = size.shortest_edge or size.height
    if side is None or (size.width or side) != side:
        raise UsageError(
            f"{source} says the size {size.height} x {size.width}: only square inputs are "
            "supported."
        )
    return side


def _of_config(source: str, values: Any) -> Preprocessing | None:
    said = _Config.model_validate(values)
    if said.pretrained_cfg is not None:
        return _of_timm(source, said.pretrained_cfg)
    if said.model_type in _CLASS_TOKENS:
        prefix_tokens = _CLASS_TOKENS[said.model_type] + said.num_register_tokens
        return Preprocessing(source, prefix_tokens=prefix_tokens)
    return None


def _of_timm(source: str, said: _PretrainedCfg) -> Preprocessing:
    _, height, width = said.input_size
    if height != width:
        raise UsageError(
            f"{source} says the size {height} x {width}: only square inputs are supported."
        )
    if said.interpolation not in INTERPOLATIONS:
        raise UsageError(
            f"{source} says the interpolation {said.interpolation!r}, which is not supported. Add "
            f"--interpolation, one of {', '.join(INTERPOLATIONS)}, and move the file away."
        )
    if said.crop_mode != "center" and (said.crop_mode, said.crop_pct) != ("squash", 1.0):
        raise UsageError(
            f"{source} says the crop mode {said.crop_mode!r} of {said.crop_pct:g}, which is not "
            "supported. Move it away and give the preprocessing with --mean, --std and --size."
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
