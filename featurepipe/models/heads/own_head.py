"""OwnHead: a scikit-learn classifier of the user's own as a head."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field, InstanceOf
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from featurepipe.errors import UsageError
from featurepipe.words import one_line

_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")
_DIGEST_CHARACTERS = 16


@dataclass(frozen=True)
class OwnHead:
    """A classifier of the user's own, in words and as an object.

    Attributes
    ----------
    parameters : str
        The estimator as scikit-learn prints it, with every parameter that is not a default.
    digest : str
        Digest of its types and of all parameters.
    estimator : BaseEstimator or None
        The unfitted estimator. It is not part of `run.json`: None in settings that were read.
    """

    parameters: str
    digest: str
    estimator: Annotated[InstanceOf[BaseEstimator] | None, Field(exclude=True)] = field(
        default=None, repr=False, compare=False
    )

    @classmethod
    def of(cls, estimator: Any, seed: int) -> Self:
        """Clone an estimator, and seed whatever in it is random and has no seed.

        Parameters
        ----------
        estimator : BaseEstimator
            Fitted or not; it is left as it is.
        seed : int
            Of every parameter `random_state` that is None.

        Raises
        ------
        UsageError
            If it is no classifier, has neither scores nor probabilities, or does not take the
            same random numbers each time.
        """
        _require_classifier(estimator)
        estimator = clone(estimator)
        states = {
            name: value
            for name, value in estimator.get_params().items()
            if name.rpartition("__")[2] == "random_state"
        }
        for name, value in states.items():
            if isinstance(value, np.random.RandomState | np.random.Generator):
                raise UsageError(
                    f"The parameter {name} of the head {title_of(estimator)} is a generator of "
                    "random numbers, so that no fit could be repeated. Set an integer, or None "
                    "for the seed of the run."
                )
        estimator.set_params(**{name: seed for name, value in states.items() if value is None})
        text = json.dumps(_described(estimator), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_CHARACTERS]
        return cls(parameters_of(estimator), digest, estimator)

    def build(self) -> BaseEstimator:
        """The classifier, unfitted and for one fit only."""
        assert self.estimator is not None
        return clone(self.estimator)


def title_of(estimator: BaseEstimator) -> str:
    """The class of an estimator; of a pipeline, that of its last step.

    Parameters
    ----------
    estimator : BaseEstimator
    """
    while isinstance(estimator, Pipeline):
        estimator = estimator.steps[-1][1]
    return type(estimator).__name__


def parameters_of(estimator: BaseEstimator) -> str:
    """An estimator with the parameters that are not defaults, on one line.

    Parameters
    ----------
    estimator : BaseEstimator
    """
    return _ADDRESS.sub("", one_line(BaseEstimator.__repr__(estimator, N_CHAR_MAX=10_000)))


def _require_classifier(estimator: Any) -> None:
    if isinstance(estimator, type) or not isinstance(estimator, BaseEstimator):
        kind = "a class" if isinstance(estimator, type) else f"a {type(estimator).__name__}"
        raise UsageError(
            f"The head is {kind}, not a scikit-learn estimator. Give the name of a head, or an "
            "object such as sklearn.svm.SVC()."
        )
    title = title_of(estimator)
    if not is_classifier(estimator):
        raise UsageError(
            f"The head {title} is no classifier. Give a scikit-learn classifier, or a pipeline "
            "that ends in one; a class of your own inherits from sklearn.base.ClassifierMixin."
        )
    last = estimator
    while isinstance(last, Pipeline):
        last = last.steps[-1][1]
    if isinstance(last, FrozenEstimator):
        raise UsageError(
            "The head is a FrozenEstimator, which cannot be fitted. Give the estimator itself."
        )
    if not hasattr(estimator, "decision_function") and not hasattr(estimator, "predict_proba"):
        raise UsageError(
            f"The head {title} has neither decision_function nor predict_proba, so that its "
            "answers have no probabilities. Use another classifier, or wrap it in "
            "sklearn.calibration.CalibratedClassifierCV if that takes it."
        )


def _described(value: Any) -> Any:
    """Types and parameters as JSON values: the same for the same settings in every process."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, BaseEstimator):
        return [kind, _described(value.get_params(deep=False))]
    if isinstance(value, Mapping):
        return [kind, [[repr(key), _described(item)] for key, item in value.items()]]
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [kind, [_described(item) for item in value]]
    if isinstance(value, np.ndarray) and value.dtype != object:
        digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return [kind, str(value.dtype), list(value.shape), digest]
    text = repr(value)
    if _ADDRESS.search(text) and hasattr(value, "__dict__") and not callable(value):
        return [kind, _described(vars(value))]
    return [kind, _ADDRESS.sub("", text)]
