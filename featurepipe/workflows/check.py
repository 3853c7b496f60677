"""check(): an exported model and its golden file -> whether it still answers the same."""

import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurepipe.array_archives import load_arrays
from featurepipe.errors import ExportError, ModelFileError
from featurepipe.files import require_readable
from featurepipe.words import counted, one_line
from featurepipe.workflows.exports.exported_model import (
    CONTINUOUS,
    DECIDED,
    PIXELS,
    TOLERANCE,
    Answer,
    ExportedModel,
    golden_file,
    output_names,
)
from featurepipe.workflows.exports.model_runtimes import open_exported

_MAX_BYTES = 10**9

# Distances are roots of differences of squares of rows of length 1, in float32.
_OF_DISTANCE = 5e-3


@dataclass(frozen=True)
class Checked:
    """A model that answers as it did when it was exported.

    Attributes
    ----------
    model : Path
    n_images : int
        Golden images.
    largest_difference : float
        Of a probability.
    runtime : str
        Name and version of what computed the model.
    """

    model: Path
    n_images: int
    largest_difference: float
    runtime: str

    def in_words(self) -> str:
        """One line for a person."""
        return (
            f"{self.model}: same answers for {counted(self.n_images, 'golden image')} by "
            f"{self.runtime}, largest difference of a probability {self.largest_difference:.1e}."
        )

    def as_dict(self) -> dict[str, object]:
        """The same as JSON values."""
        return {**asdict(self), "model": str(self.model)}


def check(model: Path | str) -> Checked:
    """Run an exported model on the images beside it, and compare the answers.

    Needs no workspace: it may run anywhere, by any version of ONNX Runtime or OpenVINO.

    Parameters
    ----------
    model : Path or str
        The `.onnx` or `.xml` file; ``MODEL.golden.npz`` lies beside it.

    Returns
    -------
    Checked

    Raises
    ------
    ExportError
        If an answer differs: a probability by more than 1e-4, a class, or whether there is one.
    ModelFileError
        If a file is missing or damaged.
    UsageError
        If ONNX Runtime is not installed.
    """
    model = Path(model)
    exported = open_exported(model)
    golden = _load_golden(golden_file(model))
    largest, n_images = 0.0, 0
    while f"{PIXELS}_{n_images}" in golden:
        largest = max(largest, _compare(exported, golden, n_images, model))
        n_images += 1
    if not n_images:
        raise ModelFileError(f"{golden_file(model)} holds no images. Export the run again.")
    return Checked(model, n_images, largest, exported.runtime)


def _compare(
    exported: ExportedModel, golden: dict[str, NDArray[Any]], number: int, model: Path
) -> float:
    """Compare the answers for an image; the largest difference of a probability."""
    pixels = golden[f"{PIXELS}_{number}"]
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ModelFileError(f"{golden_file(model)} is damaged: image {number} is no RGB picture.")
    answer: Answer = exported.answer(pixels[None])
    largest = 0.0
    for attribute in exported.attributes:
        names = output_names(attribute)
        for kind, most in zip(CONTINUOUS, (TOLERANCE, _OF_DISTANCE), strict=True):
            wanted, got = _pair(golden, answer, names[kind], number, model)
            difference = float(np.abs(wanted - got).max())
            if not difference <= most:
                raise _differs(exported, model, number, f"{names[kind]} by {difference:.2e}")
            if kind == "probabilities":
                largest = max(largest, difference)
        # Absent where rounding decides.
        for kind in (kind for kind in DECIDED if f"{names[kind]}_{number}" in golden):
            wanted, got = _pair(golden, answer, names[kind], number, model)
            if (wanted != got).any():
                raise _differs(exported, model, number, names[kind])
    return largest


def _pair(
    golden: dict[str, NDArray[Any]], answer: Answer, name: str, number: int, model: Path
) -> tuple[NDArray[Any], NDArray[Any]]:
    wanted, got = golden.get(f"{name}_{number}"), answer[name][0]
    if wanted is None or wanted.shape != got.shape or wanted.dtype != got.dtype:
        raise ModelFileError(
            f"{golden_file(model)} does not belong to {model.name}: it has no such {name} of image "
            f"{number}. Export the run again."
        )
    return wanted, got


def _differs(exported: ExportedModel, model: Path, number: int, what: str) -> ExportError:
    return ExportError(
        f"{model} answers otherwise than when it was exported: for golden image {number}, {what} "
        f"differs ({exported.runtime}). Export the run again, or use the version that it was "
        "exported with."
    )


def _load_golden(path: Path) -> dict[str, NDArray[Any]]:
    require_readable(path, _MAX_BYTES)
    try:
        return load_arrays(path)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ModelFileError(
            f"{path} cannot be read ({one_line(error)[:200]}). Export the run again."
        ) from error
