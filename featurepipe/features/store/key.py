"""The key of a store: everything that decides its features."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self, TypeVar

from featurepipe.errors import StoreError

_Key = TypeVar("_Key")


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

    kind: str
    sha256: str | None = None
    backbone: str | None = None
    keras: str | None = None
    seed: int | None = None


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
        ``avg``, ``max`` or the name of a layer.
    view : str
        Name of the view.
    decoding : str
        ``"full"``, or ``"reduced"`` if large JPEGs are decoded at a reduced size.
    resize : str
        How images are resized, such as ``"pillow-bilinear"``.
    preprocessing : str
        `featurepipe.features.backbones.BackboneSpec.preprocessing`.
    precision : str
        ``"float32"``, ``"bfloat16"`` or ``"float16"``; ``"uint8"`` for a pixel cache.
    """

    backbone: str
    weights: WeightsKey
    size_px: int
    pooling: str
    view: str
    decoding: str
    resize: str
    preprocessing: str
    precision: str

    @classmethod
    def from_json(cls, text: str, owner: str) -> Self:
        """Check and convert the text that a store keeps; see `from_dict`."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise _invalid(owner, f"it is no JSON ({error})") from error
        return cls.from_dict(values, owner)

    @classmethod
    def from_dict(cls, values: Any, owner: str) -> Self:
        """Check and convert a key that was saved as JSON.

        Parameters
        ----------
        values : mapping
            As `as_dict` returns it.
        owner : str
            What holds the key, for the error: a path, or the name of a run.

        Raises
        ------
        StoreError
            If a field is missing, unknown or of the wrong type; the error names it.
        """
        values = _checked(cls, values, owner, "")
        weights = WeightsKey(**_checked(WeightsKey, values["weights"], owner, "weights."))
        return cls(**{**values, "weights": weights})

    def as_dict(self) -> dict[str, Any]:
        """The key as JSON values, sorted by name; fields of the weights that are None are left out.

        Returns
        -------
        dict of str to (str or int or dict)
        """
        weights = {name: value for name, value in asdict(self.weights).items() if value is not None}
        return dict(sorted({**asdict(self), "weights": dict(sorted(weights.items()))}.items()))

    def to_json(self) -> str:
        """The text that a store keeps; equal keys have equal texts."""
        return json.dumps(self.as_dict(), sort_keys=True)


def _checked(kind: type[_Key], values: Any, owner: str, prefix: str) -> dict[str, Any]:
    expected = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    if not isinstance(values, Mapping):
        raise _invalid(owner, f"{prefix.rstrip('.') or 'it'} is {values!r}")
    for name in values:
        if name not in expected:
            raise _invalid(owner, f"the field {prefix + str(name)!r} is unknown")
    for name, field in expected.items():
        # Optional fields have a default, nested keys are checked by their own class.
        is_nested = field.type is WeightsKey
        if name not in values and field.default is not None:
            raise _invalid(owner, f"the field {prefix + name!r} is missing")
        if name in values and not is_nested and not isinstance(values[name], field.type):  # type: ignore[arg-type]
            raise _invalid(owner, f"the field {prefix + name!r} is {values[name]!r}")
    return dict(values)


def _invalid(owner: str, what: str) -> StoreError:
    return StoreError(
        f"{owner} holds no valid store key: {what}. It was written by another program or version; "
        "use the version of featurepipe that wrote it, or extract the features again."
    )
