"""ModelPreset: a network of timm or KerasHub, with its weights and preprocessing."""

import hashlib
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from featurepipe.errors import NotReadableError, UsageError
from featurepipe.features.model_files.preprocessing import Preprocessing
from featurepipe.features.weights import Weights, sha256_of
from featurepipe.files import read_file, replacing, user_cache

LIBRARIES = ("timm", "keras-hub")
_FOLDER = "local-dir:"
_FACTS_BYTES = 1_000_000


class PresetFacts(BaseModel):
    """What a library says about a preset.

    Attributes
    ----------
    sha256 : str
        SHA-256 of the weights in hexadecimal: of their file; of the arrays, if KerasHub made
        them of files in another format than its own.
    library : str
        Name and version of the library that said it, such as ``"timm 1.0.31"``.
    licence : str
        Of the weights; ``"see source"`` where the library states none.
    preprocessing : dict of str to object
        Fields of `Preprocessing`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    library: str
    licence: str
    preprocessing: dict[str, Any]

    @property
    def said(self) -> Preprocessing:
        """The preprocessing."""
        # JSON has no tuples.
        said: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in self.preprocessing.items()
        }
        return Preprocessing(**said)


@dataclass(frozen=True)
class ModelPreset:
    """A network of timm or KerasHub.

    Attributes
    ----------
    source : str
        What finds it again: ``timm:NAME`` or ``keras-hub:PRESET``, with the absolute path of a
        folder.
    facts : PresetFacts
    """

    source: str
    facts: PresetFacts
    fixed_px = None
    takes_whole_numbers = False

    @classmethod
    def open(cls, source: str) -> Self:
        """Find out what the library says; weights are downloaded if needed.

        Parameters
        ----------
        source : str
            ``timm:NAME`` or ``keras-hub:PRESET``.

        Raises
        ------
        UsageError
            If the library is not installed, or has no such preset, or one that cannot be used.
        WeightsError
            If the weights cannot be fetched, or would have to be unpickled.
        """
        source = _absolute(source)
        return cls(source, _facts(source))

    @property
    def name(self) -> str:
        """The preset as it was named; of a folder, the folder's name."""
        library, _, _ = self.source.partition(":")
        folder = folder_of(self.source)
        return self.source if folder is None else f"{library}:{folder.name}"

    @property
    def title(self) -> str:
        """Its name in messages."""
        return self.name

    @property
    def licence(self) -> str:
        """Licence of the weights."""
        return self.facts.licence

    @property
    def weights(self) -> Weights:
        """Its weights."""
        label = self.name.partition(":")[2]
        return Weights("preset", label, self.name, self.facts.sha256, preset=self.source)

    def said_beside(self) -> Preprocessing:
        """What the library says about preprocessing."""
        return self.facts.said


def is_preset(name: str) -> bool:
    """Whether the name of a backbone is that of a preset.

    Examples
    --------
    >>> is_preset("timm:resnet18.a1_in1k"), is_preset("xception")
    (True, False)
    """
    return name.startswith(tuple(f"{library}:" for library in LIBRARIES))


def folder_of(source: str) -> Path | None:
    """The folder that holds a preset; None if it is fetched by its name.

    Parameters
    ----------
    source : str
        ``timm:NAME`` or ``keras-hub:PRESET``.
    """
    library, _, name = source.partition(":")
    if library == "timm":
        return Path(name.removeprefix(_FOLDER)) if name.startswith(_FOLDER) else None
    return Path(name) if Path(name).is_dir() else None


def _absolute(source: str) -> str:
    library, _, name = source.partition(":")
    if not name:
        raise UsageError(f"{source!r} names no network. Expected such as timm:resnet18.a1_in1k.")
    folder = folder_of(source)
    if folder is None:
        return source
    if not folder.is_dir():
        raise UsageError(f"There is no folder {str(folder)!r}. Correct the path.")
    return f"{library}:{_FOLDER if library == 'timm' else ''}{folder.absolute()}"


def _facts(source: str) -> PresetFacts:
    """What the library says; found out once, in another process, and kept.

    Weights of a name are thus the same until the cache is cleared, and need no library then.
    """
    from featurepipe.features.engines.conversion_process import run_conversion

    kept = _facts_file(source)
    # What cannot be read is found out again.
    with suppress(OSError, ValueError, NotReadableError, ValidationError):
        return PresetFacts.model_validate_json(read_file(kept, _FACTS_BYTES))
    advice = "Choose another preset, or export the network to a file."
    facts = PresetFacts.model_validate(
        run_conversion("inspect_preset", source, advice, source=source)
    )
    with replacing(kept) as beside:
        beside.write_text(json.dumps(facts.model_dump()))
    return facts


def _facts_file(source: str) -> Path:
    folder = folder_of(source)
    # A folder may hold something else by now.
    files = sorted(path for path in folder.iterdir() if path.is_file()) if folder else []
    decides = [source, *([path.name, sha256_of(path)] for path in files)]
    digest = hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:16]
    name = re.sub(r"[^\w.+-]", "_", source.partition(":")[2])[-60:]
    return user_cache() / "presets" / f"{name}-{digest}.json"
