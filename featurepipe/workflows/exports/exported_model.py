"""ExportedModel: a run in a file, its inputs and outputs, and what the file says of itself."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from featurepipe.errors import ModelFileError
from featurepipe.words import invalid_field

PIXELS, OTHER_PIXELS, COVERAGE_INPUT = "pixels", "other_pixels", "coverage"
SAME = "same"
TOLERANCE = 1e-4
"""Largest difference of a probability that is rounding."""

CONTINUOUS, DECIDED = ("probabilities", "distance"), ("given", "known")
"""Kinds of outputs in a golden file: those that rounding moves a little, and those it decides."""

Pixels = NDArray[np.uint8]
Answer = dict[str, NDArray[Any]]
"""The outputs of a model by name, for one batch of images."""


class AttributeFacts(BaseModel):
    """What a model says of an attribute.

    Attributes
    ----------
    classes : tuple of str
        In the order of the columns.
    exclusive : bool
        Whether an image has exactly one class.
    thresholds : tuple of float
        Labels of a set are given above them.
    """

    model_config = ConfigDict(extra="forbid")

    classes: tuple[str, ...]
    exclusive: bool
    thresholds: tuple[float, ...]


class ExportedModel(Protocol):
    """A run in a file, as some runtime computes it on the CPU."""

    @property
    def attributes(self) -> Mapping[str, AttributeFacts]:
        """What it says of each attribute."""

    @property
    def compares(self) -> bool:
        """Whether it also tells if two images show the same."""

    @property
    def runtime(self) -> str:
        """Name and version of what computes it."""

    def answer(self, pixels: Pixels, other: Pixels | None = None) -> Answer:
        """The outputs for images of one size.

        Parameters
        ----------
        pixels : ndarray of shape (n_images, height, width, 3), uint8
        other : ndarray of shape (n_images, height, width, 3), uint8, optional
            Images to compare them with; see `compares`.
        """


def output_names(attribute: str) -> dict[str, str]:
    """The names of the outputs of an attribute by what they are.

    Examples
    --------
    >>> output_names("color")["known"]
    'color_known'
    """
    kinds = ("probabilities", "scores", "given", "known", "p_value", "distance")
    return {kind: f"{attribute}_{kind}" for kind in kinds}


def golden_file(model: Path) -> Path:
    """Where the images and answers lie by which a model is checked.

    Examples
    --------
    >>> golden_file(Path("out/model.onnx")).as_posix()
    'out/model.golden.npz'
    """
    return model.with_suffix(".golden.npz")


def attributes_of(name: str, metadata: Mapping[str, str]) -> dict[str, AttributeFacts]:
    """What the metadata of a model say of its attributes.

    Parameters
    ----------
    name : str
        Of the file, for errors.
    metadata : mapping of str to str

    Raises
    ------
    ModelFileError
        If featurepipe did not write them.
    """
    try:
        said = json.loads(metadata["attributes"])
        return {
            attribute: AttributeFacts.model_validate(facts) for attribute, facts in said.items()
        }
    except ValidationError as error:
        reason = f"its metadata are not valid: {invalid_field(error)}"
    except (KeyError, ValueError, AttributeError, RecursionError):
        reason = "its metadata name no attributes"
    raise ModelFileError(f"{name} was not exported by featurepipe ({reason}). Export a run again.")
