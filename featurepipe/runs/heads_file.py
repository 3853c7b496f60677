"""heads.skops: fitted heads as a file that executes nothing when it is read.

skops is imported where heads are read or saved, and without its walk through all modules of
scikit-learn, which takes seconds and, where that is installed, imports torch.
"""

import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from featurepipe.array_archives import require_sound_archive
from featurepipe.errors import RunError
from featurepipe.models.answers.head_model import HeadModel
from featurepipe.words import listed, one_line

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
    "featurepipe.models.heads.estimators.svm.RbfSVM",
    "featurepipe.models.heads.estimators.variances.AbsoluteVarianceThreshold",
    "featurepipe.models.heads.estimators.variances.RelativeVarianceThreshold",
    "featurepipe.models.answers.rejection.Rejector",
    "sklearn.compose._column_transformer.ColumnTransformer",
    "sklearn.ensemble._bagging.BaggingClassifier",
    "sklearn.isotonic.IsotonicRegression",
    "sklearn.linear_model._logistic.LogisticRegression",
    "sklearn.linear_model._stochastic_gradient.SGDClassifier",
    "sklearn.multiclass.OneVsRestClassifier",
    "sklearn.pipeline.Pipeline",
    "sklearn.preprocessing._data.Normalizer",
    "sklearn.preprocessing._data.StandardScaler",
    "sklearn.preprocessing._label.LabelBinarizer",
    "sklearn.svm._classes.SVC",
]
"""Types that the heads of featurepipe consist of, besides arrays and containers."""

_SCHEMA = "schema.json"

Saved = TypeVar("Saved")


def load_heads(path: Path, trusted: Sequence[str] | None = None) -> HeadModel:
    """Read the heads of a run; see `featurepipe.runs.heads_check` for whether they fit it.

    Parameters
    ----------
    path : Path
    trusted : sequence of str or None
        The types beyond `TRUSTED_TYPES` that the caller trusts, in a head of one's own. None if
        `run.json` says that the head is one of featurepipe.

    Raises
    ------
    RunError
        If the file is damaged or holds types that are not trusted; nothing in it is executed.
    """
    skops_io = _import_skops()
    from skops.io.exceptions import UntrustedTypesFoundException

    of_own_head = () if trusted is None else (*_types_of_sklearn(), *trusted)
    run = path.parent.name
    try:
        require_sound_archive(path, [_SCHEMA])
        model = skops_io.load(path, trusted=[*TRUSTED_TYPES, *of_own_head])
    except UntrustedTypesFoundException as error:
        if trusted is None:
            raise RunError(
                f"Run {run!r} is not trusted: {path} holds types that no run has "
                f"({one_line(error)}). Nothing in it was executed. Fit the run again."
            ) from error
        raise _not_trusted(run, path, trusted) from error
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


def _not_trusted(run: str, path: Path, trusted: Sequence[str]) -> RunError:
    types = sorted({*types_to_trust(path.read_bytes())} - {*trusted})
    return RunError(
        f"Run {run!r} is not trusted: its head is made of {listed(types)}, which neither skops nor "
        "featurepipe trusts. Nothing in it was executed. If you know where the run comes from, and "
        f"trust these types, use Python: trusted={types}."
    )


def types_to_trust(content: bytes) -> list[str]:
    """The types in a file that are neither featurepipe's nor scikit-learn's estimators, sorted.

    Parameters
    ----------
    content : bytes
        What `heads_content` returns.
    """
    types = {*_import_skops().get_untrusted_types(data=content)}
    return sorted(types - {*TRUSTED_TYPES, *_types_of_sklearn()})


def saved_and_loaded(value: Saved) -> tuple[list[str], Saved]:
    """A value of this process as another one will read it, and what that one has to trust.

    Parameters
    ----------
    value : object

    Returns
    -------
    types : list of str
        See `types_to_trust`.
    loaded : object

    Raises
    ------
    Exception
        Of any type, if it cannot be saved or loaded.
    """
    content = heads_content(value)
    types = types_to_trust(content)
    # They are the types of an object that exists here.
    trusted = [*TRUSTED_TYPES, *_types_of_sklearn(), *types]
    return types, _import_skops().loads(content, trusted=trusted)


def heads_content(model: object) -> bytes:
    """The heads in the format of skops: the same bytes for the same heads.

    skops itself names objects by their memory addresses and stores the time.
    """
    dumped = zipfile.ZipFile(io.BytesIO(_import_skops().dumps(model)))
    schema, members = json.loads(dumped.read("schema.json")), {}
    place_of: dict[bytes, str] = {}
    # Each object gets a number of its own: whether two equal ones were one object depends on
    # where they were made. Equal arrays share a file.
    for number, state in enumerate(_objects_in(schema), start=1):
        state["__id__"] = number
        if state.get("file", "").endswith(".npy"):
            content = dumped.read(state["file"])
            state["file"] = place_of.setdefault(content, f"{number}.npy")
            members[state["file"]] = content
    settled = io.BytesIO()
    with zipfile.ZipFile(settled, "w") as archive:
        for name, content in {"schema.json": json.dumps(schema).encode(), **members}.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return settled.getvalue()


def _objects_in(state: Any) -> Iterator[dict[str, Any]]:
    """Every object that a schema of skops describes, those that hold others first."""
    if isinstance(state, dict):
        if "__id__" in state:
            yield state
        state = list(state.values())
    if isinstance(state, list):
        for part in state:
            yield from _objects_in(part)


def _import_skops() -> Any:
    """skops.io, without the walk by which it learns the names of all estimators of scikit-learn."""
    import sklearn.utils

    walk = sklearn.utils.all_estimators
    sklearn.utils.all_estimators = list
    try:
        import skops.io
    finally:
        sklearn.utils.all_estimators = walk
    return skops.io


@cache
def _types_of_sklearn() -> tuple[str, ...]:
    """The estimators of scikit-learn, as skops trusts them by default."""
    from sklearn.utils import all_estimators

    classes = (kind for _, kind in all_estimators())
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in classes)
    return tuple(name for name in names if name.startswith("sklearn."))
