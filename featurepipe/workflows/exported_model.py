"""ExportedModel: a run in an ONNX file, as ONNX Runtime computes it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from featurepipe.errors import ModelFileError, UsageError
from featurepipe.features.weights import MAX_WEIGHTS_BYTES
from featurepipe.files import require_readable
from featurepipe.words import invalid_field, one_line

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


class ExportedModel:
    """A run in an ONNX file, as ONNX Runtime computes it on the CPU.

    Parameters
    ----------
    model : bytes or Path

    Attributes
    ----------
    attributes : dict of str to AttributeFacts
    compares : bool
        Whether it also tells if two images show the same.

    Raises
    ------
    UsageError
        If ONNX Runtime is not installed.
    ModelFileError
        If the file is damaged, or was not exported by featurepipe.
    """

    def __init__(self, model: bytes | Path) -> None:
        ort = _onnxruntime()
        name = model.name if isinstance(model, Path) else "The model"
        options = ort.SessionOptions()
        # Only errors: it warns of constants that it removes.
        options.log_severity_level = 3
        if isinstance(model, Path):
            if not model.exists():
                raise ModelFileError(f"There is no file {model}. Export a run: featurepipe export")
            require_readable(model, MAX_WEIGHTS_BYTES)
        try:
            self._session = ort.InferenceSession(
                model if isinstance(model, bytes) else str(model),
                options,
                providers=["CPUExecutionProvider"],
            )
        # The type of the error depends on what is wrong with the file.
        except Exception as error:
            raise ModelFileError(
                f"{name} cannot be read as an ONNX file ({one_line(error)[:200]}). Export it again."
            ) from error
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.attributes = _attributes(name, metadata)
        inputs = [one.name for one in self._session.get_overridable_initializers()]
        self.compares = OTHER_PIXELS in inputs
        self._outputs = [one.name for one in self._session.get_outputs()]

    def answer(self, pixels: Pixels, other: Pixels | None = None) -> Answer:
        """The outputs for images of one size.

        Parameters
        ----------
        pixels : ndarray of shape (n_images, height, width, 3), uint8
        other : ndarray of shape (n_images, height, width, 3), uint8, optional
            Images to compare them with; see `compares`.
        """
        given = {PIXELS: pixels} | ({} if other is None else {OTHER_PIXELS: other})
        return dict(zip(self._outputs, self._session.run(self._outputs, given), strict=True))


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


def onnxruntime_version() -> str:
    """Version of ONNX Runtime.

    Raises
    ------
    UsageError
        If it is not installed.
    """
    return str(_onnxruntime().__version__)


def _attributes(name: str, metadata: Mapping[str, str]) -> dict[str, AttributeFacts]:
    try:
        said = json.loads(metadata["attributes"])
        return {
            attribute: AttributeFacts.model_validate(facts) for attribute, facts in said.items()
        }
    except ValidationError as error:
        reason = f"its metadata are not valid: {invalid_field(error)}"
    except (KeyError, ValueError, AttributeError):
        reason = "its metadata name no attributes"
    raise ModelFileError(f"{name} was not exported by featurepipe ({reason}). Export a run again.")


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UsageError(
            "ONNX Runtime, which runs ONNX files, is not installed. Install the extra onnx: "
            "pip install '.[onnx]'"
        ) from error
    return onnxruntime
