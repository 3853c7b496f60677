"""Checkpoints: where a training stands after an epoch, so that a killed one can go on."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import RunError
from featurepipe.files import replacing
from featurepipe.provenance import differences

_STATE = "training.npz"

Arrays = list[NDArray[Any]]


@dataclass
class Checkpoint:
    """Where a training stands.

    Attributes
    ----------
    history : list of dict
        One row an epoch, as `featurepipe.models.networks.training_loop` writes them.
    scores : list of ndarray of shape (n_validation, n_scores), float32
        What the validation images were answered after each epoch.
    weights, optimizer : list of ndarray
        Of the last epoch.
    best_weights : list of ndarray
        Of the epoch with the lowest validation loss so far.
    batch_size : int
        Images at once; less than was asked for where memory did not suffice.
    peak_bytes : int
        Most memory that the process has taken.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    scores: list[NDArray[np.float32]] = field(default_factory=list)
    weights: Arrays = field(default_factory=list)
    optimizer: Arrays = field(default_factory=list)
    best_weights: Arrays = field(default_factory=list)
    batch_size: int = 0
    peak_bytes: int = 0


class CheckpointFolder:
    """The folder in which a training keeps where it stands.

    Parameters
    ----------
    folder : Path
        Made when something is first saved.
    plan : mapping of str to Any
        What decides the training, as JSON values: a checkpoint of another is refused.
    """

    def __init__(self, folder: Path, plan: Mapping[str, Any]) -> None:
        self.folder = folder
        self._plan = json.loads(json.dumps(plan))

    @property
    def exists(self) -> bool:
        """Whether there is a checkpoint."""
        return (self.folder / _STATE).exists()

    def save(self, checkpoint: Checkpoint, best_epoch: int) -> None:
        """Keep a checkpoint in place of the one before, whole or not at all.

        Parameters
        ----------
        checkpoint : Checkpoint
        best_epoch : int
            The number, from 1, of the epoch that its best weights are of.

        Raises
        ------
        DiskFullError
            If the disk has no room left; the checkpoint before still stands.
        """
        best = self.folder / f"best-{best_epoch}.npz"
        # A file of an epoch that was not kept may be there: a kill came between.
        if best_epoch == len(checkpoint.history) or not best.exists():
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
        # Only now does nothing refer to those before any more.
        for older in self.folder.glob("best-*.npz"):
            if older != best:
                older.unlink()

    def load(self) -> Checkpoint:
        """The checkpoint that was saved last; nothing of it is executed.

        Raises
        ------
        RunError
            If it is damaged, or of another training: what differs.
        """
        path = self.folder / _STATE
        try:
            with np.load(path, allow_pickle=False) as arrays:
                about = json.loads(str(arrays["about"]))
                self._require_same_plan(about["plan"])
                with np.load(self.folder / Path(about["best"]).name, allow_pickle=False) as best:
                    best_weights = _listed(best, "best", about["n_arrays"]["best"])
                return Checkpoint(
                    about["history"],
                    list(arrays["scores"]),
                    _listed(arrays, "weights", about["n_arrays"]["weights"]),
                    _listed(arrays, "optimizer", about["n_arrays"]["optimizer"]),
                    best_weights,
                    about["batch_size"],
                    about["peak_bytes"],
                )
        except RunError:
            raise
        # What a damaged archive raises depends on the byte that is damaged.
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise RunError(
                f"The checkpoint {path} cannot be read ({reason}). Begin the training anew: "
                "--no-resume"
            ) from error

    def _require_same_plan(self, plan: Mapping[str, Any]) -> None:
        if found := differences(plan, self._plan):
            raise RunError(
                f"The checkpoint {self.folder} is of another training: {'; '.join(found)}. "
                "Expected one of the same network and classes; begin anew with --no-resume."
            )


def _numbered(name: str, arrays: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {f"{name}_{k}": each for k, each in enumerate(arrays)}


def _listed(arrays: Mapping[str, NDArray[Any]], name: str, n_arrays: int) -> Arrays:
    return [arrays[f"{name}_{k}"] for k in range(n_arrays)]


def _write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    with replacing(path) as beside, beside.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
