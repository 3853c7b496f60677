"""RunInfo: what a run is, and the only reader and writer of its file `run.json`."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import ErrorDetails

from featurepipe.errors import FeaturepipeError, NotReadableError, RunError
from featurepipe.files import read_file, replacing
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.networks.network_settings import NetworkSettings
from featurepipe.models.studies.learning_curve import CurvePoint, Doubling
from featurepipe.predictions import ALL
from featurepipe.reports.board import Costs
from featurepipe.runs.run_facts import (
    Block,
    Calibration,
    Count,
    Facts,
    FeatureTrial,
    Figure,
    NetworkShape,
    PixelInput,
    PlainName,
    SplitFacts,
    StartingNetwork,
    StoreInput,
    TunedHead,
)
from featurepipe.runs.run_files import RUN_FILE
from featurepipe.words import one_line

MAX_BYTES = 10**8
"""Largest run.json that is read."""

FORMAT: Literal["featurepipe run 5"] = "featurepipe run 5"

_BY_ATTRIBUTE = ("backbone", "view", "weights", "n_train", "selection_accuracy")
_SHOWN_CHARACTERS = 60


class RunInfo(Facts):
    """What heads and networks have in common as runs; the name of a run is that of its folder.

    Attributes
    ----------
    digest : str
        Digest of everything that decides the run: the same fit has the same digest.
    family : str
        Digest that runs share if they only differ in the split of one series.
    attributes : tuple of str
    backbone, view, weights : dict of str to str
        By attribute and for ``"all"``, several joined by ``+``.
    n_train : dict of str to int
        Labelled training images, by attribute and for ``"all"``.
    selection_accuracy : dict of str to float or None
        Accuracy on training rows that were predicted out of fold; None where none is labelled.
    reliability : Calibration
    split : SplitFacts
    settings : HeadSettings or NetworkSettings
    costs : Costs
    versions : dict of str to str
        Of featurepipe, Python and the libraries that computed the run.
    machine : str
    files : dict of str to str
        SHA-256 of each of the run's other files.
    """

    format: Literal["featurepipe run 5"] = FORMAT
    digest: str
    family: str
    attributes: tuple[str, ...]
    backbone: dict[str, str]
    view: dict[str, str]
    weights: dict[str, str]
    n_train: dict[str, Count]
    selection_accuracy: Mapping[str, Figure]
    reliability: Calibration
    split: SplitFacts
    settings: HeadSettings | NetworkSettings
    costs: Costs
    versions: dict[str, str]
    machine: str
    files: dict[PlainName, str] = Field(default_factory=dict)

    @property
    def head(self) -> str:
        """Name of the head, or of the network."""
        settings = self.settings
        return settings.head if isinstance(settings, HeadSettings) else settings.network

    @property
    def solver(self) -> str | None:
        """What fitted the head; None for a network."""
        return self.settings.solver if isinstance(self.settings, HeadSettings) else None

    @property
    def calibrate(self) -> str:
        """How scores became probabilities."""
        return self.settings.calibrate

    @property
    def task(self) -> str:
        """What is answered: ``"per-attribute"``, ``"multi-label"`` or ``"joint"``."""
        return self.settings.task

    @model_validator(mode="after")
    def _require_sound_facts(self) -> Self:
        if not self.attributes or len({*self.attributes, ALL}) <= len(self.attributes):
            raise ValueError(f"has no valid attributes (got {_listed(self.attributes)})")
        for name in _BY_ATTRIBUTE:
            if set(getattr(self, name)) != {*self.attributes, ALL}:
                raise ValueError(f"has {name} of other attributes than {_listed(self.attributes)}")
        for field, figures, most in (
            ("costs", asdict(self.costs), 2**63 - 1),
            ("selection_accuracy", self.selection_accuracy, 1),
        ):
            for name, figure in figures.items():
                if figure is not None and not 0 <= figure <= most:
                    raise ValueError(f"has no valid {field}.{name} (got {figure})")
        for kind in ("uncalibrated", "calibrated"):
            if set(getattr(self.reliability, kind)) != set(self.attributes):
                raise ValueError(
                    f"has reliability.{kind} of other attributes than {_listed(self.attributes)}"
                )
        return self


class HeadRunInfo(RunInfo):
    """What a run of heads is.

    Attributes
    ----------
    features : dict of str to tuple of str
        Names of the blocks that each attribute's head reads.
    blocks : tuple of Block
    stores : tuple of StoreInput
        Every store that was read or tried.
    objective : str or None
        What ``--features auto`` looked for; None if the features were named.
    feature_trials : tuple of FeatureTrial
        Empty if the features were named.
    memory_bytes : int or None
        Bound of the memory for fitting.
    chunk_rows : int or None
        Rows that were read at a time; None: all at once.
    tuned : dict of str to (TunedHead or None), or None
        None if nothing was tuned; of one head: if there was nothing to learn.
    curve : tuple of CurvePoint
    doublings : tuple of Doubling
        Empty without ``--curve``.
    """

    kind: Literal["heads"] = "heads"
    settings: HeadSettings
    features: dict[str, tuple[str, ...]]
    blocks: tuple[Block, ...]
    stores: tuple[StoreInput, ...]
    objective: str | None
    feature_trials: tuple[FeatureTrial, ...]
    memory_bytes: int | None
    chunk_rows: int | None
    tuned: dict[str, TunedHead | None] | None
    curve: tuple[CurvePoint, ...] = ()
    doublings: tuple[Doubling, ...] = ()

    @model_validator(mode="after")
    def _require_blocks(self) -> Self:
        if set(self.features) != set(self.attributes):
            raise ValueError(f"has features of other attributes than {_listed(self.attributes)}")
        if empty := [name for name, names in self.features.items() if not names]:
            raise ValueError(f"has no features of {empty[0]}")
        named = {name for names in self.features.values() for name in names}
        if named != {block.name for block in self.blocks}:
            raise ValueError(f"has features {_listed(sorted(named))}, which are not its blocks")
        return self


class NetworkRunInfo(RunInfo):
    """What a trained network is.

    Attributes
    ----------
    begins_from : StartingNetwork or None
        None for a network that starts from random weights.
    network : NetworkShape
    pixels : PixelInput
    n_validation : int
        Training images that chose the epoch.
    best_epoch : int
        Epoch whose weights were kept, from 1.
    batch_size : int
        Images at once; fewer than the settings ask for if memory was short.
    ended_by : str
        Why the training ended early: ``"interrupt"`` or ``"loss not finite"``; empty if it did
        not.
    """

    kind: Literal["network"] = "network"
    settings: NetworkSettings
    begins_from: StartingNetwork | None
    network: NetworkShape
    pixels: PixelInput
    n_validation: int
    best_epoch: int
    batch_size: int
    ended_by: str

    @model_validator(mode="after")
    def _require_outputs(self) -> Self:
        if len(self.network.outputs) != len(self.attributes):
            raise ValueError(f"has other outputs than one for each of {_listed(self.attributes)}")
        return self


_ANY: TypeAdapter[HeadRunInfo | NetworkRunInfo] = TypeAdapter(
    Annotated[HeadRunInfo | NetworkRunInfo, Field(discriminator="kind")]
)


def write_run_info(folder: Path, info: RunInfo) -> None:
    """Write `run.json` into the folder of a run.

    Parameters
    ----------
    folder : Path
    info : RunInfo
    """
    with replacing(folder / RUN_FILE) as beside:
        beside.write_text(info.model_dump_json(indent=2), encoding="utf-8")


def read_run_info(folder: Path) -> HeadRunInfo | NetworkRunInfo:
    """Read the `run.json` of a run.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    RunError
        If the file is missing, cannot be read, is of another version, or a field is wrong; names
        the first such field.
    """
    path = folder / RUN_FILE
    try:
        text = read_file(path, MAX_BYTES)
        content = json.loads(text)
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else "cannot be read"
        raise RunError(
            f"Run {folder.name!r} is damaged: {path} {reason} ({one_line(error)}). "
            "Delete its folder, and fit or train it again."
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RunError(
            f"Run {folder.name!r} was not written by this version of featurepipe: {path} is not "
            f"of the format {FORMAT!r}. Delete its folder, and fit or train it again."
        )
    try:
        return _ANY.validate_json(text, strict=True)
    except ValidationError as error:
        reason = _reason(error.errors()[0])
    # The settings check themselves.
    except FeaturepipeError as error:
        reason = f"has settings that cannot be used ({str(error).rstrip('.')})"
    again = "Train" if content.get("kind") == "network" else "Fit"
    raise RunError(f"Run {folder.name!r} is damaged: {path} {reason}. {again} it again.")


def read_digest(folder: Path) -> str | None:
    """The digest of a run, even if the rest of its `run.json` is damaged; None if there is none.

    Parameters
    ----------
    folder : Path
    """
    try:
        content = json.loads(read_file(folder / RUN_FILE, MAX_BYTES))
    except (OSError, ValueError, RecursionError, MemoryError, NotReadableError):
        return None
    digest = content.get("digest") if isinstance(content, dict) else None
    return digest if isinstance(digest, str) else None


def _reason(error: ErrorDetails) -> str:
    """What is wrong with which field, in words."""
    # The first step of the path is the kind of run.
    field = ".".join(str(step) for step in error["loc"][1:]) or "kind"
    match error["type"]:
        case "value_error":
            return str(error["ctx"]["error"])
        case "missing" | "union_tag_not_found":
            return f"has no {field}"
        case "extra_forbidden" | "unexpected_keyword_argument":
            return f"has an unknown field {field}"
        case "union_tag_invalid":
            got = repr(error["ctx"]["tag"])
        case _:
            got = repr(error["input"])
    shown = got if len(got) <= _SHOWN_CHARACTERS else f"{got[:_SHOWN_CHARACTERS]}…"
    return f"has no valid {field} (got {shown})"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
