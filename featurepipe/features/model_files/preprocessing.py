"""What is said about the preprocessing of a network from a file, and what follows from it.

Preprocessing is never guessed: features of another one look like features, and are worse.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from featurepipe.errors import UnknownNameError, UsageError
from featurepipe.features.framing import INTERPOLATIONS, Framing
from featurepipe.features.model_files.normalisation import NOTHING, Normalisation

SQUASH, CROP = "squash", "shorter-side+crop"
RESIZINGS = (SQUASH, CROP)
CHANNELS = ("rgb", "bgr")
OPTIONS = ("scale", "mean", "std", "channels", "resize", "interpolation", "crop_pct")
"""Names of the values that a person can give."""

MAX_SIDE_PX = 2**16
COMMAND = "the command"

_BYTE = 1 / 255


@dataclass(frozen=True)
class Preprocessing:
    """What is said about the preprocessing of a network; None where nothing is said.

    Attributes
    ----------
    source : str
        Who says it, for messages.
    size_px : int or None
        Side of the square input.
    resize : {"squash", "shorter-side+crop"} or None
    interpolation : str or None
        One of `featurepipe.features.framing.INTERPOLATIONS`.
    crop_pct : float or None
        Share of the resized shorter side that the crop keeps, in (0, 1].
    shorter_px : int or None
        The same in pixels: to how many the shorter side is resized.
    scale : float or None
        Pixels in [0, 255] are multiplied by it.
    mean, std : tuple of float or None
        Subtracted, and divided by, after scaling.
    channels : {"rgb", "bgr"} or None
    prefix_tokens : int or None
        Class and register tokens before those of the patches.
    """

    source: str
    size_px: int | None = None
    resize: str | None = None
    interpolation: str | None = None
    crop_pct: float | None = None
    shorter_px: int | None = None
    scale: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    channels: str | None = None
    prefix_tokens: int | None = None

    @property
    def says_values(self) -> bool:
        """Whether anything is said about what happens to the values of pixels."""
        return any(value is not None for value in (self.scale, self.mean, self.std))

    def over(self, other: Self) -> Self:
        """What this says and, where it says nothing, what the other says."""
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        if said["crop_pct"] is not None or said["resize"] == SQUASH:
            # Both say how much is cropped.
            other = replace(other, shorter_px=None, crop_pct=None)
        return replace(other, **{name: value for name, value in said.items() if value is not None})

    def framing(self) -> Framing:
        """How images become the input.

        Raises
        ------
        UsageError
            If the size is not said.
        """
        if self.size_px is None:
            raise UsageError("The size of the input is not known. Add --size PX.")
        interpolation = self.interpolation or "bilinear"
        shorter_px = None
        if self.resize == CROP:
            shorter_px = self.shorter_px or math.floor(self.size_px / (self.crop_pct or 1.0))
            if shorter_px < self.size_px:
                raise UsageError(
                    f"A crop of {self.size_px} px does not fit into {shorter_px} px. Use a smaller "
                    "--size."
                )
        elif self.crop_pct is not None:
            raise UsageError(f"--crop-pct requires --resize {CROP}. Add it, or omit --crop-pct.")
        return Framing(self.size_px, self.size_px, interpolation, shorter_px)

    def normalisation(self) -> Normalisation:
        """What happens to the values of pixels.

        Raises
        ------
        UsageError
            If the scale is not said and may be 1 or 1/255, or a value is impossible.
        """
        mean, std = _channels("mean", self.mean, 0.0), _channels("std", self.std, 1.0)
        scale = self.scale
        if scale is None:
            if max(map(abs, mean)) > 1 or max(std) > 1:
                raise UsageError(
                    f"The mean {_listed(mean)} and std {_listed(std)} may be those of pixels up to "
                    "255 or up to 1. Add --scale 1 or --scale 1/255."
                )
            scale = _BYTE
        channels = self.channels or "rgb"
        found = Normalisation(scale, mean, std, channels)  # type: ignore[arg-type]
        if not found.is_possible():
            raise UsageError(
                f"The normalisation {found.text} is impossible: every number must be finite, and "
                "scale and std above 0."
            )
        return found


def given_preprocessing(
    given: str | Mapping[str, Any] | None, size_px: int | None, prefix_tokens: int | None
) -> Preprocessing:
    """Check what a person said about the preprocessing.

    Parameters
    ----------
    given : str or mapping or None
        ``"none"``: the network takes pixels as they are; or values by the names of `OPTIONS`. A
        scale may be text, such as ``"1/255"``, and so may means, such as ``"0.5,0.5,0.5"``.
    size_px, prefix_tokens : int or None
        See `Preprocessing`.

    Raises
    ------
    UsageError
        If a value is impossible.
    UnknownNameError
        If there is no such value.
    """
    said: dict[str, Any] = {}
    if isinstance(given, str):
        if given != NOTHING:
            raise UnknownNameError("--preprocess", given, [NOTHING])
        said = {"scale": 1.0, "mean": (0.0,), "std": (1.0,), "channels": CHANNELS[0]}
    elif given is not None:
        said = {name: value for name, value in given.items() if value is not None}
    for name in said:
        if name not in OPTIONS:
            raise UnknownNameError("preprocessing option", name, OPTIONS)
    for name, known in (("resize", RESIZINGS), ("channels", CHANNELS)):
        if said.get(name, known[0]) not in known:
            raise UnknownNameError(name, said[name], known)
    if said.get("interpolation", "bilinear") not in INTERPOLATIONS:
        raise UnknownNameError("interpolation", said["interpolation"], INTERPOLATIONS)
    for name in ("mean", "std"):
        if name in said:
            said[name] = _numbers(name, said[name])
    for name in ("scale", "crop_pct"):
        if name in said:
            said[name] = _one_number(name, said[name])
    if not 0 < said.get("crop_pct", 1) <= 1:
        raise UsageError(f"--crop-pct is {said['crop_pct']}. Set a share above 0 and up to 1.")
    for name, number, least in (("size", size_px, 1), ("prefix-tokens", prefix_tokens, 0)):
        if number is not None and not least <= number <= MAX_SIDE_PX:
            raise UsageError(f"--{name} is {number}. Set {least} to {MAX_SIDE_PX}.")
    return Preprocessing(COMMAND, size_px=size_px, prefix_tokens=prefix_tokens, **said)


def _numbers(name: str, value: Any) -> tuple[float, ...]:
    parts = re.split(r"[,\s]+", value.strip()) if isinstance(value, str) else value
    parts = parts if isinstance(parts, list | tuple) else [parts]
    try:
        return tuple(_number(part) for part in parts)
    except (ValueError, TypeError, ZeroDivisionError):
        example = {"scale": "1/255", "crop_pct": "0.875"}.get(name, "0.485,0.456,0.406")
        raise UsageError(
            f"--{_flag(name)} {value!r} is no number. Expected such as {example}."
        ) from None


def _one_number(name: str, value: Any) -> float:
    numbers = _numbers(name, value)
    if len(numbers) != 1:
        raise UsageError(f"--{_flag(name)} is {value!r}. Give one number.")
    return numbers[0]


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _number(value: Any) -> float:
    """A number, or a fraction in a text."""
    if not isinstance(value, str):
        return float(value)
    above, slash, below = value.partition("/")
    return float(above) / float(below) if slash else float(above)


def _channels(name: str, values: tuple[float, ...] | None, default: float) -> Any:
    values = (default,) if values is None else values
    if len(values) not in (1, 3):
        raise UsageError(
            f"--{name} has {len(values)} numbers, {_listed(values)}. Give one for all channels, or "
            "one for each of three."
        )
    return values * 3 if len(values) == 1 else values


def _listed(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)
