"""featurepipe: frozen ImageNet features, classical heads, an honest leaderboard."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from featurepipe.features.store import FeatureStore
    from featurepipe.workflows.auditing import audit
    from featurepipe.workflows.exporting import export
    from featurepipe.workflows.extracting import extract
    from featurepipe.workflows.fitting import fit
    from featurepipe.workflows.predicting import predict
    from featurepipe.workflows.repairing import repair
    from featurepipe.workflows.repeating import repeat
    from featurepipe.workflows.reporting import report
    from featurepipe.workflows.training import train
    from featurepipe.workflows.verifying import verify

__all__ = [
    "FeatureStore",
    "__version__",
    "audit",
    "export",
    "extract",
    "fit",
    "predict",
    "repair",
    "repeat",
    "report",
    "train",
    "verify",
]

_HOMES = {
    "FeatureStore": "featurepipe.features.store",
    "audit": "featurepipe.workflows.auditing",
    "export": "featurepipe.workflows.exporting",
    "extract": "featurepipe.workflows.extracting",
    "fit": "featurepipe.workflows.fitting",
    "predict": "featurepipe.workflows.predicting",
    "repair": "featurepipe.workflows.repairing",
    "repeat": "featurepipe.workflows.repeating",
    "report": "featurepipe.workflows.reporting",
    "train": "featurepipe.workflows.training",
    "verify": "featurepipe.workflows.verifying",
}


def __getattr__(name: str) -> Any:
    # Public names load on first use, so that `import featurepipe` stays light.
    if name not in _HOMES:
        raise AttributeError(f"module 'featurepipe' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
