"""The folder of a run: files that execute nothing when they are read."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from featurepipe.errors import RunError
from featurepipe.files import replacing, replacing_folder
from featurepipe.models.answers.head_model import HeadModel
from featurepipe.models.networks.saved import NETWORK_FILE, SavedNetwork
from featurepipe.output_folders import mark
from featurepipe.predictions import Predictions
from featurepipe.runs.heads_check import n_features_of, require_fitting_heads
from featurepipe.runs.heads_file import heads_content, load_heads
from featurepipe.runs.predictions_file import load_predictions, save_predictions
from featurepipe.runs.run_files import (
    HEADS_FILE,
    PREDICTIONS_FILE,
    SELECTION_FILE,
    file_digests,
    require_file,
)
from featurepipe.runs.run_info import (
    HeadRunInfo,
    NetworkRunInfo,
    read_run_info,
    write_run_info,
)


@dataclass(frozen=True)
class Run:
    """A saved run.

    Attributes
    ----------
    folder : Path
    info : HeadRunInfo or NetworkRunInfo
    predictions : Predictions
        Test rows, and those of combinations that were held out.
    selection : Predictions
        Training rows, predicted out of fold.
    trusted : tuple of str
        Types that the caller, never the run itself, trusts in a head of one's own.
    """

    folder: Path
    info: HeadRunInfo | NetworkRunInfo
    predictions: Predictions
    selection: Predictions
    trusted: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.folder.name

    @cached_property
    def model(self) -> HeadModel:
        """The fitted heads, read on first use.

        Raises
        ------
        RunError
            If the file is missing, damaged, holds other types than those of heads, or its heads
            are not those of the run; nothing in it is executed.
        """
        path = self.file(HEADS_FILE)
        model = load_heads(path, self.trusted if self._has_own_head else None)
        require_fitting_heads(model, self.info, self.predictions, path)
        return model

    @property
    def _has_own_head(self) -> bool:
        return isinstance(self.info, HeadRunInfo) and self.info.settings.own is not None

    @property
    def n_features(self) -> int:
        """Number of features of an image that the heads read."""
        return n_features_of(self.model, self.info)

    def file(self, name: str) -> Path:
        """The path of one of its files, if that is what the run saved.

        Parameters
        ----------
        name : str

        Raises
        ------
        RunError
            If the file is missing or was changed.
        """
        return require_file(self.folder, name, self.info.files)

    @property
    def network(self) -> SavedNetwork | None:
        """The trained network whose scores and embeddings the heads read; None for features."""
        info = self.info
        if isinstance(info, HeadRunInfo):
            return None
        shape = info.network
        path = self.folder / NETWORK_FILE
        return SavedNetwork(path, info.head, shape.size_px, shape.outputs, shape.same)


@dataclass(frozen=True)
class NewRun:
    """A run that is not saved yet.

    Attributes
    ----------
    info : HeadRunInfo or NetworkRunInfo
    model : HeadModel
    predictions, selection : Predictions
        See `Run`.
    files : mapping of str to (bytes or Path)
        More files by name: their content, or where it is copied from.
    """

    info: HeadRunInfo | NetworkRunInfo
    model: HeadModel
    predictions: Predictions
    selection: Predictions
    files: Mapping[str, bytes | Path] = field(default_factory=dict)


def save_run(folder: Path, new: NewRun) -> Run:
    """Save a run, whole or not at all.

    Parameters
    ----------
    folder : Path
        Its last part is the run's name. A run that is there already is replaced once the new
        one is complete.
    new : NewRun
        ``costs.model_bytes`` of its info is set to the size of heads and network, and ``files``
        to the digests of its files.

    Returns
    -------
    Run

    Raises
    ------
    DiskFullError
        If the disk has no room left; a run that was there already is kept.
    """
    heads, network = heads_content(new.model), new.files.get(NETWORK_FILE)
    n_bytes = len(heads) + (network.stat().st_size if isinstance(network, Path) else 0)
    costs = replace(new.info.costs, model_bytes=n_bytes)
    with replacing_folder(folder) as beside:
        # It may hold pictures: those of a training.
        mark(beside)
        _write(beside / HEADS_FILE, heads)
        save_predictions(beside / PREDICTIONS_FILE, new.predictions)
        save_predictions(beside / SELECTION_FILE, new.selection)
        for name, file in new.files.items():
            if isinstance(file, Path):
                shutil.copyfile(file, beside / name)
            else:
                _write(beside / name, file)
        info = new.info.model_copy(update={"costs": costs, "files": file_digests(beside)})
        write_run_info(beside, info)
    return Run(folder, info, new.predictions, new.selection)


def load_run(folder: Path, trusted: Sequence[str] = ()) -> Run:
    """Load a run; its heads are read on first use.

    Parameters
    ----------
    folder : Path
    trusted : sequence of str
        See `Run`.

    Raises
    ------
    RunError
        If a file is missing, damaged or of another version, or files contradict each other.
    """
    info = read_run_info(folder)
    predictions = _predictions_of(folder, PREDICTIONS_FILE, info)
    selection = _predictions_of(folder, SELECTION_FILE, info)
    if problem := _contradiction(predictions, selection):
        raise RunError(f"Run {folder.name!r} is damaged: {problem}. Fit or train it again.")
    return Run(folder, info, predictions, selection, tuple(trusted))


def _predictions_of(folder: Path, name: str, info: HeadRunInfo | NetworkRunInfo) -> Predictions:
    path = require_file(folder, name, info.files)
    try:
        predictions = load_predictions(path)
    except RunError as error:
        raise RunError(f"Run {folder.name!r} is damaged: {error}") from error
    actual = (predictions.task, *predictions.labels)
    expected = (info.task, *info.attributes)
    if actual != expected:
        raise RunError(
            f"Run {folder.name!r} is damaged: {path} has task and attributes "
            f"{', '.join(actual)}, but its run.json has {', '.join(expected)}. Fit it again."
        )
    return predictions


def _contradiction(predictions: Predictions, selection: Predictions) -> str | None:
    """What is wrong with the two files of predictions together, in words."""
    if "test" not in predictions.parts or "train" in predictions.parts:
        return f"{PREDICTIONS_FILE} has no test image, or has training images"
    if not len(selection) or (selection.parts != "train").any():
        return f"{SELECTION_FILE} has no training image, or has others"
    if len(both := np.intersect1d(predictions.ids, selection.ids)):
        return f"{PREDICTIONS_FILE} and {SELECTION_FILE} both have the image {str(both[0])!r}"
    for name, truth in predictions.labels.items():
        other = selection.labels[name]
        if (truth.classes, truth.exclusive) != (other.classes, other.exclusive):
            return f"{PREDICTIONS_FILE} and {SELECTION_FILE} have other classes of {name!r}"
    return None


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as beside:
        beside.write_bytes(content)
