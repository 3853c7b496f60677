"""A fitted run as a folder of files that execute nothing when they are read."""

import io
import json
import re
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import skops.io
from skops.io.exceptions import UntrustedTypesFoundException

from featurepipe.errors import RunError
from featurepipe.files import disk_full_named, replacing
from featurepipe.models.answers.head_model import HeadModel
from featurepipe.models.networks.saved import NETWORK_FILE, SavedNetwork
from featurepipe.predictions import Predictions

FORMAT = "featurepipe run 2"

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
"""What a model file may hold besides the arrays, containers and scikit-learn estimators that
skops itself trusts."""


@dataclass(frozen=True)
class Run:
    """A fitted run that was saved.

    Attributes
    ----------
    folder : Path
    info : dict of str to Any
        What the run is: names, settings, provenance, costs; ``model_bytes`` is
        the size of the model's file.
    predictions : Predictions
        Test rows and those of combinations that were held out.
    selection : Predictions
        Training rows, predicted out of fold.
    """

    folder: Path
    info: dict[str, Any]
    predictions: Predictions
    selection: Predictions

    @cached_property
    def model(self) -> HeadModel:
        """The fitted heads, read when they are first asked for.

        Raises
        ------
        RunError
            If the file is missing, damaged or holds types that no run has;
            nothing of it has been executed then.
        """
        return _load_model(self.folder)

    @property
    def network(self) -> SavedNetwork | None:
        """The trained network whose scores and embeddings the heads read; None: features.

        Raises
        ------
        RunError
            If `run.json` does not say what there is to know of it.
        """
        return SavedNetwork.of_run(self.folder, self.info) if "network" in self.info else None


def save_run(
    folder: Path,
    info: Mapping[str, Any],
    model: HeadModel,
    predictions: Predictions,
    selection: Predictions,
    files: Mapping[str, bytes | Path] = MappingProxyType({}),
) -> None:
    """Write a run beside its place and move it there once it is complete.

    Parameters
    ----------
    folder : Path
        Where it shall be. A run that is there already is replaced only then.
    info : mapping of str to Any
        JSON values; NaN is none of them. ``model_bytes`` is added, of heads and network.
    model : HeadModel
    predictions, selection : Predictions
        See `Run`.
    files : mapping of str to bytes or Path, optional
        More files by name: their content, or where it lies.

    Raises
    ------
    DiskFullError
        If the disk has no room left; what was there before still stands.
    """
    beside = folder.with_name(f".{folder.name}.part")
    with disk_full_named(folder):
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        try:
            heads = _model_file(model)
            network = files.get(NETWORK_FILE)
            n_bytes = len(heads) + (network.stat().st_size if isinstance(network, Path) else 0)
            content = {"format": FORMAT, **info, "model_bytes": n_bytes}
            _write(beside / "heads.skops", heads)
            _write(beside / "run.json", json.dumps(content, indent=2, allow_nan=False).encode())
            predictions.save(beside / "predictions.npz")
            selection.save(beside / "selection.npz")
            for name, file in files.items():
                if isinstance(file, Path):
                    shutil.copyfile(file, beside / name)
                else:
                    _write(beside / name, file)
            _replace_folder(folder, beside)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def load_run(folder: Path) -> Run:
    """Read what `save_run` wrote; the model is read when it is asked for.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    Run

    Raises
    ------
    RunError
        If a file is missing, damaged or not of a run.
    """
    info = _load_info(folder)
    try:
        predictions = Predictions.load(folder / "predictions.npz")
        selection = Predictions.load(folder / "selection.npz")
    except RunError as error:
        raise RunError(f"Run {folder.name!r} is damaged: {error}") from error
    return Run(folder, info, predictions, selection)


def _load_info(folder: Path) -> dict[str, Any]:
    try:
        info = json.loads((folder / "run.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(folder, "run.json", error) from error
    if not isinstance(info, dict) or info.pop("format", None) != FORMAT:
        raise RunError(
            f"Run {folder.name!r} was not written by this version of featurepipe. Expected "
            f"{FORMAT!r} in {folder / 'run.json'}; fit the run again."
        )
    return info


def _load_model(folder: Path) -> HeadModel:
    path = folder / "heads.skops"
    try:
        model = skops.io.load(path, trusted=TRUSTED_TYPES)
    except UntrustedTypesFoundException as error:
        raise RunError(
            f"Run {folder.name!r} is not trusted: {path} holds types that no run has ({error}). "
            "Nothing of it was executed; fit the run again."
        ) from error
    # What a damaged or forged file raises depends on what is wrong with it.
    except Exception as error:
        raise _damaged(folder, "heads.skops", error) from error
    if not isinstance(model, HeadModel):
        raise _damaged(folder, "heads.skops", TypeError(f"it holds a {type(model).__name__}"))
    return model


def _damaged(folder: Path, name: str, error: Exception) -> RunError:
    reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
    return RunError(
        f"Run {folder.name!r} is damaged: {folder / name} {reason}. Expected a run that "
        "featurepipe fit has written; fit it again."
    )


def _model_file(model: HeadModel) -> bytes:
    """The model in skops' format, the same bytes for the same model.

    skops names objects by their addresses in memory and stamps the archive's
    members with the time.
    """
    dumped = zipfile.ZipFile(io.BytesIO(skops.io.dumps(model)))
    schema = dumped.read("schema.json").decode()
    addresses = dict.fromkeys(re.findall(r'"__id__": (\d+)', schema))
    numbers = {address: str(number) for number, address in enumerate(addresses, start=1)}
    schema = re.sub(r'(?<="__id__": )\d+', lambda found: numbers[found[0]], schema)
    schema = re.sub(r'(?<="file": ")\d+(?=\.npy")', lambda found: numbers[found[0]], schema)
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


def _replace_folder(folder: Path, complete: Path) -> None:
    # A folder cannot be renamed onto one that is not empty.
    replaced = folder.with_name(f".{folder.name}.replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if folder.exists():
        folder.rename(replaced)
    complete.rename(folder)
    shutil.rmtree(replaced, ignore_errors=True)
