"""ModelFile: a network in a file, with its digest and its inputs."""

import hashlib
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from featurepipe.errors import ModelFileError, NotReadableError
from featurepipe.features.backbones import BACKBONES, bare_name
from featurepipe.features.model_files.preprocessing import Preprocessing
from featurepipe.features.model_files.sidecars import read_sidecars
from featurepipe.features.weights import MAX_WEIGHTS_BYTES, Weights, sha256_of
from featurepipe.files import read_file, replacing, require_readable, user_cache

SUFFIXES = (".onnx", ".xml", ".tflite", ".keras")

_FLOATS = ("bf16", "f16", "f32", "f64")
_WHOLE_NUMBERS = ("u8", "i32")
_FACTS_BYTES = 1_000_000
_SHOWN = 8
_NAME_LENGTH = 60


class Port(BaseModel):
    """An input of a network.

    Attributes
    ----------
    name : str
    shape : tuple of (int or None), or None
        None where an axis may have any length; None as a whole where even their number varies.
    dtype : str
        Such as ``"f32"``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str

    def in_words(self) -> str:
        """Its name, shape and type."""
        if self.shape is None:
            return f"{self.name} (any shape, {self.dtype})"
        shape = " x ".join("?" if side is None else str(side) for side in self.shape)
        return f"{self.name} ({shape}, {self.dtype})"


class ModelFacts(BaseModel):
    """What a network in a file takes, and where its weights are.

    Attributes
    ----------
    inputs : tuple of Port
    beside : tuple of str
        Files in its folder that hold parts of its weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: tuple[Port, ...]
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelFile:
    """A network in a file.

    Attributes
    ----------
    path : Path
    sha256 : str
        Of the file and those that hold parts of its weights, in hexadecimal.
    facts : ModelFacts
    """

    path: Path
    sha256: str
    facts: ModelFacts
    licence = "see source"

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read what a network takes.

        Parameters
        ----------
        path : Path

        Raises
        ------
        ModelFileError
            If the file or one beside it is missing or damaged, or it takes no square images.
        """
        if not path.is_file():
            raise ModelFileError(
                f"There is no network at {str(path)!r}. Give the path of a {', '.join(SUFFIXES)} "
                "file, or the name of a backbone."
            )
        digest = sha256_of(path)
        facts = _facts(path, digest)
        for name in facts.beside:
            require_beside(path, name)
        if facts.beside:
            whole = hashlib.sha256(digest.encode())
            for name in facts.beside:
                whole.update(f"{name}\0{sha256_of(path.parent / name)}\0".encode())
            digest = whole.hexdigest()
        file = cls(path, digest, facts)
        file._require_images()
        return file

    @property
    def name(self) -> str:
        """The stem, cut to 60 characters; with the suffix if a backbone has that name."""
        stem = re.sub(r"[^\w.-]+", "_", self.path.stem)[:_NAME_LENGTH]
        known = {bare_name(name) for name in (*BACKBONES, "pixels")}
        return f"{stem}_{self.path.suffix[1:]}" if bare_name(stem) in known else stem

    @property
    def title(self) -> str:
        """Its name in messages."""
        return self.path.name

    @property
    def weights(self) -> Weights:
        """Its weights."""
        return Weights("file", self.path.name, self.name, self.sha256, path=self.path)

    def said_beside(self) -> Preprocessing | None:
        """What files beside it say about preprocessing; see `sidecars.read_sidecars`."""
        return read_sidecars(self.path)

    @property
    def fixed_px(self) -> int | None:
        """The side of its input, if it takes images of one size only."""
        (port,) = self.facts.inputs
        # One side of three is the channels'.
        return max((side for side in (port.shape or ())[1:] if side not in (None, 3)), default=None)

    @property
    def takes_whole_numbers(self) -> bool:
        """Whether it takes pixels as integers, and so normalises them itself."""
        return self.facts.inputs[0].dtype in _WHOLE_NUMBERS

    def _require_images(self) -> None:
        """Stop unless it has one input that can take square images."""
        inputs = self.facts.inputs
        if len(inputs) == 1 and _may_be_images(inputs[0]):
            return
        raise ModelFileError(
            f"{self.path.name} takes {_listed(inputs)}, but a backbone takes one batch of square "
            "RGB images, as floats or bytes: N x 3 x SIZE x SIZE or N x SIZE x SIZE x 3. Export "
            "only the part that reads images."
        )


def is_model_file(name: str) -> bool:
    """Whether the name of a backbone is the path of a network.

    Examples
    --------
    >>> is_model_file("models/dinov2.onnx"), is_model_file("xception")
    (True, False)
    """
    return Path(name).suffix.lower() in SUFFIXES


def _may_be_images(port: Port) -> bool:
    if port.dtype not in (*_FLOATS, *_WHOLE_NUMBERS):
        return False
    if port.shape is None:
        return True
    if len(port.shape) != 4:
        return False
    _, *sides = port.shape
    by_layout = ((sides[0], sides[1:]), (sides[-1], sides[:-1]))
    return any(
        channels in (3, None) and len({side for side in square if side is not None}) < 2
        for channels, square in by_layout
    )


def _listed(ports: tuple[Port, ...]) -> str:
    shown = [port.in_words() for port in ports[:_SHOWN]]
    more = [f"{len(ports) - _SHOWN} more"] if len(ports) > _SHOWN else []
    return ", ".join(shown + more) or "nothing"


def _facts(path: Path, digest: str) -> ModelFacts:
    """What it takes; found out once, in another process, and kept."""
    from featurepipe.features.engines.conversion_process import run_conversion

    kept = user_cache() / "models" / f"{digest[:32]}{path.suffix.lower()}.json"
    # What cannot be read is found out again.
    with suppress(OSError, ValueError, NotReadableError, ValidationError):
        return ModelFacts.model_validate_json(read_file(kept, _FACTS_BYTES))
    advice = "Export it again; the suffix must be that of its format."
    found = run_conversion("inspect_file", path.name, advice, path=str(path.absolute()))
    facts = ModelFacts.model_validate(found)
    with replacing(kept) as beside:
        beside.write_text(json.dumps(facts.model_dump()))
    return facts


def require_beside(path: Path, name: str) -> None:
    """Stop unless a file that a network refers to lies in its folder.

    Parameters
    ----------
    path : Path
        The file of the network.
    name : str
        Path of the other, relative to the folder.

    Raises
    ------
    ModelFileError
        If it does not.
    NotReadableError
        If it is too large, or no regular file.
    """
    file = path.parent / name
    is_inside = name != "" and not Path(name).is_absolute() and ".." not in Path(name).parts
    if not is_inside or not file.is_file():
        raise ModelFileError(
            f"{path.name} keeps weights in {name!r}, which is not beside it. Put that file into "
            f"{path.parent}."
        )
    require_readable(file, MAX_WEIGHTS_BYTES)
