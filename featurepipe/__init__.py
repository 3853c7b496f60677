"""featurepipe: frozen ImageNet features, classical heads, an honest leaderboard."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from featurepipe.features.store import FeatureStore
    from featurepipe.workflows.audit import audit
    from featurepipe.workflows.export import export
    from featurepipe.workflows.extract import extract
    from featurepipe.workflows.fit import fit
    from featurepipe.workflows.predict import predict
    from featurepipe.workflows.repeat import repeat
    from featurepipe.workflows.report import report
    from featurepipe.workflows.same import verify
    from featurepipe.workflows.train import train

__all__ = [
    "FeatureStore",
    "__version__",
    "audit",
    "export",
    "extract",
    "fit",
    "predict",
    "repeat",
    "report",
    "train",
    "verify",
]

_HOMES = {
    "FeatureStore": "featurepipe.features.store",
    "audit": "featurepipe.workflows.audit",
    "export": "featurepipe.workflows.export",
    "extract": "featurepipe.workflows.extract",
    "fit": "featurepipe.workflows.fit",
    "predict": "featurepipe.workflows.predict",
    "repeat": "featurepipe.workflows.repeat",
    "report": "featurepipe.workflows.report",
    "train": "featurepipe.workflows.train",
    "verify": "featurepipe.workflows.same",
}


def __getattr__(name: str) -> Any:
    # Public names load on first use, so that `import featurepipe` stays light.
    if name not in _HOMES:
        raise AttributeError(f"module 'featurepipe' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
