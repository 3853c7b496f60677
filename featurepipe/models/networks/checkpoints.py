"""Checkpoints: the state of a training after an epoch, from which a killed one resumes."""

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from featurepipe.array_archives import MAX_BYTES, load_arrays
from featurepipe.errors import RunError
from featurepipe.files import replacing, require_readable
from featurepipe.provenance import differences
from featurepipe.words import one_line

_STATE = "training.npz"

Arrays = list[NDArray[Any]]

_IN_EVERY_ROW = {"epoch": int, "stage": str, "stage_number": int, "attributes_loss": float}


class _About(BaseModel):
    """What a checkpoint holds beside its arrays."""

    model_config = ConfigDict(extra="forbid", strict=True)

    plan: dict[str, Any]
    history: list[dict[str, Any]]
    batch_size: int = Field(ge=1, le=2**20)
    peak_bytes: int = Field(ge=0, le=2**60)
    best: str
    n_arrays: dict[Literal["weights", "optimizer", "best"], int]


@dataclass
class Checkpoint:
    """The state of a training.

    Attributes
    ----------
    history : list of dict
        One row for each epoch; ``stage_number`` and ``attributes_loss``, the validation loss
        without pairs, decide what comes next.
    scores : list of ndarray of shape (n_validation, n_scores), float32
        Scores of the validation images after each epoch.
    weights, optimizer : list of ndarray
        Variables of network and optimiser after the last epoch.
    best_weights : list of ndarray
        Variables of the network after the epoch with the lowest validation loss so far.
    batch_size : int
        Current batch size; it is halved when memory does not suffice.
    peak_bytes : int
        Peak memory of the process.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    scores: list[NDArray[np.float32]] = field(default_factory=list)
    weights: Arrays = field(default_factory=list)
    optimizer: Arrays = field(default_factory=list)
    best_weights: Arrays = field(default_factory=list)
    batch_size: int = 0
    peak_bytes: int = 0

    @property
    def best_epoch(self) -> int:
        """Number, from 1, of the epoch with the lowest validation loss; 0 before any epoch."""
        losses = [row["attributes_loss"] for row in self.history]
        finite = [loss if math.isfinite(loss) else math.inf for loss in losses]
        return 1 + int(np.argmin(finite)) if finite else 0

    def losses_of(self, stage_number: int) -> list[float]:
        """Validation losses of the epochs of a stage."""
        rows = (row for row in self.history if row["stage_number"] == stage_number)
        return [row["attributes_loss"] for row in rows]

    def best_loss_before(self, stage_number: int) -> float:
        """Lowest validation loss of the earlier stages; infinite if there is none."""
        rows = (row for row in self.history if row["stage_number"] < stage_number)
        losses = (row["attributes_loss"] for row in rows)
        return min(filter(math.isfinite, losses), default=math.inf)

    def snapshot(self) -> "Checkpoint":
        """A copy to which no later epoch is added."""
        return replace(self, history=list(self.history), scores=list(self.scores))


class CheckpointFolder:
    """The folder that holds the latest checkpoint of one training.

    Parameters
    ----------
    folder : Path
        The folder is created when a checkpoint is first saved.
    plan : mapping of str to Any
        JSON values that identify the training; a checkpoint with another plan is refused.
    """

    def __init__(self, folder: Path, plan: Mapping[str, Any]) -> None:
        self.folder = folder
        self._plan = json.loads(json.dumps(plan))

    @property
    def exists(self) -> bool:
        """Whether there is a checkpoint."""
        return (self.folder / _STATE).exists()

    def remove(self) -> None:
        """Delete the folder and the checkpoint in it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the saved checkpoint, completely or not at all.

        Parameters
        ----------
        checkpoint : Checkpoint

        Raises
        ------
        DiskFullError
            If the disk is full; the previous checkpoint is kept.
        """
        best = self.folder / f"best-{checkpoint.best_epoch}.npz"
        # The file may exist from a repeated epoch: a kill came before its checkpoint was saved.
        if checkpoint.best_epoch == len(checkpoint.history) or not best.exists():
            _write(best, _numbered("best", checkpoint.best_weights))
        about = {
            "plan": self._plan,
            "history": checkpoint.history,
            "batch_size": checkpoint.batch_size,
            "peak_bytes": checkpoint.peak_bytes,
            "best": best.name,
            "n_arrays": {
                "weights": len(checkpoint.weights),
                "optimizer": len(checkpoint.optimizer),
                "best": len(checkpoint.best_weights),
            },
        }
        arrays = {
            "about": np.array(json.dumps(about)),
            "scores": np.stack(checkpoint.scores),
            **_numbered("weights", checkpoint.weights),
            **_numbered("optimizer", checkpoint.optimizer),
        }
        _write(self.folder / _STATE, arrays)
        # Only now does no checkpoint refer to the older files.
        for older in self.folder.glob("best-*.npz"):
            if older != best:
                older.unlink()

    def load(self) -> Checkpoint:
        """Load the saved checkpoint, without executing anything in it.

        Raises
        ------
        RunError
            If it is damaged, or belongs to another training.
        """
        path = self.folder / _STATE
        require_readable(path, MAX_BYTES)
        with self.blamed():
            arrays = load_arrays(path)
            about = _About.model_validate_json(str(arrays["about"]))
            _require_rows(about.history)
            self._require_same_plan(about.plan)
            best_path = self.folder / Path(about.best).name
            require_readable(best_path, MAX_BYTES)
            return Checkpoint(
                about.history,
                list(arrays["scores"]),
                _listed(arrays, "weights", about.n_arrays["weights"]),
                _listed(arrays, "optimizer", about.n_arrays["optimizer"]),
                _listed(load_arrays(best_path), "best", about.n_arrays["best"]),
                about.batch_size,
                about.peak_bytes,
            )

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Blame the checkpoint for what fails while it is read or its weights are set.

        Raises
        ------
        RunError
        """
        try:
            yield
        except RunError:
            raise
        # The type of the error depends on what is wrong with the archive.
        except Exception as error:
            reason = one_line(error)[:200]
            raise RunError(
                f"The checkpoint {self.folder / _STATE} cannot be read ({reason}). Start again "
                "with --no-resume."
            ) from error

    def _require_same_plan(self, plan: Mapping[str, Any]) -> None:
        if changes := differences(plan, self._plan):
            raise RunError(
                f"The checkpoint {self.folder} belongs to another training: {'; '.join(changes)}. "
                "Start again with --no-resume."
            )


def _require_rows(history: Sequence[Mapping[str, Any]]) -> None:
    for row in history:
        for name, kind in _IN_EVERY_ROW.items():
            if not isinstance(row.get(name), kind):
                raise ValueError(f"an epoch has the {name} {row.get(name)!r}")


def _numbered(name: str, arrays: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {f"{name}_{number}": array for number, array in enumerate(arrays)}


def _listed(arrays: Mapping[str, NDArray[Any]], name: str, n_arrays: int) -> Arrays:
    return [arrays[f"{name}_{number}"] for number in range(n_arrays)]


def _write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    with replacing(path) as beside, beside.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
