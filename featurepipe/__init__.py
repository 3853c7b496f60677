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
    from featurepipe.workflows.repair import repair
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
    "repair",
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
    "repair": "featurepipe.workflows.repair",
    "repeat": "featurepipe.workflows.repeat",
    "report": "featurepipe.workflows.report",
    "train": "featurepipe.workflows.train",
    "verify": "featurepipe.workflows.same",
}


def __getattr__(name: str) -> Any:
    # Public names load on first use, so that `import featurepipe` stays light.
    if name in ("same", "info", "predict", "extract"):
        return _temporary(name)
    if name not in _HOMES:
        raise AttributeError(f"module 'featurepipe' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__


def _temporary(name: str) -> Any:
    # Names and parameters that the workflows do not have yet: this goes with them.
    import importlib
    import inspect

    workflow = importlib.import_module(f"featurepipe.workflows.{name}")
    if name in ("same", "info"):
        return getattr(workflow, {"same": "verify", "info": "describe"}[name])
    function = getattr(workflow, name)

    def adapted(
        *args: Any, unrelated: bool = False, all_images: bool = False, **options: Any
    ) -> Any:
        if name == "predict":
            options["foreign"] = unrelated
        return function(*args, **options)

    known = inspect.signature(function)
    new = {"predict": "unrelated", "extract": "all_images"}[name]
    gone = {"predict": ("foreign", "seed"), "extract": ()}[name]
    added = inspect.Parameter(new, inspect.Parameter.KEYWORD_ONLY, default=False)
    kept = [param for param in known.parameters.values() if param.name not in gone]
    adapted.__signature__ = known.replace(parameters=[*kept, added])  # type: ignore[attr-defined]
    return adapted
