"""The file of a split: typed JSON that carries a digest of its content."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from featurepipe.errors import SplitError
from featurepipe.files import read_file, replacing
from featurepipe.splits.split_settings import SplitSettings
from featurepipe.words import invalid_field

Part = Literal["train", "test", "unseen"]
PARTS: tuple[Part, ...] = ("train", "test", "unseen")

MAX_BYTES = 2 * 10**9
"""Largest file of a split that is read: about 20 million images."""

_FORMAT: Literal[2] = 2
_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Group = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class SplitFile(BaseModel):
    """What the file of a split holds; see `featurepipe.splits.Split`.

    Attributes
    ----------
    name : str
    number : int
    settings : SplitSettings
    repeat : int
    findings, left_out : tuple of str
    group_of_image : dict of str to dict of str to int
        By part: the group of each image.
    sha256 : str
        See `digest`; empty if it was never saved.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal[2] = _FORMAT
    name: Annotated[str, Field(pattern=r"^[^/\\]+$")]
    number: _Count
    settings: SplitSettings
    repeat: _Count
    findings: tuple[str, ...]
    left_out: tuple[str, ...]
    group_of_image: dict[Part, dict[str, _Group]]
    sha256: str = ""

    @model_validator(mode="after")
    def _require_each_image_once(self) -> Self:
        counts = Counter(image for images in self.group_of_image.values() for image in images)
        twice = next((image for image, count in counts.items() if count > 1), None)
        if twice is not None:
            raise ValueError(f"image {twice!r} is in several parts")
        for part in ("train", "test"):
            if not self.group_of_image.get(part):
                raise ValueError(f"no image is in the part {part!r}")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of everything else that it holds, in hexadecimal; of images in any order."""
        text = json.dumps(self.model_dump(mode="json", exclude={"sha256"}), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        about = {**self.model_dump(mode="json"), "sha256": self.digest}
        with replacing(path) as beside:
            beside.write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")


def read_split_file(path: Path) -> SplitFile:
    """Read and check the file of a split.

    Parameters
    ----------
    path : Path

    Raises
    ------
    SplitError
        If the file is missing, damaged or something else, or was edited.
    """
    try:
        kept = SplitFile.model_validate_json(read_file(path, MAX_BYTES), strict=True)
    except ValidationError as error:
        reason = invalid_field(error)
    except (OSError, MemoryError) as error:
        is_missing = isinstance(error, FileNotFoundError)
        reason = "it is missing" if is_missing else f"{error or 'memory is short'}"
    # The settings check themselves.
    except SplitError as error:
        reason = str(error).rstrip(".")
    else:
        if kept.sha256 == kept.digest:
            return kept
        raise SplitError(
            f"The split {path} was edited or damaged: it does not match the SHA-256 in it. Remove "
            "it, and run featurepipe fit again; to divide the images yourself, give a column "
            "'split' in the table of --labels."
        )
    raise SplitError(
        f"Cannot read the split {path} ({reason}). Remove it, and run featurepipe fit again."
    )
