"""heads.skops: fitted heads as a file that executes nothing when it is read."""

import io
import re
import zipfile
from pathlib import Path

import skops.io
from skops.io.exceptions import UntrustedTypesFoundException

from featurepipe.array_archives import require_sound_archive
from featurepipe.errors import RunError
from featurepipe.models.answers.head_model import HeadModel
from featurepipe.words import one_line

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

_SCHEMA = "schema.json"


def load_heads(path: Path) -> HeadModel:
    """Read the heads of a run; see `featurepipe.runs.heads_check` for whether they fit it.

    Parameters
    ----------
    path : Path

    Raises
    ------
    RunError
        If the file is damaged or holds other types than `TRUSTED_TYPES`; nothing in it is
        executed.
    """
    run = path.parent.name
    try:
        require_sound_archive(path, [_SCHEMA])
        model = skops.io.load(path, trusted=TRUSTED_TYPES)
    except UntrustedTypesFoundException as error:
        raise RunError(
            f"Run {run!r} is not trusted: {path} holds types that no run has ({one_line(error)}). "
            "Nothing in it was executed. Fit the run again."
        ) from error
    # What a damaged or forged file raises depends on what is wrong with it.
    except Exception as error:
        raise RunError(
            f"Run {run!r} is damaged: {path} cannot be read ({one_line(error)}). Fit it again."
        ) from error
    if not isinstance(model, HeadModel):
        raise RunError(
            f"Run {run!r} is damaged: {path} cannot be read (it holds a {type(model).__name__}). "
            "Fit it again."
        )
    return model


def heads_content(model: HeadModel) -> bytes:
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
