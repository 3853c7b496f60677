"""featurepipe: frozen features, classical heads and networks, compared honestly."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from featurepipe.features.store import FeatureStore
    from featurepipe.workflows.audit import audit
    from featurepipe.workflows.check import check
    from featurepipe.workflows.export import export
    from featurepipe.workflows.extract import extract
    from featurepipe.workflows.fit import fit
    from featurepipe.workflows.info import info
    from featurepipe.workflows.next_labels import next_labels
    from featurepipe.workflows.predict import predict
    from featurepipe.workflows.predictor import Predictor
    from featurepipe.workflows.repeat import repeat
    from featurepipe.workflows.report import report
    from featurepipe.workflows.same import same
    from featurepipe.workflows.serve import serve
    from featurepipe.workflows.similar import similar
    from featurepipe.workflows.train import train

__all__ = [
    "FeatureStore",
    "Predictor",
    "__version__",
    "audit",
    "check",
    "export",
    "extract",
    "fit",
    "info",
    "next_labels",
    "predict",
    "repeat",
    "report",
    "same",
    "serve",
    "similar",
    "train",
]

_HOMES = {
    "FeatureStore": "featurepipe.features.store",
    "Predictor": "featurepipe.workflows.predictor",
    "audit": "featurepipe.workflows.audit",
    "check": "featurepipe.workflows.check",
    "export": "featurepipe.workflows.export",
    "extract": "featurepipe.workflows.extract",
    "fit": "featurepipe.workflows.fit",
    "info": "featurepipe.workflows.info",
    "next_labels": "featurepipe.workflows.next_labels",
    "predict": "featurepipe.workflows.predict",
    "repeat": "featurepipe.workflows.repeat",
    "report": "featurepipe.workflows.report",
    "same": "featurepipe.workflows.same",
    "serve": "featurepipe.workflows.serve",
    "similar": "featurepipe.workflows.similar",
    "train": "featurepipe.workflows.train",
}


def __getattr__(name: str) -> Any:
    # Public names load on first use, so that `import featurepipe` stays light.
    if name not in _HOMES:
        raise AttributeError(f"module 'featurepipe' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
