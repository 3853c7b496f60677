"""The folder of a run: files that execute nothing when they are read."""

import io
import re
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import skops.io
from skops.io.exceptions import UntrustedTypesFoundException

from featurepipe.errors import RunError
from featurepipe.files import replacing, replacing_folder, require_readable
from featurepipe.models.answers.head_model import HeadModel
from featurepipe.models.networks.saved import NETWORK_FILE, SavedNetwork
from featurepipe.predictions import Predictions
from featurepipe.runs.run_info import (
    HeadRunInfo,
    NetworkRunInfo,
    read_run_info,
    write_run_info,
)

HEADS_FILE = "heads.skops"
PREDICTIONS_FILE = "predictions.npz"
SELECTION_FILE = "selection.npz"

TRUSTED_TYPES = [
    "featurepipe.models.heads.estimators.bagged_sgd.BaggedSGDClassifier",
    "featurepipe.models.answers.calibration.IsotonicCalibrator",
    "featurepipe.models.answers.calibration.LogisticCalibrator",
    "featurepipe.models.answers.calibration.SoftmaxCalibrator",
    "featurepipe.models.answers.head.ConstantHead",
    "featurepipe.models.answers.head.FeatureHead",
    "featurepipe.models.answers.head.KnownClasses",
    "featurepipe.models.answers.head.ScoreHead",
    "featurepipe.models.answers.head_model.HeadModel",
    "featurepipe.models.heads.estimators.knn.CosineNeighbours",
    "featurepipe.models.heads.estimators.logistic.LogisticSweep",
    "featurepipe.models.heads.estimators.scaling.BlockScale",
    "featurepipe.models.heads.estimators.scaling.CommonScale",
    "featurepipe.models.heads.estimators.variances.AbsoluteVarianceThreshold",
    "featurepipe.models.heads.estimators.variances.RelativeVarianceThreshold",
    "featurepipe.models.answers.rejection.Rejector",
]
"""Types that the file of heads may hold, besides the arrays, containers and scikit-learn
estimators that skops itself trusts."""


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
    """

    folder: Path
    info: HeadRunInfo | NetworkRunInfo
    predictions: Predictions
    selection: Predictions

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
            If the file is missing, damaged or holds other types than `TRUSTED_TYPES`; nothing
            in it is executed.
        """
        return _load_model(self.folder)

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
        ``costs.model_bytes`` of its info is set to the size of heads and network.

    Returns
    -------
    Run

    Raises
    ------
    DiskFullError
        If the disk has no room left; a run that was there already is kept.
    """
    heads, network = _heads_file(new.model), new.files.get(NETWORK_FILE)
    n_bytes = len(heads) + (network.stat().st_size if isinstance(network, Path) else 0)
    info = new.info.model_copy(update={"costs": replace(new.info.costs, model_bytes=n_bytes)})
    with replacing_folder(folder) as beside:
        _write(beside / HEADS_FILE, heads)
        write_run_info(beside, info)
        new.predictions.save(beside / PREDICTIONS_FILE)
        new.selection.save(beside / SELECTION_FILE)
        for name, file in new.files.items():
            if isinstance(file, Path):
                shutil.copyfile(file, beside / name)
            else:
                _write(beside / name, file)
    return Run(folder, info, new.predictions, new.selection)


def load_run(folder: Path) -> Run:
    """Load a run; its heads are read on first use.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    RunError
        If a file is missing, damaged or of another version, or files contradict each other.
    """
    info = read_run_info(folder)
    return Run(
        folder,
        info,
        predictions=_load_predictions(folder, PREDICTIONS_FILE, info),
        selection=_load_predictions(folder, SELECTION_FILE, info),
    )


def _load_predictions(folder: Path, name: str, info: HeadRunInfo | NetworkRunInfo) -> Predictions:
    try:
        predictions = Predictions.load(folder / name)
    except RunError as error:
        raise RunError(f"Run {folder.name!r} is damaged: {error}") from error
    actual = (predictions.task, *predictions.labels)
    expected = (info.task, *info.attributes)
    if actual != expected:
        raise RunError(
            f"Run {folder.name!r} is damaged: {folder / name} has task and attributes "
            f"{', '.join(actual)}, but its run.json has {', '.join(expected)}. Fit it again."
        )
    return predictions


def _load_model(folder: Path) -> HeadModel:
    path = folder / HEADS_FILE
    require_readable(path)
    try:
        model = skops.io.load(path, trusted=TRUSTED_TYPES)
    except UntrustedTypesFoundException as error:
        raise RunError(
            f"Run {folder.name!r} is not trusted: {path} holds types that no run has ({error}). "
            "Nothing in it was executed. Fit the run again."
        ) from error
    # What a damaged or forged file raises depends on what is wrong with it.
    except Exception as error:
        raise _damaged(path, error) from error
    if not isinstance(model, HeadModel):
        raise _damaged(path, TypeError(f"it holds a {type(model).__name__}"))
    return model


def _damaged(path: Path, error: Exception) -> RunError:
    reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
    return RunError(f"Run {path.parent.name!r} is damaged: {path} {reason}. Fit it again.")


def _heads_file(model: HeadModel) -> bytes:
    """The heads in the format of skops: the same bytes for the same heads.

    skops itself names objects by their memory addresses and stores the time.
    """
    dumped = zipfile.ZipFile(io.BytesIO(skops.io.dumps(model)))
    schema = dumped.read("schema.json").decode()
    addresses = dict.fromkeys(re.findall(r'"__id__": (\d+)', schema))
    numbers = {address: str(number) for number, address in enumerate(addresses, start=1)}
    schema = re.sub(r'(?<="__id__": )\d+', lambda address: numbers[address[0]], schema)
    schema = re.sub(r'(?<="file": ")\d+(?=\.npy")', lambda address: numbers[address[0]], schema)
    members = {"schema.json": schema.encode()}
    for name in dumped.namelist():
        address = name.removesuffix(".npy")
        if address in numbers:
            members[f"{numbers[address]}.npy"] = dumped.read(name)
    settled = io.BytesIO()
    with zipfile.ZipFile(settled, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return settled.getvalue()


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as beside:
        beside.write_bytes(content)
