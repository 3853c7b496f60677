"""The key of a store, everything that decides its features, and what made it."""

import json
from dataclasses import asdict, dataclass
from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from featurepipe.errors import StoreError
from featurepipe.words import invalid_field

_STRICT = ConfigDict(extra="forbid", strict=True)
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class WeightsKey:
    """What distinguishes the weights of a backbone from all others.

    Attributes
    ----------
    kind : str
        ``"imagenet"``, ``"file"``, ``"random"``, or ``"none"`` where there are no weights.
    sha256 : str, optional
        SHA-256 of the weights file in hexadecimal; of ImageNet weights and files.
    backbone, keras : str, optional
        Backbone and version of Keras that drew random weights.
    seed : int, optional
        Seed of random weights.
    """

    __pydantic_config__ = _STRICT

    kind: str
    sha256: str | None = None
    backbone: str | None = None
    keras: str | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None


@dataclass(frozen=True)
class StoreKey:
    """Everything that decides the features of a store, except the images.

    Attributes
    ----------
    backbone : str
        Name of the backbone; ``"pixels"`` for a pixel cache.
    weights : WeightsKey
    size_px : int
        Side of the square input.
    pooling : str
        ``avg``, ``max`` or the name of a layer; of tokens ``cls``, ``mean`` or ``cls+mean``.
    view : str
        Name of the view.
    decoding : str
        ``"full"``, or ``"reduced"`` if large JPEGs are decoded at a reduced size.
    resize : str
        How images are resized, such as ``"pillow-bilinear"``.
    preprocessing : str
        `featurepipe.features.backbones.BackboneSpec.preprocessing`.
    precision : str
        ``"float32"``, ``"bfloat16"``, ``"float16"`` or ``"int8"``; ``"uint8"`` for a pixel cache.
    output : str, optional
        Of a network in a file: the output or layer that is read, if it was named.
    prefix_tokens : int, optional
        Of a network in a file: tokens before those of the patches, if known.
    """

    __pydantic_config__ = _STRICT

    backbone: str
    weights: WeightsKey
    size_px: Annotated[int, Field(gt=0, le=2**16)]
    pooling: str
    view: str
    decoding: str
    resize: str
    preprocessing: str
    precision: str
    output: str | None = None
    prefix_tokens: Annotated[int, Field(ge=0, le=2**16)] | None = None

    @property
    def is_of_network(self) -> bool:
        """Whether a network with weights made the features; descriptors and pixels have none."""
        return self.weights.kind != "none"

    @staticmethod
    def from_json(text: str, owner: str) -> "StoreKey":
        """Check and convert the text that a store keeps.

        Parameters
        ----------
        text : str
            As `to_json` returns it.
        owner : str
            What holds the key, for the error: a path, or the name of a run.

        Raises
        ------
        StoreError
            If a field is missing, unknown, of the wrong type or out of range; the error names it.
        """
        try:
            return _adapter().validate_json(text)
        except ValidationError as error:
            what = _reason(error)
        raise StoreError(
            f"{owner} holds no valid store key: {what}. It was written by another program or "
            "version; use the version of featurepipe that wrote it, or extract the features again."
        )

    def as_dict(self) -> dict[str, Any]:
        """The key as JSON values, sorted by name; fields that are None are left out.

        Returns
        -------
        dict of str to (str or int or dict)
        """
        return {**_said(asdict(self)), "weights": _said(asdict(self.weights))}

    def to_json(self) -> str:
        """The text that a store keeps; equal keys have equal texts."""
        return json.dumps(self.as_dict(), sort_keys=True)


@cache
def _adapter() -> TypeAdapter[StoreKey]:
    # It takes longer to make than to use, and fits open stores often.
    return TypeAdapter(StoreKey)


class _MadeBy(BaseModel):
    """What made a store; only features have weights."""

    model_config = ConfigDict(extra="forbid", strict=True)

    engine: str
    machine: str
    versions: dict[str, str]
    weights_label: str = "none"
    weights_source: str = "none"


def made_by_damage(text: str) -> str:
    """What is wrong with the text in which a store says what made it, a clause; empty if nothing.

    Parameters
    ----------
    text : str
    """
    try:
        _MadeBy.model_validate_json(text)
    except ValidationError as error:
        return f"made_by is not valid ({invalid_field(error)})"
    return ""


def _said(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in sorted(fields.items()) if value is not None}


def _reason(error: ValidationError) -> str:
    """What is wrong with the first wrong field, in words."""
    first = error.errors()[0]
    field = ".".join(map(str, first["loc"]))
    match first["type"]:
        case "json_invalid":
            return f"it is no JSON ({first['ctx']['error']})"
        case "missing":
            return f"the field {field!r} is missing"
        case "unexpected_keyword_argument":
            return f"the field {field!r} is unknown"
    got = repr(first["input"])
    shown = got if len(got) <= _SHOWN_CHARACTERS else f"{got[:_SHOWN_CHARACTERS]}…"
    return f"the field {field!r} is {shown}" if field else f"it is {shown}"
